"""What an `--input` stands for: the recordings that a file, a folder or a glob names, on disk or on Cloud Storage."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from audio.fetch import ANSWER_WITHIN_S, local_version, retry_policy, storage_client
from audio.recording import Recording
from audio.storage_errors import LOGIN, is_bad_request, reason, requester_pays

AUDIO_EXTENSIONS: Final = frozenset(
    """
    3g2 3ga 3gp 8svx aac ac3 aif aifc aiff amr asf au awb bwf caf flac flv gsm iff m4a m4b mka mkv mov mp2 mp3 mp4 mpga nist
    oga ogg opus paf rf64 sd2 sf snd spx sph svx tta voc w64 wav wave webm wma wv wve
    """.split()  # noqa: SIM905  (a list of fifty quoted words is no easier to read)
)
"""Lower-case extensions by which files of a folder are taken for recordings; a glob or a file's own name needs none."""

_GLOB_CHARACTERS: Final = re.compile(r"[*?\[]")
_GS: Final = "gs://"
_RETRY_FOR_S: Final = 60.0
STAGING_FOLDER: Final = "hear-staged-"
"""What the names of the folders begin with where runs stage clips on Cloud Storage: what is in them is no recording."""
_STAGED: Final = re.compile(rf"(?<![^/]){STAGING_FOLDER}[^/]*/")


class Ignored(NamedTuple):
    """A file in a folder that has no extension of an audio file."""

    uri: str


class Unlisted(NamedTuple):
    """Something that is there but cannot be a recording: its failure row says why."""

    uri: str
    code: str
    message: str
    retryable: bool = False
    """Whether the same may well succeed later."""


class ListingError(Exception):
    """A place that cannot be listed at all; the message says which, and what to do."""


class BucketError(ListingError):
    """A bucket that is not there, or may not be listed."""


class PatternError(ListingError):
    """A glob that cannot be one."""


Listed = Recording | Ignored | Unlisted


def list_input(text: str) -> Iterator[Listed]:
    """Yields what the input `text` stands for, each file once, in the order of names within each folder.

    What exists under exactly this name is taken literally, whatever characters the name has; otherwise `*` and
    `?` match within a folder's names, `[...]` one character of a set, `**` across folders. Yields nothing where
    nothing matches. Raises ListingError for a bucket or folder that cannot be listed, PatternError for a wrong glob.
    """
    if text.startswith(_GS):
        yield from _list_bucket(text)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise ListingError(f"cannot list {text!r}: expected a local path or gs://bucket/path")
    else:
        yield from _list_disk(absolute_path(text))


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """A compiled regex for a glob over whole paths with `/` between folders.

    `**/` also matches no folder at all, so that `a/**/*.wav` finds `a/x.wav`, as shells do.
    """
    out, position = "", 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            out, position = out + "(?:.*/)?", position + 3
        elif rest.startswith("**"):
            out, position = out + ".*", position + 2
        elif rest[0] == "*":
            out, position = out + "[^/]*", position + 1
        elif rest[0] == "?":
            out, position = out + "[^/]", position + 1
        elif in_set := re.match(r"\[([!^]?)(\]?[^\]]*)\]", rest):
            negated, characters = in_set.groups()
            escaped = re.sub(r"([\\\[\]&~|^])", r"\\\1", characters)
            out, position = out + f"(?!/)[{'^' if negated else ''}{escaped}]", position + in_set.end()
        else:
            out, position = out + re.escape(rest[0]), position + 1
    return re.compile(out, re.DOTALL)


def has_audio_extension(name: str) -> bool:
    """Whether a file of this name is taken for a recording when its folder is listed."""
    path = PurePosixPath(name)
    return path.suffix[1:].lower() in AUDIO_EXTENSIONS and not path.name.startswith("._")  # AppleDouble, from macOS


def _list_disk(path: str) -> Iterator[Listed]:
    if os.path.isdir(path):  # noqa: PTH112
        for file in _walk(path):
            if isinstance(file, Unlisted):
                yield file
            else:
                yield _on_disk(file) if has_audio_extension(file) else Ignored(_printable(file))
    elif os.path.lexists(path):
        yield _on_disk(path)
    elif _GLOB_CHARACTERS.search(path):
        folder, *parts = path.split("/")
        for part in parts:
            _compile(part)  # a wrong one is the whole pattern's fault, not that of the folder where it comes to bear
        for file in _expand(folder + "/", parts):
            yield file if isinstance(file, Unlisted) else _on_disk(file)


def _expand(folder: str, parts: list[str]) -> Iterator[str | Unlisted]:
    """All files below `folder` whose names match the pattern of `parts`, one a folder; `**` and what follows it match across."""
    part, *rest = parts
    if "**" in part:
        regex = _compile(glob_escape(folder) + "/".join(parts))
        yield from (file for file in _walk(folder) if isinstance(file, Unlisted) or regex.fullmatch(file))
    elif rest and (not _GLOB_CHARACTERS.search(part) or os.path.isdir(folder + part)):  # noqa: PTH112
        yield from _expand(f"{folder}{part}/", rest)
    else:
        regex = _compile(part)
        files, folders = _entries(folder)
        if not rest:
            yield from (file for file in files if regex.fullmatch(file.rpartition("/")[2]))
        for name in folders if rest else ():
            if regex.fullmatch(name.rpartition("/")[2]):
                try:
                    yield from _expand(f"{name}/", rest)
                except ListingError:
                    yield _unreadable(name)


