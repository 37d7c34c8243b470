"""Manifests for tests, and what is read of them."""

import gzip
from pathlib import Path
from typing import Any

from audio.manifest import ManifestProblem, ManifestRow, ManifestSettings, read_manifest


def write(path: Path, content: str | bytes) -> Path:
    """A manifest with this content, gzipped if its name says so."""
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def read(path: Path | str, **settings: Any) -> list[ManifestRow | ManifestProblem]:
    return list(read_manifest(ManifestSettings(str(path), **settings)))


def good(path: Path | str, **settings: Any) -> list[ManifestRow]:
    """The rows of a manifest without problems."""
    rows = read(path, **settings)
    assert not [row for row in rows if isinstance(row, ManifestProblem)]
    return [row for row in rows if isinstance(row, ManifestRow)]


def bad(path: Path | str, **settings: Any) -> list[ManifestProblem]:
    """The problems of a manifest, in a file with other rows."""
    return [row for row in read(path, **settings) if isinstance(row, ManifestProblem)]
