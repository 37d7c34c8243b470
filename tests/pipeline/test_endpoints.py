import pytest

from emulator.standin import MODEL_ID
from endpoint.settings import InstanceFormat, SendAs
from pipeline.endpoints import Target, is_loopback, resolve_model
from pipeline.endpoints import resolve as resolve_for

OWN = "projects/my-project/locations/us-central1/endpoints/123"


def resolve(endpoint: str, host: str | None) -> Target:
    return resolve_for(endpoint, host, "audio", "research")


@pytest.mark.parametrize(("send", "number"), [("audio", "200"), ("uris", "220")])
def test_research_is_the_documented_endpoint_for_what_is_sent(send: SendAs, number: str) -> None:
    target = resolve_for("research", None, send, "research")
    assert target.name == f"projects/4016704501/locations/us-west1/endpoints/{number}"
    assert target.host == "us-west1-aiplatform.googleapis.com"
    assert not target.local


@pytest.mark.parametrize("send", ["audio", "uris"])
def test_research_endpoints_take_no_other_format(send: SendAs) -> None:
    wrong: InstanceFormat = "model_garden"
    with pytest.raises(ValueError, match="--instance_format is 'model_garden'"):
        resolve_for("research", None, send, wrong)
    assert resolve_for(OWN, None, send, wrong).name == OWN


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


MODEL = "projects/my-project/locations/us-central1/models/123@2"


def test_a_batch_goes_to_the_documented_model_or_to_one_by_its_name() -> None:
    research = resolve_model("research", None, None, "research")
    assert research.name == "projects/4016704501/locations/us-west1/models/220"
    assert research.host == "us-west1-aiplatform.googleapis.com"
    own = resolve_model(None, MODEL, None, "model_garden")
    assert (own.name, own.host, own.default_model_id) == (MODEL, "us-central1-aiplatform.googleapis.com", "hear")
    assert resolve_model(None, MODEL, "127.0.0.1:8080", "research").default_model_id == MODEL_ID
    assert resolve_model("local", None, None, "model_garden").local


@pytest.mark.parametrize(
    ("endpoint", "model", "host", "instance_format", "said"),
    [
        (OWN, None, None, "research", "--endpoint is 'projects/my-project/.*asks a model and no endpoint"),
        ("research", MODEL, None, "research", "--batch_model is .*leave one of them out"),
        ("local", MODEL, None, "research", "--batch_model is .*leave one of them out"),
        (None, None, None, "research", "--endpoint is missing: expected with --send batch"),
        (
            None,
            OWN,
            None,
            "research",
            "--batch_model is 'projects/.*: expected projects/PROJECT/locations/LOCATION/models",
        ),
        (None, "123", None, "research", "--batch_model is '123'"),
        ("research", None, None, "model_garden", "--instance_format is 'model_garden'.*name the model"),
        ("local", None, "127.0.0.1:1", "research", "--endpoint_host is"),
        (None, MODEL, "http://x", "research", "--endpoint_host"),
    ],
)
def test_a_batch_that_goes_nowhere_is_refused(
    endpoint: str | None, model: str | None, host: str | None, instance_format: InstanceFormat, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        resolve_model(endpoint, model, host, instance_format)
