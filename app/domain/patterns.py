"""Globs over names of files: `*`, `?`, `[…]`, `{a,b}`, and `**` for folders at any depth. Pure.

A pattern is held against a path below a source's root, folders parted by "/", case-sensitive. Names that begin with
"." or "_" match only where the pattern's own component begins with that very character.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from app.domain.errors import InvalidFieldError

HIDDEN = "._"
MAX_ALTERNATIVES = 1_000
_MAGIC = frozenset("*?[{")
_ANY_FOLDERS = "**"
_VISIBLE = f"(?=[^/{HIDDEN}])"
_CHARACTER = "[^/]"


@dataclass(frozen=True)
class Pattern:
    """A glob, anchored at the root of a source."""

    text: str

    def __post_init__(self) -> None:
        """Refuse what cannot be compiled, when the pattern is made and not when it is used.

        Raises:
            InvalidFieldError: It cannot be understood.
        """
        _ = self._regex

    def matches(self, path: str) -> bool:
        """Whether the pattern names this path below the root."""
        return self._regex.fullmatch(path) is not None

    def can_match_below(self, folder: str) -> bool:
        """Whether some path inside `folder` (below the root, "" for the root itself) could match."""
        components = [part for part in folder.split("/") if part]
        return any(_can_match_below(segments, components) for segments in self._alternatives)

    @property
    def fixed_folder(self) -> str:
        """The longest folder below the root that every match lies in; "" where there is none."""
        folders = [_fixed_components(segments) for segments in self._alternatives]
        common: list[str] = []
        for level in zip(*folders, strict=False):
            if len(set(level)) > 1:
                break
            common.append(level[0])
        return "/".join(common)

    @cached_property
    def _alternatives(self) -> tuple[tuple[str, ...], ...]:
        return tuple(_segments(one) for one in _expand_braces(self.text))

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        try:
            return re.compile("|".join(_regex_of(segments) for segments in self._alternatives))
        except re.error as error:
            raise InvalidFieldError(f"The pattern {self.text!r} cannot be understood: {error}.") from error


def has_magic(text: str) -> bool:
    """Whether `text` holds a character that means more than itself in a pattern."""
    return not _MAGIC.isdisjoint(text)


def file_pattern(text: str) -> Pattern:
    """The pattern of a `file_pattern` field: without "/" it names files at any depth, with "/" paths below the root.

    Raises:
        InvalidFieldError: It is empty, steps out of the root, or cannot be understood.
    """
    if text in {"", "."}:
        _refuse(text)
    return Pattern(text if "/" in text else f"{_ANY_FOLDERS}/{text}")


def _refuse(text: str) -> NoReturn:
    raise InvalidFieldError(f"{text!r} is no pattern.", remedy="Write a pattern such as *.json or 2024/**/*.csv.")


def _segments(text: str) -> tuple[str, ...]:
    segments = [part for part in text.split("/") if part not in {"", "."}]
    if segments and text.endswith("/"):
        # A folder stands for everything in it.
        segments.append(_ANY_FOLDERS)
    if ".." in segments:
        raise InvalidFieldError(f"The pattern {text!r} steps out of its folder.", remedy="Write it without `..`.")
    if not segments:
        _refuse(text)
    # Two `**` in a row mean no more than one, and would only be tried against each other.
    return tuple(s for i, s in enumerate(segments) if s != _ANY_FOLDERS or segments[i - 1 : i] != [_ANY_FOLDERS])


def _expand_braces(text: str) -> list[str]:
    done, todo = [], [text]
    while todo:
        one = todo.pop()
        found = re.search(r"\{([^{}]*)\}", one)
        if found is None:
            done.append(one)
        else:
            todo.extend(one[: found.start()] + choice + one[found.end() :] for choice in found[1].split(","))
        if len(done) + len(todo) > MAX_ALTERNATIVES:
            raise InvalidFieldError(f"The pattern {text!r} has more than {MAX_ALTERNATIVES} alternatives.")
    return sorted(set(done))


def _regex_of(segments: tuple[str, ...]) -> str:
    """One regular expression for the whole path, of which no part is ever tried in more than one way without need.

    Runs of components between two `**` have a fixed length, so the first place where one fits is as good as any later
    one: such a run is atomic and is not looked for again. The same holds for what stands between two `*`.
    """
    *runs, last = _runs(segments)
    folder = f"(?:{_VISIBLE}{_CHARACTER}+/)"
    regex = ""
    for number, run in enumerate(runs):
        body = "".join(f"{_component(segment)}/" for segment in run)
        regex += body if number == 0 else f"(?>{folder}*?{body})"
    tail = "/".join(_component(segment) for segment in last) or f"{_VISIBLE}{_CHARACTER}+"
    return f"(?:{regex}{f'{folder}*' if runs else ''}{tail})"


def _runs(segments: tuple[str, ...]) -> list[list[str]]:
    runs: list[list[str]] = [[]]
    for segment in segments:
        if segment == _ANY_FOLDERS:
            runs.append([])
        else:
            runs[-1].append(segment)
    return runs


def _component(segment: str) -> str:
    pieces = [""]
    at = 0
    while at < len(segment):
        at, token = _token(segment, at)
        if token is None:
            pieces.append("")
        else:
            pieces[-1] += token
    first, *rest = pieces
    regex = first
    for piece in rest[:-1]:
        regex += f"(?>{_CHARACTER}*?{piece})"
    if rest:
        regex += f"{_CHARACTER}*{rest[-1]}"
    # The last star of a component may only be tried against that component's end, never across the next "/".
    return f"(?>{'' if segment[0] in HIDDEN else _VISIBLE}{regex}(?![^/]))"


def _token(segment: str, at: int) -> tuple[int, str | None]:
    """The regular expression of one character of the pattern, and where the next begins; None for a star."""
    character = segment[at]
    if character == "*":
        return at + 1, None
    if character == "?":
        return at + 1, _CHARACTER
    if character == "[":
        end = segment.find("]", at + 3 if segment[at + 1 : at + 2] == "!" else at + 2)
        if end > 0:
            return end + 1, _character_set(segment[at + 1 : end])
    return at + 1, re.escape(character)


def _character_set(text: str) -> str:
    negated = text.startswith("!")
    body = re.sub(r"([\\\[\]^&~|])", r"\\\1", text[negated:])
    return f"(?!/)[{'^' if negated else ''}{body}]"


def _can_match_below(segments: tuple[str, ...], components: list[str]) -> bool:
    states = _closed({0}, segments)
    for component in components:
        states = _closed(_step(states, segments, component), segments)
    return any(state < len(segments) for state in states)


def _step(states: Iterable[int], segments: tuple[str, ...], component: str) -> set[int]:
    after = set()
    for state in states:
        if state == len(segments):
            continue
        if segments[state] == _ANY_FOLDERS:
            if component[0] not in HIDDEN:
                after.add(state)
        elif re.fullmatch(_component(segments[state]), component):
            after.add(state + 1)
    return after


def _closed(states: set[int], segments: tuple[str, ...]) -> set[int]:
    # `**` may also stand for no folder at all; as the last component it still needs a file's name.
    reached = set(states)
    for state in states:
        if state < len(segments) - 1 and segments[state] == _ANY_FOLDERS:
            reached.add(state + 1)
    return reached


def _fixed_components(segments: tuple[str, ...]) -> list[str]:
    fixed = []
    for segment in segments[:-1]:
        if has_magic(segment):
            break
        fixed.append(segment)
    return fixed


EVERYTHING = Pattern(_ANY_FOLDERS)
