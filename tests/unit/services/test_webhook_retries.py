from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.webhooks import DeliveryState
from app.services.webhook_retries import Answer, Patience, judge

PATIENCE = Patience(first_pause_s=5, longest_pause_s=3600, give_up_s=86_400)
DOWN = Answer(error="The receiver cannot be connected to.")


def pause(answer: Answer, attempts: int = 0, chance: float = 0.0) -> float:
    verdict = judge(answer, attempts=attempts, waited_s=0, patience=PATIENCE, chance=chance)
    assert verdict.state is DeliveryState.PENDING
    return verdict.wait_s


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_a_2xx_is_a_receipt(status: int) -> None:
    verdict = judge(Answer(status), attempts=3, waited_s=1e9, patience=PATIENCE, chance=0)
    assert (verdict.state, verdict.status, verdict.error) == (DeliveryState.DELIVERED, status, None)


@pytest.mark.parametrize("status", [None, 100, 301, 400, 404, 500, 503, 999])
def test_everything_else_is_tried_again(status: int | None) -> None:
    assert pause(Answer(status, "no")) == 5


def test_pauses_double_up_to_the_longest_and_are_shortened_by_chance() -> None:
    assert [pause(DOWN, n) for n in range(12)] == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    assert pause(DOWN, 1, chance=1.0) == 5
    assert pause(DOWN, 100_000) == 3600


@given(st.integers(0, 100_000), st.floats(0, 1), st.floats(0, 1e12))
def test_a_pause_is_never_nothing_and_never_longer_than_the_longest(n: int, chance: float, retry_after: float) -> None:
    assert 2.5 <= pause(Answer(503, "no", retry_after_s=retry_after), n, chance) <= 3600


def test_a_receiver_may_say_when_within_bounds() -> None:
    assert pause(Answer(429, "no", retry_after_s=60)) == 60
    assert pause(Answer(503, "no", retry_after_s=1e9)) == 3600
    assert pause(Answer(503, "no", retry_after_s=0)) == 5
    assert pause(Answer(500, "no", retry_after_s=60)) == 5


def test_it_is_given_up_when_the_next_attempt_would_be_too_late() -> None:
    verdict = judge(DOWN, attempts=30, waited_s=86_400 - 3599, patience=PATIENCE, chance=0)
    assert verdict.state is DeliveryState.DEAD
    assert "after 31 attempts, 24 h" in (verdict.error or "")
    assert DOWN.error in (verdict.error or "")
    assert judge(DOWN, attempts=30, waited_s=86_400 - 3601, patience=PATIENCE, chance=0).state is DeliveryState.PENDING
    # One that waited so long for those before it is tried once.
    assert judge(Answer(200), attempts=0, waited_s=1e9, patience=PATIENCE, chance=0).state is DeliveryState.DELIVERED


def test_whoever_is_gone_wants_nothing_more() -> None:
    verdict = judge(Answer(410, "gone"), attempts=0, waited_s=0, patience=PATIENCE, chance=0)
    assert verdict.state is DeliveryState.DEAD
    assert "410" in (verdict.disable or "")
