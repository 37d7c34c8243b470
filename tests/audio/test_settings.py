import math
from typing import Any

import pytest

from audio.clips import ClipSettings


@pytest.mark.parametrize(
    ("hop_s", "samples"), [(2.0, 32_000), (0.1, 1_600), (1 / 16_000, 1), (0.7, 11_200), (10, 160_000)]
)
def test_hop_in_samples(hop_s: float, samples: int) -> None:
    assert ClipSettings(hop_s=hop_s).hop_samples == samples


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *(("hop_s", value, "whole number of samples") for value in (0, -2.0, 0.00001, 1 / 3, math.nan, math.inf)),
        *(("channel", value, "mean, each, or") for value in ("", "left", "-1", "01", "1.0", "mean ", "٣")),
        ("tail", "cut", "pad, shift, drop"),
        *(("event_context", value, "audio, zeros") for value in ("", "silence", None)),
        *(("resampler", value, "soxr, tensorflow_io") for value in ("", "scipy", None)),
        *(("min_audio_s", value, "0 to 2.0 seconds") for value in (-0.1, 2.1, math.nan)),
        *(("min_rms_dbfs", value, "0 or below") for value in (3.0, math.nan, -math.inf)),
    ],
)
def test_wrong_values_are_named_with_what_is_expected(option: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        ClipSettings(**{option: value})
    assert option in str(caught.value)
    assert repr(value) in str(caught.value)


def test_the_choice_names_what_decides_which_clips_there_are() -> None:
    assert ClipSettings(hop_s=0.5, min_audio_s=1, min_rms_dbfs=-60).choice == (
        '{"event_context":"audio","hop_samples":8000,"min_audio_s":1.0,"min_rms_dbfs":-60.0,"tail":"pad"}'
    )
    others = [{"event_context": "zeros"}, {"hop_s": 1}, {"min_audio_s": 1}, {"min_rms_dbfs": -60}, {"tail": "drop"}]
    assert len({ClipSettings(**changed).choice for changed in [{}, *others]}) == 6


def test_the_choice_is_that_of_the_values_not_of_how_they_are_written() -> None:
    assert (
        ClipSettings(min_audio_s=1, min_rms_dbfs=-60).choice == ClipSettings(min_audio_s=1.0, min_rms_dbfs=-60.0).choice
    )
    assert ClipSettings(channel="each").choice == ClipSettings().choice  # a take names its channel
