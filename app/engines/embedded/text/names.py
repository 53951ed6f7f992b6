"""Which key of a record belongs to which field: worked out once for each order of keys that a file uses."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.errors import Category, FileError
from app.domain.system_columns import is_system
from app.domain.types import Field, Struct

# Files use few orders of keys; a file that uses many must not fill the memory with them.
_REMEMBERED = 2_000


class NameClashError(Exception):
    """A record's keys cannot all have a column."""

    def at(self, line: int) -> FileError:
        """What it means for the file."""
        return FileError(Category.SCHEMA_MISMATCH, f"Line {line}: {self}", line=line)


def check_keys(keys: tuple[str, ...]) -> None:
    """Raise NameClashError when two keys differ in case only: a table cannot have both."""
    seen: dict[str, str] = {}
    for key in keys:
        other = seen.setdefault(key.lower(), key)
        if other is not key:
            raise NameClashError(f'the names "{other}" and "{key}" differ in case only; a table can have one of them.')


def check_taken(name: str) -> None:
    """Raise NameClashError when a column of the file bears the name of one of ours."""
    if is_system(name):
        raise NameClashError(f'the name "{name}" is taken by a column that is added to every row; rename it.')


@dataclass(frozen=True)
class KeyPlan:
    """Each key with the place of its field, None where it is new; and the first required field without a key."""

    steps: tuple[tuple[str, int | None], ...]
    missing: Field | None


class KeyPlans:
    """Plans for the records of one struct."""

    def __init__(self, kind: Struct, *, top: bool) -> None:
        """Prepare for `kind`; at the `top` of a record names of ours are refused."""
        self._kind = kind
        self._top = top
        self._plans: dict[tuple[str, ...], KeyPlan] = {}

    def plan(self, keys: tuple[str, ...]) -> KeyPlan:
        """The plan for a record with exactly these keys in this order.

        Raises:
            NameClashError: Keys differ in case only, or bear a name that is taken.
        """
        plan = self._plans.get(keys)
        if plan is None:
            if len(self._plans) >= _REMEMBERED:
                self._plans.clear()
            plan = self._plans[keys] = self._make(keys)
        return plan

    def _make(self, keys: tuple[str, ...]) -> KeyPlan:
        check_keys(keys)
        places = {id(field): place for place, field in enumerate(self._kind.fields)}
        steps = []
        for key in keys:
            if self._top:
                check_taken(key)
            field = self._kind.find(key)
            steps.append((key, None if field is None else places[id(field)]))
        met = {place for _, place in steps}
        missing = (f for place, f in enumerate(self._kind.fields) if f.required and place not in met)
        return KeyPlan(tuple(steps), next(missing, None))
