"""What is asked of which recording, and what the checkpoint holds of it, keyed by URI."""

from pathlib import Path

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from audio.manifest import ManifestRow, ManifestSettings
from audio.recording import Recording, Take
from rows.model import FailureRow, Receipt
from tests.rows.samples import embedding_row
from tests.transforms.samples import keep, kept, recording, store, write_wav
from transforms.ask import Ask


def asked(
    folder: Path, inputs: tuple[str, ...] = (), manifest: Path | None = None, generations: tuple[str, ...] = ()
) -> dict[str, list[object]]:
    """What the stage gives, its keyed collections put together."""
    settings = None if manifest is None else ManifestSettings(str(manifest))
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        found = pipeline | Ask(inputs, settings, str(folder / "checkpoint"), generations)
        by_uri = found["by_uri"] | "All" >> beam.Flatten()
        for name, elements in {**found, "by_uri": by_uri}.items():
            keep(elements, folder / f"kept-{name}")
    return {name: kept(folder / f"kept-{name}") for name in ("by_uri", "problems", "ignored", "counts")}


def test_inputs_are_listed_and_receipts_come_beside_them(tmp_path: Path) -> None:
    of = recording(write_wav(tmp_path / "in" / "a.wav"))
    (tmp_path / "in" / "notes.txt").write_text("not a recording")
    (receipt,) = store(tmp_path / "checkpoint", "run1/p/0.rows", [("s", embedding_row())])
    store(tmp_path / "checkpoint", "run2/p/0.rows", [("s", embedding_row())])
    (tmp_path / "checkpoint" / "run1" / "p" / "1.rows").write_bytes(b"damaged")
    found = asked(tmp_path, (str(tmp_path / "in"),), generations=("run1",))
    assert sorted(found["by_uri"], key=repr) == sorted([(of.uri, of), (receipt.recording_uri, receipt)], key=repr)
    assert found["ignored"] == [str(tmp_path / "in" / "notes.txt")]
    assert found["counts"] == [{"damaged_files": 1}]
    assert found["problems"] == []


def test_a_checkpoint_among_the_recordings_is_no_ignored_file(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav")
    (tmp_path / "checkpoint-notes.txt").write_text("not a recording")
    store(tmp_path / "checkpoint", "run1/p/0.rows", [("s", embedding_row())])
    assert asked(tmp_path, (str(tmp_path),))["ignored"] == [str(tmp_path / "checkpoint-notes.txt")]


def test_a_manifests_rows_are_keyed_and_rows_that_cannot_be_used_are_failures(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri,start_s,end_s,label\na.wav,,,cough\na.wav,1,x,sneeze\n,1,2,nowhere\n")
    found = asked(tmp_path, manifest=manifest)
    uri = str(tmp_path / "a.wav")
    rows = [item for _, item in found["by_uri"] if isinstance(item, ManifestRow)]
    assert [(row.row, row.uri, row.take, row.metadata) for row in rows] == [
        (1, uri, Take("mean"), (("label", "cough"),))
    ]
    ((key, failure),) = [(key, item) for key, item in found["by_uri"] if isinstance(item, FailureRow)]
    assert (key, failure.manifest_row, failure.stage, failure.code) == (uri, 2, "manifest", "malformed_value")
    (nowhere,) = found["problems"]
    assert (nowhere.recording_uri, nowhere.manifest_row, nowhere.code) == ("", 3, "missing_value")
    assert nowhere.message.startswith("line 4: ")
    assert "sneeze" not in repr(found["by_uri"]) + repr(found["problems"])
    assert not any(isinstance(item, Recording | Receipt) for _, item in found["by_uri"])
