import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.staging_area import StagingArea


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("gs://my-bucket", "gs://my-bucket/hear-staged-r1/"),
        ("gs://my-bucket/", "gs://my-bucket/hear-staged-r1/"),
        ("gs://my.bucket/a/b c", "gs://my.bucket/a/b c/hear-staged-r1/"),
        ("gs://my-bucket/a/", "gs://my-bucket/a/hear-staged-r1/"),
    ],
)
def test_a_run_has_a_folder_of_its_own_below_the_staging_location(location: str, uri: str) -> None:
    assert StagingArea.of(location, "r1").run_uri == uri


@pytest.mark.parametrize(
    "location",
    [
        "",
        "my-bucket",
        "/tmp/x",
        "s3://my-bucket/a",
        "gs://",
        "gs:///a",
        "gs://ab",
        "gs://My_Bucket",
        "gs://my-bucket//a",
        "gs://my-bucket/a//",
        "gs://my-bucket/a/../b",
        "gs://my-bucket/a*",
        "gs://my-bucket/a\nb",
        "gs://my-bucket/" + "a" * 1000,
    ],
)
def test_a_wrong_staging_location_is_named_with_what_is_expected(location: str) -> None:
    with pytest.raises(ValueError, match=r"staging_location .*expected gs://bucket or gs://bucket/folder"):
        StagingArea.of(location, "r1")


@pytest.mark.parametrize("run_id", ["", "a/b", "../x", "a b", "-x", "x" * 65, "ä"])
def test_a_wrong_run_id_is_refused(run_id: str) -> None:
    with pytest.raises(ValueError, match="run_id"):
        StagingArea.of("gs://my-bucket", run_id)


def test_an_area_can_be_pickled() -> None:
    area = StagingArea.of("gs://my-bucket/a", "r1")
    assert pickle.loads(pickle.dumps(area)) == area


@given(
    st.lists(st.text("abc-_.ä ", min_size=1, max_size=9), max_size=4),
    st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True),
)
def test_every_name_lies_in_the_runs_folder_and_is_random(parts: list[str], run_id: str) -> None:
    parts = [part for part in parts if part not in (".", "..")]
    area = StagingArea.of("/".join(["gs://my-bucket", *parts]), run_id)
    names = {area.new_object().name for _ in range(20)}
    assert len(names) == 20
    for name in names:
        *folders, last = name.split("/")
        assert folders == [*parts, f"hear-staged-{run_id}"]
        assert re.fullmatch(r"[0-9a-f]{32}\.wav", last)
        assert len(name.encode()) <= 1024
