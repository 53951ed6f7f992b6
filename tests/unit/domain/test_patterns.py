"""Globs name what they say, hide what begins with "." or "_", and never take long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import InvalidFieldError
from app.domain.patterns import EVERYTHING, Pattern, file_pattern


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.csv", "a.csv"),
        ("*.csv", ".csv.csv"[1:]),
        ("a?c", "abc"),
        ("a?c", "aéc"),
        ("a?c", "a\udcffc"),
        ("[ab]x", "bx"),
        ("[a-c]x", "bx"),
        ("[!a-c]x", "dx"),
        ("[]]", "]"),
        ("[!]]", "a"),
        ("[a^]", "^"),
        ("[\\]", "\\"),
        ("x[", "x["),
        ("x{", "x{"),
        ("x}", "x}"),
        ("a*b*c*", "aXbYcZ"),
        ("*a*a*b", "aaab"),
        ("*ab*b", "abb"),
        ("**/*.csv", "a.csv"),
        ("**/*.csv", "d/e/a.csv"),
        ("a/**/b", "a/b"),
        ("a/**/b", "a/x/y/b"),
        ("a/**", "a/x/y/b"),
        ("a/", "a/x/y/b"),
        ("./a", "a"),
        ("a**b", "axxb"),
        ("**/a/**/b", "q/a/a/w/b"),
        ("**/a*/b", "a1/c/a2/b"),
        ("**/**/x", "x"),
        ("{a,b/c}/*.json", "b/c/x.json"),
        ("*.{csv,csv.gz}", "a.csv.gz"),
        ("{a,}b", "b"),
        ("**/_x/*", "a/_x/b"),
        ("_*", "_a"),
        (".*/x", ".a/x"),
        ("a\nb*", "a\nbc"),
        ("**", "a/b"),
        ("a.b", "a.b"),
        ("(a|b)+", "(a|b)+"),
    ],
)
def test_matches(pattern: str, path: str) -> None:
    assert Pattern(pattern).matches(path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*.csv", "d/a.csv"),
        ("*.csv", "a.CSV"),
        ("*.csv", "a.csv\n"),
        ("a?c", "a/c"),
        ("a[!b]c", "a/c"),
        ("[a-c]x", "dx"),
        ("[!a-c]x", "bx"),
        ("a/**", "a"),
        ("a/**/b", "ab"),
        ("*", "_x"),
        ("*", ".x"),
        ("?x", "_x"),
        ("[_]x", "_x"),
        ("**", "_x"),
        ("**", "a/.b/c"),
        ("**/x", "_a/x"),
        ("*/x", "_a/x"),
        ("a/*", "a/"),
        ("a.b", "aXb"),
        ("*a", "ab"),
    ],
)
def test_does_not_match(pattern: str, path: str) -> None:
    assert not Pattern(pattern).matches(path)


def test_a_file_pattern_without_a_slash_names_files_at_any_depth() -> None:
    pattern = file_pattern("*.json")
    assert pattern.matches("a.json")
    assert pattern.matches("x/y/a.json")
    assert not pattern.matches("x/_y/a.json")


def test_a_file_pattern_with_a_slash_names_paths_below_the_root() -> None:
    pattern = file_pattern("x/*.json")
    assert pattern.matches("x/a.json")
    assert not pattern.matches("y/x/a.json")
    assert file_pattern("./*.json").matches("a.json")
    assert not file_pattern("./*.json").matches("x/a.json")


@pytest.mark.parametrize("text", ["", "/", "../*.json", "a/../b", "[z-a]", "."])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError):
        file_pattern(text)


def test_a_pattern_that_steps_out_is_told_so() -> None:
    with pytest.raises(InvalidFieldError, match=r"steps out of its folder\. Write it without"):
        file_pattern("{a,../b}/*.json")


def test_too_many_alternatives_are_refused() -> None:
    with pytest.raises(InvalidFieldError, match="alternatives"):
        Pattern("{a,b}" * 11)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 40 + "b", "a" * 20_000),
        ("**/a/" * 30 + "b", "a/" * 10_000 + "c"),
        ("**/*a*a*a*c", "/".join(["a" * 100] * 200)),
        ("**/*/" * 20 + "x", "a/" * 5_000 + "y"),
        ("*" * 50 + "b", "a" * 20_000),
        ("{a,*a}" * 8 + "*b", "a" * 5_000),
    ],
)
def test_long_names_take_no_time(pattern: str, path: str) -> None:
    assert not Pattern(pattern).matches(path)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("a/b/*/c", "a/b"),
        ("a/{b,c}/x", "a"),
        ("{a,b}/x", ""),
        ("*.csv", ""),
        ("a/x.csv", "a"),
        ("a/", "a"),
        ("**/x", ""),
    ],
)
def test_the_fixed_folder_is_where_a_listing_may_start(pattern: str, folder: str) -> None:
    assert Pattern(pattern).fixed_folder == folder


@pytest.mark.parametrize(
    ("pattern", "folder", "could"),
    [
        ("*.csv", "", True),
        ("*.csv", "warehouse", False),
        ("*/*.csv", "warehouse", True),
        ("*/*.csv", "warehouse/db", False),
        ("**/*.csv", "warehouse/db/t", True),
        ("**/*.csv", "_warehouse", False),
        ("_w*/*.csv", "_warehouse", True),
        ("data/**", "warehouse", False),
        ("data/**", "data", True),
        ("a/b", "a/b", False),
        ("{x,w}/*/y", "w/q", True),
    ],
)
def test_can_match_below(pattern: str, folder: str, *, could: bool) -> None:
    assert Pattern(pattern).can_match_below(folder) is could


SEGMENTS = st.sampled_from(["a", "b", "_h", ".d", "ab", "*", "?", "a*", "*b", "_*", "**", "*a*b", "[ab]"])
NAMES = st.sampled_from(["a", "b", "ab", "aab", "_h", ".d", "c"])


def _slow(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """The meaning of a pattern, component by component, without a thought for time."""
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        if not rest:
            return bool(path) and all(name[0] not in "._" for name in path)
        return _slow(rest, path) or (bool(path) and path[0][0] not in "._" and _slow(pattern, path[1:]))
    return bool(path) and _slow_name(head, path[0], start=True) and _slow(rest, path[1:])


def _slow_name(pattern: str, name: str, *, start: bool = False) -> bool:
    if start and name[0] in "._" and pattern[0] != name[0]:
        return False
    if not pattern:
        return not name
    if pattern[0] == "*":
        return _slow_name(pattern[1:], name) or (bool(name) and _slow_name(pattern, name[1:]))
    if pattern.startswith("[ab]"):
        return name[:1] in {"a", "b"} and _slow_name(pattern[4:], name[1:])
    return bool(name) and pattern[0] in {"?", name[0]} and _slow_name(pattern[1:], name[1:])


@given(st.lists(SEGMENTS, min_size=1, max_size=6), st.lists(NAMES, min_size=1, max_size=6))
def test_the_one_expression_means_what_the_components_mean(pattern: list[str], path: list[str]) -> None:
    assert Pattern("/".join(pattern)).matches("/".join(path)) == _slow(tuple(pattern), tuple(path))


@given(st.lists(SEGMENTS, min_size=1, max_size=5), st.lists(NAMES, min_size=1, max_size=5))
def test_a_match_lies_in_folders_that_could_hold_it(pattern: list[str], path: list[str]) -> None:
    glob = Pattern("/".join(pattern))
    if glob.matches("/".join(path)):
        assert all(glob.can_match_below("/".join(path[:depth])) for depth in range(len(path)))
        assert "/".join(path).startswith(glob.fixed_folder)


def test_everything_is_what_is_not_hidden() -> None:
    assert EVERYTHING.matches("a/b.json")
    assert not EVERYTHING.matches("a/_temporary/b.json")
