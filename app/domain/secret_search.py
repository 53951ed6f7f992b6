"""Which of many secrets may stand in a text: told by samples of it, for a thousand as soon as for one. Pure."""

from __future__ import annotations

from app.domain.secret_forms import Secret

# A text is looked at in samples of so many characters, one at every seventh character. Whatever is at least as long
# as that and a step holds a whole one.
SAMPLE, STEP = 6, 7
LONG = SAMPLE + STEP - 1


class SecretSearch:
    """The secrets, by what no form of them changes. It may be read while another thread changes it."""

    def __init__(self) -> None:
        """Know none."""
        # Nothing in them is changed once it is there: who looks through it sees the whole of what was.
        self._by_sample: dict[str, tuple[Secret, ...]] = {}
        self._short: tuple[tuple[str, Secret], ...] = ()

    def add(self, secret: Secret) -> None:
        """Find one that is not there yet."""
        for mark in secret.marks:
            if len(mark) < LONG:
                self._short = (*self._short, (mark, secret))
        for sample in _samples(secret):
            self._by_sample[sample] = (*self._by_sample.get(sample, ()), secret)

    def remove(self, secret: Secret) -> None:
        """Find it no longer."""
        self._short = tuple(one for one in self._short if one[1] is not secret)
        for sample in _samples(secret):
            left = tuple(one for one in self._by_sample.get(sample, ()) if one is not secret)
            if left:
                self._by_sample[sample] = left
            else:
                self._by_sample.pop(sample, None)

    def perhaps_in(self, text: str) -> list[Secret]:
        """Those that may be in the text, the longest first: one that holds another is to be hidden whole."""
        by_sample = self._by_sample
        found = {secret for mark, secret in self._short if mark in text}
        for at in range(0, len(text) - SAMPLE + 1, STEP):
            found.update(by_sample.get(text[at : at + SAMPLE], ()))
        return sorted(found, key=lambda one: (-len(one.text), one.text)) if found else []


def _samples(secret: Secret) -> set[str]:
    """Every sample that a text with a long mark may be looked at in."""
    return {mark[at : at + SAMPLE] for mark in secret.marks if len(mark) >= LONG for at in range(STEP)}
