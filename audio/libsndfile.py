"""Decoding with libsndfile: WAV, FLAC, AIFF, Ogg Vorbis, MP3 and their older kin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from audio.reader import Reader
from audio.source import Block, CannotDecode, Gaps, NoSamples, block_frames, check_layout

_NO_MEMORY = 17
_CONTAINERS = {
    "WAVEX": "wav",
    "RF64": "wav",
    "NIST": "nistsphere",
    "SVX": "iff",
    "PAF": "epaf",
    "MAT4": "mat",
    "MAT5": "mat",
}
_LITTLE_ENDIAN = frozenset({"WAV", "WAVEX", "RF64", "W64", "VOC", "XI", "MPC2K", "MAT4", "MAT5"})
_PCM = {"PCM_16": "pcm_s16", "PCM_24": "pcm_s24", "PCM_32": "pcm_s32", "FLOAT": "pcm_f32", "DOUBLE": "pcm_f64"}
_CODECS = {
    "PCM_S8": "pcm_s8",
    "PCM_U8": "pcm_u8",
    "ULAW": "pcm_mulaw",
    "ALAW": "pcm_alaw",
    "MS_ADPCM": "adpcm_ms",
    "GSM610": "gsm",
    "MPEG_LAYER_I": "mp1",
    "MPEG_LAYER_II": "mp2",
    "MPEG_LAYER_III": "mp3",
    "G721_32": "adpcm_g726",
    "G723_24": "adpcm_g726",
    "G723_40": "adpcm_g726",
    "ALAC_16": "alac",
    "ALAC_20": "alac",
    "ALAC_24": "alac",
    "ALAC_32": "alac",
}


class _Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A SoundFile that is only read onwards.

    soundfile seeks to where it already is after each read. That costs time, and fails in FLAC of unknown or absurd
    length (`psf_fseek() failed`), which libsndfile otherwise decodes to the end.
    """

    def seekable(self) -> bool:
        return False


class LibsndfileSource:
    """An AudioSource over libsndfile. Opening it decodes the first block, so that what it cannot read shows at once."""

    decoder = "libsndfile"
    gaps = Gaps(0, 0)
    damaged_at_s: float | None = None

    def __init__(self, reader: Reader) -> None:
        """Raises CannotDecode, NoSamples, UnsupportedRate, UnsupportedChannels, or what reading the file raises."""
        self._reader = reader
        reader.seek(0)
        try:
            self._sound = _Stream(reader)
        except (soundfile.SoundFileError, ValueError, OverflowError) as error:
            reader.check()
            raise _because(error) from None
        try:
            self.rate_hz: int = self._sound.samplerate
            self.channels: int = self._sound.channels
            self.container = _CONTAINERS.get(self._sound.format, self._sound.format.lower())
            self.codec = _codec_name(self._sound.format, self._sound.subtype, self._sound.endian)
            check_layout(self.rate_hz, self.channels)
            # A 16-bit sample read as int16 is exactly libsndfile's float32 times 32768, and 3.8 times cheaper.
            dtype = np.int16 if self._sound.subtype == "PCM_16" else np.float32
            self._buffer: Block = np.empty((block_frames(self.channels), self.channels), dtype)
            self._first = self._read()
            if not len(self._first):
                raise NoSamples
        except BaseException:
            self.close()
            raise

    def blocks(self) -> Iterator[Block]:
        """Yield int16 of 16-bit formats, float32 of the others, in a buffer that is used again.

        Raises CannotDecode where libsndfile gives up.
        """
        block = self._first
        while len(block):
            yield block
            block = self._read()

    def count_gaps_in(self, first: int, stop: float) -> None:
        """Do nothing: libsndfile knows of no gaps."""

    @property
    def is_seekable(self) -> bool:
        """Whether the file is of a kind that can be entered at any frame."""
        return _is_seekable(self._sound)

    def start_at(self, frame: int) -> None:
        """Let `blocks` begin with `frame`. Raises CannotDecode, after which another source must be opened."""
        try:
            self._sound.seek(frame)
        except (soundfile.SoundFileError, ValueError, OverflowError) as error:
            self._reader.check()
            raise _because(error) from None
        self._first = self._read()
        if not len(self._first):
            raise NoSamples

    def close(self) -> None:
        self._sound.close()

    def _read(self) -> Block:
        try:
            block: Block = self._sound.read(out=self._buffer)
        except (soundfile.SoundFileError, ValueError) as error:
            self._reader.check()
            raise _because(error) from None
        self._reader.check()
        return block


class Layout(NamedTuple):
    """What a header says of a file that can be entered at any frame."""

    rate_hz: int
    channels: int
    frames: int


def seekable_layout(reader: Reader) -> Layout | None:
    """Return what a file's header says if every frame of it can be sought exactly, as of PCM in WAV, and of FLAC.

    No more than the header is read; of FLAC also the first block and the last frame: if its start is damaged, decoders do
    not agree on where they are later on, and what is not whole cannot be sought well. Raises CannotDecode, or what reading
    the file raises, or what `check_layout` does.
    """
    reader.seek(0)
    try:
        with _Stream(reader) as sound:
            layout = Layout(sound.samplerate, sound.channels, sound.frames)
            if layout.frames <= 0 or not _is_seekable(sound):
                return None
            if sound.format == "FLAC":
                check_layout(layout.rate_hz, layout.channels)
                sound.read(block_frames(layout.channels), dtype="float32")
                sound.seek(layout.frames - 1)
                if not len(sound.read(1)):
                    return None
            reader.check()
            return layout
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        reader.check()
        raise _because(error) from None


def _is_seekable(sound: soundfile.SoundFile) -> bool:
    is_pcm = sound.subtype.startswith("PCM_") or sound.subtype in ("FLOAT", "DOUBLE")
    return sound.format == "FLAC" or (sound.format in ("WAV", "WAVEX", "RF64") and is_pcm)


def _because(error: Exception) -> CannotDecode | MemoryError:
    """Return what to raise for an error of libsndfile's."""
    if getattr(error, "code", None) == _NO_MEMORY:
        return MemoryError()
    return CannotDecode(type(error).__name__)


def _codec_name(container: str, subtype: str, endian: str) -> str:
    """Return FFmpeg's name of what libsndfile calls `subtype`."""
    if container == "FLAC":
        return "flac"
    if subtype in _PCM:
        little = endian == "LITTLE" or (endian != "BIG" and container in _LITTLE_ENDIAN)
        return _PCM[subtype] + ("le" if little else "be")
    if container in ("WAV", "WAVEX", "RF64", "W64") and subtype in ("GSM610", "IMA_ADPCM"):
        return {"GSM610": "gsm_ms", "IMA_ADPCM": "adpcm_ima_wav"}[subtype]
    if subtype == "IMA_ADPCM":
        return "adpcm_ima_qt"
    return _CODECS.get(subtype, subtype.lower())
