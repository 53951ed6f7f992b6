"""A report says what was measured, and what was missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import PAGE, all_cases
from bench.cases import Case, chosen
from bench.figures import Bar, How
from bench.report import BEGIN, END, comparison, report, with_figures
from bench.results import Result, keep, kept


def case(name: str = "gz", *bars: Bar, heavy: bool = False) -> Case:
    return Case(name, "some files", lambda *_: [], bars=bars, heavy=heavy)


def result(
    samples: dict[str, list[float]], *, scale: float = 1.0, failed: dict[str, str] | None = None, name: str = "gz"
) -> Result:
    return Result(
        case=name,
        commit="abc",
        measured_at="2026-03-01 12:00 UTC",
        machine={"cores": "2"},
        scale=scale,
        runs=2,
        samples={
            name: [{"wall_s": wall, "cpu_s": 2 * wall, "peak_mb": 100.0} for wall in walls]
            for name, walls in samples.items()
        },
        failed=failed or {},
        load_before=0.1,
        load_after=0.1,
        seconds=5,
    )


def test_bars_are_met_or_missed_openly() -> None:
    bars = (
        Bar("loading", "we", "wall_s", 1.3, ("floor",)),
        Bar("memory", "we", "peak_mb", 700, how=How.VALUE),
        Bar("unseen", "they", "wall_s", 1.0, ("floor",)),
    )
    text = report([case("gz", *bars)], {"gz": result({"we": [2.0, 3.0], "floor": [1.0, 1.0]})})
    assert "| loading | ≤ 1.3 × floor | 2.50 (2.00–3.00) | **missed by 92 %** |" in text
    assert "| memory | ≤ 700 | 100 | met |" in text
    assert "| unseen | ≤ 1 × floor | not measured |  |" in text


def test_a_case_shows_median_and_spread_of_each_contender() -> None:
    text = report([case()], {"gz": result({"we": [2.0, 3.0], "floor": [1.0]}, failed={"they": "rows | are\nmissing"})})
    assert "| we | 2.50 (2.00–3.00) | 5.00 (4.00–6.00) | 100 (100–100) | 2 |" in text
    assert "| floor | 1.00 | 2.00 | 100 | 1 |" in text
    assert "| they | failed: rows / are missing | | | |" in text


def test_figures_of_less_data_say_so() -> None:
    assert "say nothing about the bars" in report([case()], {"gz": result({"we": [1.0]}, scale=0.1)})
    assert "say nothing about the bars" not in report([case()], {"gz": result({"we": [1.0]})})


def test_cases_without_a_result_are_left_out() -> None:
    assert report([case("other")], {}) == "Nothing has been measured yet.\n"


def test_a_comparison_pairs_the_parts_of_two_trees() -> None:
    found = result({"here": [1.0, 3.0], "there": [4.0, 4.0], "here: first load": [1.0], "there: first load": [2.0]})
    text = comparison(case(), found, "here", "there")
    assert "| whole command | 2.00 (1.00–3.00) | 4.00 (4.00–4.00) | 0.50 | 0.50 | 1.00 |" in text
    assert "| first load | 1.00 | 2.00 | 0.50 | 0.50 | 1.00 |" in text
    assert text.count("whole command") == 1


def test_figures_go_between_the_marks_of_the_page() -> None:
    page = f"# Title\n{BEGIN}\nold\n{END}\nafter\n"
    once = with_figures(page, "new\n")
    assert once == f"# Title\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert with_figures(once, "new\n") == once
    with pytest.raises(ValueError, match="has no"):
        with_figures("# Title\n", "new")


def test_the_page_has_the_marks() -> None:
    assert with_figures(PAGE.read_text(encoding="utf-8"), "x").count("x\n\n" + END) == 1


def test_results_are_kept_by_case(tmp_path: Path) -> None:
    one = result({"we": [1.0]})
    assert kept(tmp_path / "results", "gz") is None
    keep(tmp_path / "results", one)
    assert kept(tmp_path / "results", "gz") == one


def test_cases_are_chosen_by_name_and_heavy_ones_only_so() -> None:
    cases = [case("a"), case("b", heavy=True), case("c")]
    assert [c.name for c in chosen(cases, "")] == ["a", "c"]
    assert [c.name for c in chosen(cases, "c,b")] == ["b", "c"]
    assert [c.name for c in chosen(cases, "all")] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="no case d"):
        chosen(cases, "d")


def test_names_of_cases_and_contenders_of_bars_are_not_mistaken() -> None:
    cases = all_cases()
    assert len({c.name for c in cases}) == len(cases)
    assert all(bar.subject.startswith("autoloader") for c in cases for bar in c.bars)
