"""Command lines to test with."""

from pathlib import Path

from pipeline.options import parse
from pipeline.settings import RunSettings
from tests.transforms.samples import write_wav


def whole(tmp_path: Path, **changes: str | None) -> list[str]:
    """A command line that can be run, with some options changed; None leaves one out. `=` keeps dashes in values."""
    folder = tmp_path / "in"
    if not folder.exists():
        write_wav(folder / "a.wav", 1.0)
    options: dict[str, str | None] = {
        "input": str(folder),
        "endpoint": "local",
        "output": str(tmp_path / "out" / "r"),
    } | changes
    return [f"--{name}={value}" for name, value in options.items() if value is not None]


def settings(tmp_path: Path, **changes: str | None) -> RunSettings:
    """What such a command line describes."""
    return parse(whole(tmp_path, **changes)).run
