"""Where the files of a batch prediction job are: all below the folder that a run has for what it stages.

writing/NAME.jsonl   a shard of clips that is being written
clips/NAME.jsonl     one that is to be predicted
index/NAME.json      which clip each of its lines is
results/             what the service has written
answers/             what is kept of that until each answer has found its clip
"""

from __future__ import annotations

from typing import Final

WRITING: Final = "writing/"
CLIPS: Final = "clips/"
INDEX: Final = "index/"
RESULTS: Final = "results/"
ANSWERS: Final = "answers/"


def written_shard(folder: str, name: str) -> str:
    """The URI of a shard that is being written; `folder` ends with a slash."""
    return f"{folder}{WRITING}{name}.jsonl"


def shard(folder: str, name: str) -> str:
    """The URI of a shard that is to be predicted."""
    return f"{folder}{CLIPS}{name}.jsonl"


def index(folder: str, name: str) -> str:
    """The URI of a shard's index."""
    return f"{folder}{INDEX}{name}.json"


def source(folder: str) -> str:
    """All shards that are to be predicted, as the job service takes it."""
    return f"{folder}{CLIPS}*.jsonl"


def destination(folder: str) -> str:
    """Where the service is to write, as it takes it."""
    return f"{folder}{RESULTS}".rstrip("/")
