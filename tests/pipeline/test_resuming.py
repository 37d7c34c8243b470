"""What a run finds in its checkpoint: what counts, whose it is, and what is removed."""

from pathlib import Path

import pytest

from pipeline.resuming import Earlier, alone_on_checkpoint, find_earlier, take_over
from pipeline.settings import RunSettings
from pipeline.usage import UsageError
from rows.generations import MERGED_AT_ONCE, Merge, note_merge, note_run, remove_all
from rows.lease import LeaseTaken
from rows.store import open_store
from tests.pipeline.commands import settings
from tests.rows.samples import embedding_row
from tests.transforms.samples import store


def earlier_run(run: RunSettings, name: str, **facts: object) -> None:
    """Makes it look as if a run had stored a row."""
    described = {"run_id": name, "fingerprint": run.fingerprint, "fingerprint_settings": run.fingerprint_settings}
    note_run(open_store(run.checkpoint), name, {**described, **facts})
    store(Path(run.checkpoint), f"{name}/p/0.rows", [("s", embedding_row())])


def test_a_first_run_finds_nothing(tmp_path: Path) -> None:
    assert take_over(settings(tmp_path)) == Earlier({})


def test_runs_that_were_there_at_launch_count(tmp_path: Path) -> None:
    run = settings(tmp_path)
    for name in ("run1", "run2"):
        earlier_run(run, name)
    found = take_over(run)
    assert found.live == ("run1", "run2")
    assert [told["run_id"] for told in found.runs] == ["run1", "run2"]
    assert found.merge is None


def test_damaged_notes_of_earlier_runs_say_nothing_and_their_rows_count(tmp_path: Path) -> None:
    run = settings(tmp_path)
    for name, text in (("a", "{"), ("b", "[1]"), ("c", "\xff")):
        earlier_run(run, name)
        (Path(run.checkpoint) / name / "run.json").write_text(text, encoding="latin-1")
    found = take_over(run)
    assert found.runs == []
    assert found.live == ("a", "b", "c")


def test_enough_runs_are_due_to_be_merged(tmp_path: Path) -> None:
    run = settings(tmp_path)
    names = tuple(f"run{number}" for number in range(MERGED_AT_ONCE))
    for name in names:
        earlier_run(run, name)
    assert take_over(run).merge == Merge(f"{run.run_id}-merged1", names)


def test_what_a_merge_that_was_cut_off_left_is_removed(tmp_path: Path) -> None:
    run = settings(tmp_path)
    for name in ("run1", "run2"):
        earlier_run(run, name)
    store(Path(run.checkpoint), "run2-merged1/00000-00000.rows", [("s", embedding_row())])
    note_merge(open_store(run.checkpoint), Merge("run2-merged1", ("run1", "run2")))
    assert take_over(run).live == ("run2-merged1",)
    assert [path.relative_to(run.checkpoint).parts[0] for path in Path(run.checkpoint).rglob("*.rows")] == [
        "run2-merged1"
    ]


def test_another_model_is_refused_by_the_option_that_differs(tmp_path: Path) -> None:
    earlier_run(settings(tmp_path, model_id="hear"), "run1")
    run = settings(tmp_path)
    with pytest.raises(
        UsageError, match=r"--model_id is 'hear-stand-in-v1', but the checkpoint .* was begun with 'hear'"
    ):
        find_earlier(run)


def test_a_checkpoint_of_another_resampler_is_refused_as_the_options_name_them(tmp_path: Path) -> None:
    earlier_run(settings(tmp_path), "run1")
    said = r"--resampler is 'tensorflow_io', but the checkpoint .* was begun with 'soxr': .*--fresh_checkpoint"
    with pytest.raises(UsageError, match=said):
        find_earlier(settings(tmp_path, resampler="tensorflow_io"))


def test_another_fingerprint_is_refused_by_the_setting_that_differs(tmp_path: Path) -> None:
    run = settings(tmp_path)
    changed = {**run.fingerprint_settings, "audio_rules": 0}
    earlier_run(run, "run1", fingerprint="another", fingerprint_settings=changed)
    with pytest.raises(UsageError, match=r"'audio_rules' is \d+, but .* begun with 0: .*--fresh_checkpoint"):
        find_earlier(run)
    earlier_run(run, "run1", fingerprint="another", fingerprint_settings="gone")
    with pytest.raises(UsageError, match="begun with other settings"):
        find_earlier(run)


def test_a_fresh_start_drops_what_was_there_whatever_its_settings(tmp_path: Path) -> None:
    earlier_run(settings(tmp_path, model_id="hear"), "run1")
    run = settings(tmp_path)
    run = type(run)(**{**vars(run), "fresh_checkpoint": True})
    (Path(run.checkpoint) / "lease.json").write_text("")
    find_earlier(run)
    found = take_over(run)
    assert (found.live, found.merge) == ((), None)
    assert [told["run_id"] for told in found.runs] == ["run1"], "it may have left clips staged"
    assert [path.name for path in Path(run.checkpoint).iterdir()] == ["lease.json"]


def test_what_a_deletion_that_was_cut_off_has_left_still_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings(tmp_path)
    for name in ("run1", "run2"):
        earlier_run(run, name)
    unlink, removed = Path.unlink, []

    def cut_off(path: Path, **options: bool) -> None:
        if len(removed) == 2:
            raise KeyboardInterrupt
        removed.append(path.name)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", cut_off)
    with pytest.raises(KeyboardInterrupt):
        remove_all(open_store(run.checkpoint))
    assert removed == ["0.rows", "0.rows"]
    assert [told["run_id"] for told in find_earlier(run).runs] == ["run1", "run2"]


def test_a_deleted_checkpoint_is_gone(tmp_path: Path) -> None:
    run = settings(tmp_path)
    earlier_run(run, "run1")
    with alone_on_checkpoint(run):
        remove_all(open_store(run.checkpoint))
    assert take_over(run) == Earlier({})


def test_what_is_not_of_a_run_is_never_removed(tmp_path: Path) -> None:
    run = settings(tmp_path)
    earlier_run(run, "run1")
    kept = [Path(run.checkpoint) / name for name in ("study/a.wav", "study/deep/run.json", "run1/notes.txt", "a.rows")]
    (Path(run.checkpoint) / "study" / "empty").mkdir(parents=True)
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    remove_all(open_store(run.checkpoint))
    assert sorted(path for path in Path(run.checkpoint).rglob("*") if path.is_file()) == sorted(kept)
    assert (Path(run.checkpoint) / "study" / "empty").is_dir()


def test_a_checkpoint_has_one_run_at_a_time(tmp_path: Path) -> None:
    first, second = settings(tmp_path), settings(tmp_path)
    Path(first.checkpoint).mkdir(parents=True)
    with alone_on_checkpoint(first), pytest.raises(LeaseTaken, match=first.run_id), alone_on_checkpoint(second):
        pass
    with alone_on_checkpoint(second):
        pass
