"""What can be wrong with a recording: one tree of exceptions, each with a code for tables and a sentence for people.

AudioError
├── FetchError                the bytes could not be had
│   ├── MissingFile           missing_file
│   ├── ChangedFile           changed_file
│   ├── NotARegularFile       not_a_regular_file
│   ├── AccessDenied          permission_denied
│   └── StorageError          storage_error, the only one worth trying again
├── UnreadableRecording       there is not one sample to be had from these bytes
│   ├── EmptyFile             empty_file
│   ├── NotAudio              not_audio
│   ├── FormatNotAllowed      format_not_allowed
│   ├── UnsupportedFormat     unsupported_format
│   ├── NoAudioStream         no_audio_stream
│   ├── NoAudio               no_audio
│   ├── UnsupportedRate       unsupported_rate
│   ├── UnsupportedChannels   unsupported_channels
│   └── NoSuchChannel         no_such_channel
├── EndedEarly                samples up to some point, and none after it
│   ├── Truncated             truncated
│   ├── Damaged               damaged
│   ├── DecoderError          decoder_error
│   ├── DecoderCrashed        decoder_crashed
│   ├── DecoderTimeout        decoder_timeout
│   └── DecoderMemory         decoder_memory
└── DamagedParts              damaged: decoded to its true end, with zeros in place of what could not be decoded
"""

from __future__ import annotations

from typing import Final

TOO_MUCH_MEMORY: Final = (
    "decoding the recording takes more memory than it may; convert it to WAV, or split it into files"
)


class AudioError(Exception):
    """Something is wrong with one recording.

    `message` is a sentence that names the value, what was expected and what to do. It never holds samples, metadata or
    the text of a library or service.
    """

    code: str = "audio_error"
    """A short lower-case word for tables: the same for every error of the kind."""
    retryable: bool = False
    """Whether the same recording may well succeed when it is tried again."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class FetchError(AudioError):
    """The recording's bytes could not be had."""


class MissingFile(FetchError):
    """There is no such file or object, or no longer."""

    code = "missing_file"


class ChangedFile(FetchError):
    """The file is not the version that was listed."""

    code = "changed_file"


class NotARegularFile(FetchError):
    """The path is a folder, pipe, socket or device: reading it could block or have effects."""

    code = "not_a_regular_file"


class AccessDenied(FetchError):
    """The file or object may not be read with the present rights."""

    code = "permission_denied"
    retryable = True


class StorageError(FetchError):
    """The storage failed; the recording itself may be fine."""

    code = "storage_error"
    retryable = True


class UnreadableRecording(AudioError):
    """No sample can be had from these bytes."""


class EmptyFile(UnreadableRecording):
    """The file has no bytes at all."""

    code = "empty_file"


class NotAudio(UnreadableRecording):
    """The bytes are not those of an audio file that either decoder knows."""

    code = "not_audio"


class FormatNotAllowed(UnreadableRecording):
    """FFmpeg knows the format, but it is not among those that may be opened: it is no audio, or names other files."""

    code = "format_not_allowed"


class UnsupportedFormat(UnreadableRecording):
    """The container was read, but there is no decoder for what is in it."""

    code = "unsupported_format"


class NoAudioStream(UnreadableRecording):
    """A video or other container without sound."""

    code = "no_audio_stream"


class NoAudio(UnreadableRecording):
    """A sound header with not one sample after it."""

    code = "no_audio"


class UnsupportedRate(UnreadableRecording):
    """The sample rate is outside of what recordings have."""

    code = "unsupported_rate"


class UnsupportedChannels(UnreadableRecording):
    """There are no channels, or more than recordings have."""

    code = "unsupported_channels"


class NoSuchChannel(UnreadableRecording):
    """The channel that was asked for does not exist."""

    code = "no_such_channel"


class EndedEarly(AudioError):
    """Samples could be had up to some point only; the recording's true end is unknown."""


class Truncated(EndedEarly):
    """The file ends before its own header says that it does."""

    code = "truncated"


class Damaged(EndedEarly):
    """The file cannot be decoded beyond some point."""

    code = "damaged"


class DecoderError(EndedEarly):
    """A decoder failed in a way that is not foreseen."""

    code = "decoder_error"


class DecoderCrashed(EndedEarly):
    """The process that decoded the file ended, or did what no decoder does."""

    code = "decoder_crashed"


class DecoderTimeout(EndedEarly):
    """Decoding got no further within the time that it may take."""

    code = "decoder_timeout"


class DecoderMemory(EndedEarly):
    """Decoding took more memory than it may."""

    code = "decoder_memory"


class DamagedParts(AudioError):
    """Some packets could not be decoded; zeros took their place and decoding went on to the recording's end."""

    code = "damaged"

    def __init__(self, message: str, first_s: float) -> None:
        super().__init__(message)
        self.first_s = first_s
        """Seconds from the recording's start to the first of them."""
