"""The text of a job's own error, without what must not be shown: the one place where a service's words are passed on.

Users cannot do without it: it names the quota that is too small, the bucket that may not be read, the file that is no
JSONL. But a service may echo what it was sent, which is audio as numbers or as base64, and tokens.
"""

from __future__ import annotations

import re

MAX_CHARACTERS = 300

_READ_CHARACTERS = 4_000
"""Longer texts are echoes."""
_GONE = "…"

_LONGEST_WORD = 100
"""Resource names and the quotas of accelerators are shorter."""
_SUSPICIOUS = 16
"""From this length on a word must look like words; tokens are longer."""
_PART_BORDER = re.compile(r"[^A-Za-z0-9]")
_PART = re.compile(
    r"[a-z]{0,24}|[0-9]{1,20}|[A-Z]{1,15}"  # model, 4016704501, NVIDIA
    r"|[A-Za-z]{1,12}[0-9]{1,4}"  # west1, V100
    # batchPredictionJobs, CustomModelServingV100GPUsPerProjectPerRegion
    r"|[a-z]{2,16}(?:[A-Z][a-z]{2,16})+|[A-Z][a-z]{2,16}(?:[A-Z][a-z]{2,16}|[A-Z]{2,4}s?(?=[A-Z]|$)|[A-Z]?[0-9]{1,4}(?=[A-Z]|$))*"
)
_SECRET = re.compile(
    r"(?i)\b(?:bearer|basic)\s+\S+"
    r"|(?<![\w.-])[\w.-]*(?:token|secret|password|authorization|signature|credential|api[_-]?key)\w*[\"']?\s*[:=]\s*(?:(?:bearer|basic)\s+)?\S+"
    r"|\b(?:ya29|1//|eyJ|AIza|GOCSPX)\S*"
)
_DECIMAL = re.compile(r"[-+]?(?:\d*\.\d+(?:[eE][-+]?\d*)?|\d+[eE][-+]?\d+)")
_NUMBERS = re.compile(rf"(?<!\d)(?<!\d-)(?:[-+]?\d+|{_GONE})(?:[\s,;\[\]()]+(?:[-+]?\d+|{_GONE}))+")
"""Two or more in a row; dates are none."""


def readable(text: str) -> str:
    """The text in one line of at most `MAX_CHARACTERS`, an ellipsis for each part that may be audio or a secret.

    Left out are: control characters; numbers with decimals, and lists of numbers; what follows `Bearer`, `token=` and the
    like; words that begin as Google's tokens do; and longer words that are not made of words, as base64 and tokens are
    not. Names of resources, permissions, quotas, buckets and accounts stay.
    """
    is_cut = len(text) > _READ_CHARACTERS
    words = "".join(character if character.isprintable() else " " for character in text[:_READ_CHARACTERS]).split()
    if is_cut:
        words[-1:] = [_GONE]  # half a token is not recognised as one
    line = _SECRET.sub(_GONE, " ".join(words))
    line = _NUMBERS.sub(_GONE, _DECIMAL.sub(_GONE, line))
    line = " ".join(_shown(word) for word in line.split())
    line = re.sub(rf"{_GONE}(?:[\s,;:\[\]{{}}\"'()]*{_GONE})+", _GONE, line)
    return line if len(line) <= MAX_CHARACTERS else f"{line[: MAX_CHARACTERS - 1].rstrip()}{_GONE}"


def _shown(word: str) -> str:
    """The word, or an ellipsis in its place."""
    scheme, separator, rest = word.rpartition("://")
    if len(rest) < _SUSPICIOUS:
        return word
    plain = rest.strip("\"'`()[]{}<>.,;:!?*/")
    parts = _PART_BORDER.split(plain)
    doubtful = len(rest) > _LONGEST_WORD or any(not part or not _PART.fullmatch(part) for part in parts)
    if not doubtful and not set("+=~\\").intersection(plain):
        return word
    bucket, slash, _ = rest.partition("/")
    if scheme.endswith("gs") and slash and re.fullmatch(r"[a-z0-9._-]{3,63}", bucket):
        return f"{scheme}{separator}{bucket}/{_GONE}"
    return _GONE