def glob_escape(text: str) -> str:
    """A pattern that matches just `text`."""
    return re.sub(r"([*?\[])", r"[\1]", text)


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return glob_to_regex(pattern)
    except re.error:
        raise PatternError(
            f"not a pattern: {pattern!r}; a range in [...] must go from a lower to a higher character"
        ) from None


def _entries(folder: str) -> tuple[list[str], list[str]]:
    """Paths of the files and of the folders in `folder`, each sorted; none if it is gone, or not a folder."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.path, _is_folder(entry)) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        raise ListingError(f"cannot list the folder {folder!r}: {error.strerror}") from None
    return [path for path, is_folder in found if not is_folder], [path for path, is_folder in found if is_folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where one may not look
        return False


def _walk(root: str) -> Iterator[str | Unlisted]:
    """All files below `root`, links to folders followed, each folder visited once; folders that cannot be listed."""
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            files, folders = _entries(folder)
        except FileNotFoundError:
            continue
        except (OSError, ListingError) as error:
            if folder == root:
                raise ListingError(str(error)) from None
            yield _unreadable(folder)
            continue
        pending.extend(reversed(folders))
        yield from files


def _unreadable(folder: str) -> Unlisted:
    message = "the folder cannot be listed: make it readable, or leave it out"
    return Unlisted(_printable(folder), "unreadable_folder", message)


def absolute_path(path: str) -> str:
    """The path from the root, without `.` and doubled slashes; `..` goes where the system goes, through links too."""
    parts: list[str] = []
    for part in os.path.join(os.getcwd(), path).split("/"):  # noqa: PTH109, PTH118
        if part == "..":
            if os.path.islink("/" + "/".join(parts)):  # noqa: PTH114
                parts = os.path.realpath("/" + "/".join(parts)).split("/")[1:]
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _on_disk(path: str) -> Recording | Unlisted:
    try:
        path.encode()
    except UnicodeEncodeError:
        return Unlisted(
            _printable(path),
            "file_name",
            "the file's name is not valid UTF-8, so no table can hold it; rename the file",
        )
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        return Unlisted(path, "missing_file", f"the file is listed but cannot be looked at: {error.strerror}")
    return Recording(path, local_version(status), status.st_size if stat.S_ISREG(status.st_mode) else 0)


def _printable(path: str) -> str:
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _list_bucket(uri: str) -> Iterator[Listed]:
    bucket_name, _, name = uri.removeprefix(_GS).partition("/")
    if not bucket_name:
        raise BucketError(f"{uri!r} names no bucket: expected gs://bucket/path")
    how = {"timeout": ANSWER_WITHIN_S, "retry": retry_policy(_RETRY_FOR_S)}
    try:
        bucket = storage_client().bucket(bucket_name)
        if name and not name.endswith("/") and (blob := bucket.get_blob(name, **how)) is not None:
            yield _in_bucket(bucket_name, blob)
            return
        special = _GLOB_CHARACTERS.search(name)
        prefix = name[: special.start()] if special else (name.rstrip("/") + "/" if name else "")
        regex = _compile(name) if special else None
        for blob in bucket.list_blobs(prefix=prefix, fields="items(name,size,generation),nextPageToken", **how):
            if blob.name.endswith("/") or _STAGED.search(blob.name, len(prefix)):
                continue  # a placeholder for a folder, or a clip in flight
            if regex is None:
                wanted = has_audio_extension(blob.name)
                yield _in_bucket(bucket_name, blob) if wanted else Ignored(f"{_GS}{bucket_name}/{blob.name}")
            elif regex.fullmatch(blob.name):
                yield _in_bucket(bucket_name, blob)
    except Exception as error:  # noqa: BLE001 - connections fail in many ways; their texts are not ours to show
        raise bucket_error(error, uri, "listing", "storage.objects.list") from None


def bucket_error(error: Exception, uri: str, doing: str, right: str) -> ListingError:
    """What it means for a place, `gs://bucket/path`, that the client raised `error` in `doing` something there.

    A BucketError if somebody must change something before it can be done; `right` is then what may be missing.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError

    bucket = uri.removeprefix(_GS).partition("/")[0]
    match error:
        case ListingError():
            return error
        case exceptions.NotFound():
            return BucketError(f"there is no bucket {bucket!r}: make it, or name another")
        case exceptions.Forbidden():
            return BucketError(f"{doing} was refused (HTTP 403): grant {right} on the bucket {bucket!r}")
        case exceptions.Unauthorized():
            return BucketError(f"the Google credentials were not accepted (HTTP 401): {LOGIN}")
        case GoogleAuthError() if not error.retryable:
            return BucketError(f"there are no usable Google credentials ({type(error).__name__}): {LOGIN}")
        case _ if is_bad_request(error):
            return BucketError(requester_pays().message)
        case _:
            return ListingError(f"{doing} {uri!r} failed ({reason(error)}): try again")


def _in_bucket(bucket_name: str, blob: Any) -> Recording:
    return Recording(f"{_GS}{bucket_name}/{blob.name}", str(blob.generation), int(blob.size))
