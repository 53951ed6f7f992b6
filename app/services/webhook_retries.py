"""What becomes of a message after an attempt to deliver it: when it is sent again, and when it is given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from app.domain.webhooks import DeliveryState, Verdict

_MAY_SAY_WHEN = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(frozen=True)
class Answer:
    """What a receiver said to one message.

    Args:
        status: None: there was no answer; `error` says why.
        error: Why it does not count as delivered; empty where it does.
        retry_after_s: When the receiver wants to be asked again.
        beginning: The first of what it answered, for a person.
        duration_s: So long it took.
    """

    status: int | None = None
    error: str = ""
    retry_after_s: float | None = None
    beginning: str = ""
    duration_s: float = 0.0

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver has it."""
        return self.status is not None and HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES


@dataclass(frozen=True)
class Patience:
    """How often, how late and how long a message is sent again. In seconds.

    The first pause is doubled after each failure, up to the longest; each is shortened by up to a half, by chance, so
    that what failed together does not come again together.
    """

    first_pause_s: float = 5.0
    longest_pause_s: float = 3600.0
    give_up_s: float = 24 * 3600.0

    def pause_s(self, failures: int, chance: float) -> float:
        """The pause after so many failures; `chance` is from 0 to 1."""
        # The exponent is bounded, for no float holds what a hundred failures would come to.
        doubled = self.first_pause_s * 2.0 ** min(failures - 1, 60)
        return min(doubled, self.longest_pause_s) * (1.0 - chance / 2)


def judge(answer: Answer, *, attempts: int, waited_s: float, patience: Patience, chance: float) -> Verdict:
    """What becomes of the message.

    Args:
        answer: What came of this attempt.
        attempts: How many there were before it.
        waited_s: How long ago the message was written.
        patience: How it is tried again.
        chance: Shortens the pause; from 0 to 1.
    """
    if answer.is_accepted:
        return Verdict(DeliveryState.DELIVERED, status=answer.status)
    if answer.status == HTTPStatus.GONE:
        reason = "The receiver answered 410 Gone: it wants nothing more."
        return Verdict(DeliveryState.DEAD, status=answer.status, error=reason, disable=reason)
    pause_s = patience.pause_s(attempts + 1, chance)
    if answer.status in _MAY_SAY_WHEN and answer.retry_after_s is not None:
        pause_s = max(pause_s, min(answer.retry_after_s, patience.longest_pause_s))
    if waited_s + pause_s > patience.give_up_s:
        hours = patience.give_up_s / 3600
        error = f"Given up after {attempts + 1} attempts, {hours:g} h after it was written. {answer.error}"
        return Verdict(DeliveryState.DEAD, status=answer.status, error=error)
    return Verdict(DeliveryState.PENDING, wait_s=pause_s, status=answer.status, error=answer.error)
