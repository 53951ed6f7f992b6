"""The beat of a watch, and how a user writes it."""

from __future__ import annotations

import pytest

from app.domain.errors import UsageError
from app.domain.watching import Beat, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0), (" 1.5s ", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-5s", "0", "0s", "99ms", "5 s", "1d", "5sec", "nan", "inf", "1e3"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no time to wait"):
        parse_duration(text)


def test_a_look_at_everything_comes_on_every_beat_and_where_news_come_on_every_twelfth() -> None:
    beat = Beat(5.0)
    assert beat.everything_in_s(0.1, hears=False) == 5.0
    assert beat.everything_in_s(0.1, hears=True) == 60.0


def test_a_long_look_is_followed_by_a_longer_pause() -> None:
    beat = Beat(5.0)
    assert beat.everything_in_s(30.0, hears=False) == 600.0
    assert beat.everything_in_s(30.0, hears=True) == 600.0
    assert beat.glance_in_s(0.5) == 5.0
    assert beat.glance_in_s(8.0) == 8.0
