"""What a file's first bytes say that it is: by content, never by its name."""

from __future__ import annotations

from typing import NamedTuple

HEAD_BYTES = 4096


class Signature(NamedTuple):
    """A kind of file that is known by its first bytes."""

    kind: str
    """A short name, e.g. `wav`; empty where nothing is recognised."""
    title: str
    """What people call it, with its article."""
    is_sound: bool
    """It is a kind of sound file."""
    is_foreign: bool = False
    """It cannot be one whatever follows."""


_SOUND = (
    (b"RIFF", b"WAVE", "wav", "a WAV file"),
    (b"RIFX", b"WAVE", "wav", "a WAV file"),
    (b"RF64", b"WAVE", "wav", "a WAV file"),
    (b"RIFF", b"AVI ", "avi", "an AVI file"),
    (b"FORM", b"AIFF", "aiff", "an AIFF file"),
    (b"FORM", b"AIFC", "aiff", "an AIFF file"),
    (b"riff\x2e\x91\xcf\x11", b"", "w64", "a Wave64 file"),
    (b".snd", b"", "au", "an AU file"),
    (b"dns.", b"", "au", "an AU file"),
    (b"caff", b"", "caf", "a CAF file"),
    (b"fLaC", b"", "flac", "a FLAC file"),
    (b"OggS", b"", "ogg", "an Ogg file"),
    (b"ID3", b"", "mp3", "an MP3 file"),
    (b"\x1aE\xdf\xa3", b"", "matroska", "a WebM or Matroska file"),
    (b"0&\xb2u\x8ef\xcf\x11", b"", "asf", "a WMA file"),
    (b"#!AMR", b"", "amr", "an AMR file"),
)
_FOREIGN = (
    (b"\x1f\x8b", "gzip", "a gzip archive"),
    (b"PK\x03\x04", "zip", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "a 7z archive"),
    (b"BZh", "bzip2", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "xz", "an xz archive"),
    (b"Rar!\x1a\x07", "rar", "a RAR archive"),
    (b"\x89PNG", "png", "a PNG image"),
    (b"\xff\xd8\xff", "jpeg", "a JPEG image"),
    (b"GIF8", "gif", "a GIF image"),
    (b"%PDF-", "pdf", "a PDF document"),
    (b"\x00\x05\x16\x07", "appledouble", "a macOS side file (AppleDouble), not the recording itself"),
    (b"\x00\x00\x00\x01Bud1", "ds_store", "a macOS folder file (.DS_Store)"),
)
_TEXTS = (
    (
        b"version https://git-lfs",
        "git_lfs",
        "a Git LFS pointer: the recording itself was not downloaded (git lfs pull)",
    ),
    (b"<!doctype html", "html", "an HTML page, for example a login or error page that was saved as a recording"),
    (b"<html", "html", "an HTML page, for example a login or error page that was saved as a recording"),
    (b"<?xml", "xml", "an XML document, for example a storage service's error"),
    (b"{", "json", "a JSON document, for example a service's error"),
    (b"[", "json", "a JSON document"),
    (b"#extm3u", "playlist", "a playlist"),
    (b"ffconcat", "playlist", "a playlist"),
    (b"v=0", "sdp", "a session description (SDP)"),
)
_TEXT_BYTES = frozenset(range(32, 256)) | frozenset(b"\t\n\r\f")
_TEXT_SOUND = (b"NIST_1A", b"#!AMR", b"PVF1", b"#!SILK")


def identify(head: bytes) -> Signature:
    """Return what a file that begins with `head`, its first HEAD_BYTES or all of a shorter file, looks like."""
    for magic, form, kind, title in _SOUND:
        if head.startswith(magic) and head[8 : 8 + len(form)] == form:
            return Signature(kind, title, is_sound=True)
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return Signature("mp4", "an MP4, M4A or 3GP file", is_sound=True)
    for magic, kind, title in _FOREIGN:
        if head.startswith(magic):
            return Signature(kind, title, is_sound=False, is_foreign=True)
    if _is_text(head):
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:32].lower()
        for magic, kind, title in _TEXTS:
            if start.startswith(magic):
                return Signature(kind, title, is_sound=False, is_foreign=True)
        return Signature("text", "plain text", is_sound=False, is_foreign=True)
    if not any(head):
        return Signature("zeros", "zero bytes, as failed downloads and card errors leave them", is_sound=False)
    return Signature("", "", is_sound=False)


def _is_text(head: bytes) -> bool:
    if len(head) < 5 or head.startswith(_TEXT_SOUND) or not _TEXT_BYTES.issuperset(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut by the end of what was read.
        return error.start >= len(head) - 3
    return True
