"""Medians, spreads and bars."""

from __future__ import annotations

import pytest

from bench.figures import Bar, How, Spread, judge, spread


def samples(**walls: list[float]) -> dict[str, list[dict[str, float]]]:
    return {name: [{"wall_s": wall} for wall in values] for name, values in walls.items()}


def test_a_spread_is_median_least_and_most() -> None:
    assert spread([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0, 3)
    assert spread([1.0, 2.0]).median == 1.5
    with pytest.raises(ValueError, match="no sample"):
        spread([])


def test_a_ratio_is_that_of_the_medians_and_its_spread_is_run_by_run() -> None:
    verdict = judge(Bar("load", "we", "wall_s", 2.0, ("they",)), samples(we=[2.0, 9.0, 3.0], they=[2.0, 3.0, 1.0]))
    assert (verdict.reached, verdict.least, verdict.most) == (1.5, 1.0, 3.0)
    assert verdict.is_met is True
    assert verdict.missed_by == 0


def test_of_several_rivals_the_fastest_counts() -> None:
    bar = Bar("load", "we", "wall_s", 1.3, ("slow", "fast", "absent"))
    verdict = judge(bar, samples(we=[2.0], slow=[4.0], fast=[1.0]))
    assert (verdict.rival, verdict.reached, verdict.is_met) == ("fast", 2.0, False)
    assert verdict.missed_by == pytest.approx(0.7 / 1.3)


def test_a_spread_needs_as_many_runs_on_both_sides() -> None:
    verdict = judge(Bar("load", "we", "wall_s", 2.0, ("they",)), samples(we=[2.0, 3.0], they=[2.0]))
    assert (verdict.reached, verdict.least, verdict.most) == (1.25, None, None)


def test_a_least_is_missed_from_below() -> None:
    bar = Bar("cores", "we", "cores", 1.5, how=How.VALUE, at_least=True)
    assert judge(bar, {"we": [{"cores": 1.6}]}).is_met is True
    verdict = judge(bar, {"we": [{"cores": 1.2}]})
    assert verdict.is_met is False
    assert verdict.missed_by == pytest.approx(0.2)


def test_a_difference_is_held_against_its_limit() -> None:
    bar = Bar("memory", "many", "peak_mb", 100, ("few",), How.DIFFERENCE)
    verdict = judge(bar, {"many": [{"peak_mb": 250.0}], "few": [{"peak_mb": 100.0}]})
    assert (verdict.reached, verdict.is_met) == (150.0, False)


def test_two_figures_of_one_contender_are_compared() -> None:
    bar = Bar("commits", "we", "last_s", 2.0, ("we",), against_figure="first_s")
    assert judge(bar, {"we": [{"first_s": 0.1, "last_s": 0.3}]}).reached == pytest.approx(3.0)


@pytest.mark.parametrize("there", [{"we": [1.0]}, {"they": [1.0]}, {}])
def test_what_was_not_measured_is_neither_met_nor_missed(there: dict[str, list[float]]) -> None:
    verdict = judge(Bar("load", "we", "wall_s", 2.0, ("they",)), samples(**there))
    assert (verdict.reached, verdict.is_met) == (None, None)
