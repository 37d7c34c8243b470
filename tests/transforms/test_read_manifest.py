import pickle
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from audio.manifest import ManifestError, ManifestProblem, ManifestRow, ManifestSettings, read_manifest
from audio.recording import Take
from transforms.quiet import KNOWN_ERROR
from transforms.read_manifest import ReadManifest

MANIFEST = "uri,start_s,end_s,label\na.wav,,,x\nb.wav,1,2,00123\na.wav,2,1,y\na.wav,1,2,z\n,,,\n"


def grouped(settings: ManifestSettings, beam_pipeline: beam.Pipeline) -> dict[str, beam.PCollection]:
    read = beam_pipeline | ReadManifest(settings)
    return {
        "rows": read["rows"] | beam.GroupByKey() | beam.MapTuple(lambda uri, rows: (uri, sorted(rows))),
        "problems": read["problems"] | beam.Reshuffle(),
    }


def test_rows_come_by_recording_and_problems_apart(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(MANIFEST)
    settings = ManifestSettings(str(tmp_path / "m.csv"), channel="each")
    everything = list(read_manifest(settings))
    rows = [row for row in everything if isinstance(row, ManifestRow)]
    assert [row.take for row in rows] == [Take("each"), Take("each", 16_000, 32_000), Take("each", 16_000, 32_000)]
    a, b = str(tmp_path / "a.wav"), str(tmp_path / "b.wav")

    def are_what_was_read(actual: list[tuple[str, list[ManifestRow]]]) -> None:
        assert dict(actual) == {a: [rows[0], rows[2]], b: [rows[1]]}
        for _, read in actual:
            assert all(
                type(row) is ManifestRow and type(row.take) is Take and type(row.metadata) is tuple for row in read
            )

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        read = grouped(settings, pipeline)
        assert_that(read["rows"], are_what_was_read, label="rows")
        problems = [row for row in everything if isinstance(row, ManifestProblem)]
        assert [(problem.line, problem.code) for problem in problems] == [
            (4, "contradictory_values"),
            (6, "missing_value"),
        ]
        assert_that(read["problems"], equal_to(problems), label="problems")


def test_settings_reach_workers() -> None:
    settings = ManifestSettings("m.csv", uri_template="{a}.wav")
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_manifest_that_breaks_fails_the_run_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.csv.gz").write_bytes(b"\x1f\x8b\x08\x00broken")
    with pytest.raises(Exception) as caught, beam.Pipeline(runner=FnApiRunner()) as pipeline:
        pipeline | ReadManifest(ManifestSettings(str(tmp_path / "m.csv.gz")))
    text = f"{type(caught.value).__module__}.{type(caught.value).__qualname__}: {caught.value}"
    message = KNOWN_ERROR.findall(text)[-1]
    assert message.startswith(f"the manifest '{tmp_path}/m.csv.gz' cannot be read")
    assert "running" not in message


def test_the_error_is_known_by_its_name() -> None:
    text = f"{ManifestError.__module__}.{ManifestError.__qualname__}: it broke [while running 'Read manifest']"
    assert KNOWN_ERROR.findall(text) == ["it broke"]
