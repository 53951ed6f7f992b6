"""Pin each package of a lock that is there with extras without them too.

To pip before 23.3 `name` and `name[extra]` are two things: a package that needs the one is not held to the pin of the
other, and with hashes required that is an error. Usage: python scripts/plain_pins.py LOCK...
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# A pin with extras, with its hashes, up to the comment that says who needs it.
WITH_EXTRAS = re.compile(r"^([\w.-]+)\[[^\]]+\](==.*\n(?:    --hash=.*\n)*)", re.MULTILINE)


def with_plain_pins(lock: str) -> str:
    """The lock with a plain pin before each that has extras."""
    return WITH_EXTRAS.sub(lambda found: f"{found[1]}{_ended(found[2])}{found[0]}", lock)


def _ended(pin: str) -> str:
    return pin.rstrip("\\\n ") + "\n"


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(with_plain_pins(path.read_text()))
