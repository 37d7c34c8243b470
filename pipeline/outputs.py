"""What is there under the output's prefix before a run, what a run may replace, and what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.settings import RunSettings
from pipeline.usage import UsageError
from transforms.files import FileError, absolute, folder_of, is_local, names_in, remove_folder

_NAMES = r"(-\d{5}-of-\d{5}\.(tfrecord|parquet)|-recordings-\d{5}-of-\d{5}\.parquet|-failures-\d{5}-of-\d{5}\.jsonl|-summary\.json)"
_LONGEST_SUFFIX = len("..-recordings-20260101T000000Z-000000.parquet")
_RUN_ID = r"\d{8}T\d{6}Z-[0-9a-f]{6}"


def existing_outputs(prefix: str) -> list[str]:
    """Output files of an earlier run under `prefix`, sorted."""
    folder = folder_of(prefix)
    names = names_in(folder, f"{prefix.removeprefix(folder)}-")
    return sorted(name for name in names if re.fullmatch(_NAMES, name[len(prefix) :]))


def replaced_outputs(run: RunSettings, earlier_runs: Iterable[dict[str, Any]]) -> list[str]:
    """The existing output files that this run will replace.

    Raises UsageError if there are some and neither `--overwrite` was given nor one of the checkpoint's earlier runs, with
    the same fingerprint, wrote them.
    """
    if run.output is None:
        return []
    existing = existing_outputs(run.output)
    mine = {"output": absolute(run.output), "fingerprint": run.fingerprint}
    own = any(mine.items() <= {key: earlier.get(key) for key in mine}.items() for earlier in earlier_runs)
    if existing and not (run.overwrite or own):
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            f"--output {run.output!r} exists ({existing[0]}{more}): choose another, or give --overwrite to replace it"
        )
    return existing


def make_folders(run: RunSettings) -> None:
    """Makes the folders of output and checkpoint on disk; UsageError if they cannot be made or written."""
    for option, path in (("--output", run.output), ("--checkpoint", f"{run.checkpoint}/")):
        if path is None or not is_local(path):
            continue
        folder = Path(path).parent if option == "--output" else Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{option} is {path!r}: the folder {str(folder)!r} cannot be made ({error.strerror})"
            ) from None
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{option} is {path!r}: the folder {str(folder)!r} may not be written")
        if len(os.fsencode(Path(path).name)) > os.pathconf(folder, "PC_NAME_MAX") - _LONGEST_SUFFIX:
            raise UsageError(
                f"{option} is {path!r}: file names that begin so are too long for the folder's file system"
            )


def remove_unfinished(prefix: str | None, run_id: str = _RUN_ID) -> None:
    """Removes what a run left that was cut off while it wrote tables; without `run_id`, what any run left.

    What cannot be removed is left to the next run.
    """
    if prefix is None:
        return
    folder = folder_of(prefix)
    name = prefix.removeprefix(folder)
    pattern = rf"\.{re.escape(name)}(-recordings|-failures)?-{run_id}\.(tfrecord|parquet|jsonl)/"
    with contextlib.suppress(FileError):
        for path in names_in(folder, f".{name}-"):
            if re.fullmatch(pattern, path.removeprefix(folder)):
                remove_folder(path.rstrip("/"))
