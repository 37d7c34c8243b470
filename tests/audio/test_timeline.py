import pytest

from audio.errors import Damaged
from audio.source import Gaps
from audio.timeline import Timeline


def place(timestamps: list[int | None], frames: int = 160, rate_hz: int = 8_000) -> tuple[list[int], Timeline]:
    timeline = Timeline(rate_hz)
    return [timeline.place(timestamp, frames) for timestamp in timestamps], timeline


def test_frames_that_follow_each_other_have_no_gap() -> None:
    zeros, timeline = place([0, 160, 320, None, 640])
    assert zeros == [0, 0, 0, 0, 0]
    assert timeline.position == 800


def test_the_first_frame_is_time_zero() -> None:
    assert place([90_000, 90_160])[0] == [0, 0]


def test_a_gap_of_more_than_10_ms_becomes_zeros_and_is_counted() -> None:
    zeros, timeline = place([0, 160, 800, 960, 2_000])
    assert zeros == [0, 0, 480, 0, 880]
    assert timeline.gaps == Gaps(2, 1_360)
    assert timeline.position == 2_160


def test_rounded_timestamps_are_no_gaps() -> None:
    zeros, timeline = place([0, 160 + 80, 320 - 70, 480 + 60])
    assert zeros == [0, 0, 0, 0]
    assert timeline.gaps == Gaps(0, 0)


def test_small_gaps_add_up() -> None:
    zeros, _ = place([0, 210, 420, 630])
    assert zeros == [0, 0, 100, 0]


def test_a_single_early_timestamp_changes_nothing() -> None:
    assert place([8_000, 8_160, 0, 8_480, 8_640])[0] == [0, 0, 0, 0, 0]


def test_a_clock_that_was_set_back_is_followed() -> None:
    zeros, _ = place([8_000, 8_160, 0, 160, 320, 480 + 400])
    assert zeros == [0, 0, 0, 0, 0, 400]


def test_a_jump_of_more_than_an_hour_is_damage() -> None:
    with pytest.raises(Damaged, match=r"jump by 3601 s at 0\.020 s"):
        place([0, 160 + 3_601 * 8_000])
    assert place([0, 160 + 3_600 * 8_000])[0] == [0, 3_600 * 8_000]


def test_time_can_begin_before_the_first_frame() -> None:
    timeline = Timeline(8_000)
    timeline.begin(0)
    assert timeline.place(320, 160) == 320
