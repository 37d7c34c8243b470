import pytest

from emulator.standin import MODEL_ID
from pipeline.endpoints import RESEARCH_NAME, is_loopback, resolve

OWN = "projects/my-project/locations/us-central1/endpoints/123"


def test_research_is_the_documented_endpoint_for_audio() -> None:
    target = resolve("research", None)
    assert target.name == RESEARCH_NAME == "projects/4016704501/locations/us-west1/endpoints/200"
    assert target.host == "us-west1-aiplatform.googleapis.com"
    assert not target.local


def test_an_endpoint_by_its_name_is_at_its_locations_host() -> None:
    assert resolve(OWN, None) == resolve(OWN, "us-central1-aiplatform.googleapis.com")


def test_a_host_can_be_another() -> None:
    assert (
        resolve(OWN, "123.us-central1-1.prediction.vertexai.goog").host == "123.us-central1-1.prediction.vertexai.goog"
    )


def test_local_has_no_place_before_the_run_starts_it() -> None:
    target = resolve("local", None)
    assert (target.name, target.host, target.local) == ("", "", True)


@pytest.mark.parametrize(
    ("endpoint", "host", "model_id"),
    [
        ("local", None, MODEL_ID),
        (OWN, "127.0.0.1:8080", MODEL_ID),
        (OWN, "localhost:8080", MODEL_ID),
        (OWN, "[::1]:8080", MODEL_ID),
        (OWN, None, "hear"),
        ("research", None, "hear"),
        (OWN, "127.0.0.1.example.org:8080", "hear"),
    ],
)
def test_rows_of_an_endpoint_on_this_machine_are_never_taken_for_hears(
    endpoint: str, host: str | None, model_id: str
) -> None:
    assert resolve(endpoint, host).default_model_id == model_id


@pytest.mark.parametrize(
    "endpoint", ["", "Local", "projects/p/endpoints/1", OWN + "\n", OWN + "/x", "projects/p/locations/US/endpoints/1"]
)
def test_what_names_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="expected local, research or projects/"):
        resolve(endpoint, None)


def test_an_empty_host_is_not_a_silent_default() -> None:
    with pytest.raises(ValueError, match="--endpoint_host"):
        resolve(OWN, "")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("10.0.0.1:1", False)]
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
