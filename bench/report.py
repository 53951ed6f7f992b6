"""Results as Markdown: the bars first, then every case with every contender. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.cases import Case
from bench.figures import How, Sample, Verdict, judge, spread
from bench.results import Result

BEGIN = "<!-- figures: written by `make bench` -->"
END = "<!-- end of figures -->"
# From so much load of others on, times are to be taken with care.
BUSY = 0.5
COLUMNS = (("wall_s", "wall, s", 2), ("cpu_s", "CPU, s", 2), ("peak_mb", "peak memory, MB", 0))


def report(cases: Sequence[Case], results: Mapping[str, Result]) -> str:
    """The whole report.

    Args:
        cases: In their order; those without a result are left out.
        results: By case.
    """
    measured = [(case, results[case.name]) for case in cases if case.name in results]
    if not measured:
        return "Nothing has been measured yet.\n"
    parts = [machine_table([result for _, result in measured]), bars_table(measured)]
    parts += [case_section(case, result) for case, result in measured]
    return "\n".join(parts)


def machine_table(results: Sequence[Result]) -> str:
    """What it was measured on, by the newest of the results."""
    newest = max(results, key=lambda result: result.measured_at)
    rows = {**newest.machine, "measured": _when(results), "commit": ", ".join(sorted({r.commit for r in results}))}
    if any(r.scale != 1 for r in results):
        rows["scale"] = f"{newest.scale:g} of the data: these figures say nothing about the bars"
    lines = ["| machine | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(lines) + "\n"


def bars_table(measured: Sequence[tuple[Case, Result]]) -> str:
    """What is asked, and what was measured."""
    lines = ["| work | bar | measured | |", "|---|---|---|---|"]
    for case, result in measured:
        lines += [bar_row(judge(bar, result.samples)) for bar in case.bars]
    return "\n".join(lines) + "\n"


def bar_row(verdict: Verdict) -> str:
    """One row of the bars' table."""
    bar = verdict.bar
    sign = "≥" if bar.at_least else "≤"
    unit = "×" if bar.how is How.RATIO else ""
    rival = f" {' or '.join(bar.against)}" if bar.against and bar.how is How.RATIO else ""
    own = bar.against == (bar.subject,)
    limit = "none" if math.isinf(bar.limit) else f"{sign} {bar.limit:g}{f' {unit}' if unit else ''}"
    limit += "" if own or math.isinf(bar.limit) else rival
    return f"| {bar.work} | {limit} | {measured_text(verdict)} | {judgement(verdict)} |"


def measured_text(verdict: Verdict) -> str:
    """The figure, with its spread where there is one."""
    if verdict.reached is None:
        return "not measured"
    text = number(verdict.reached)
    if verdict.least is not None and verdict.most is not None and verdict.least != verdict.most:
        text += f" ({number(verdict.least)}–{number(verdict.most)})"
    return text


def judgement(verdict: Verdict) -> str:
    """Met, or missed by how much."""
    if verdict.is_met is None or math.isinf(verdict.bar.limit):
        return ""
    return "met" if verdict.is_met else f"**missed by {100 * verdict.missed_by:.0f} %**"


def case_section(case: Case, result: Result) -> str:
    """A case's heading and its table."""
    names = [name for name, _, _ in COLUMNS]
    extra = sorted({key for samples in result.samples.values() for s in samples for key in s} - {*names, "cores"})
    heads = [head for _, head, _ in COLUMNS] + extra
    busy = " (the machine was busy)" if result.load_before > BUSY else ""
    when = f"`CASES={case.name}`, {result.measured_at}, commit {result.commit}, load before {result.load_before:.1f}"
    lines = [
        f"### {case.title[0].upper()}{case.title[1:]}",
        "",
        f"{when}{busy}. {case.note}".rstrip(),
        "",
        f"| | {' | '.join(heads)} | runs |",
        f"|---|{'---:|' * (len(heads) + 1)}",
    ]
    for contender, samples in result.samples.items():
        cells = [cell(samples, name, digits) for name, _, digits in COLUMNS] + [cell(samples, x, 2) for x in extra]
        lines.append(f"| {contender} | {' | '.join(cells)} | {len(samples)} |")
    lines += [f"| {name} | failed: {clean(reason)} {'| ' * len(heads)}|" for name, reason in result.failed.items()]
    return "\n".join(lines) + "\n"


def cell(samples: Sequence[Sample], name: str, digits: int) -> str:
    """Median, and least to most."""
    values = [sample[name] for sample in samples if name in sample]
    if not values:
        return ""
    found = spread(values)
    text = f"{found.median:.{digits}f}"
    return text if found.runs == 1 else f"{text} ({found.least:.{digits}f}–{found.most:.{digits}f})"


def comparison(case: Case, result: Result, here: str, there: str) -> str:
    """Two trees side by side: the contenders of one label against those of the other."""
    lines = [
        f"### {case.title[0].upper()}{case.title[1:]}",
        "",
        f"| | wall {here} | wall {there} | ratio | CPU | memory |",
    ]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, mine in result.samples.items():
        theirs = result.samples.get(name.replace(here, there, 1), ()) if name.startswith(here) else ()
        if not theirs:
            continue
        ratios = [
            number(spread([s[f] for s in mine]).median / max(spread([s[f] for s in theirs]).median, 1e-9))
            for f, _, _ in COLUMNS
        ]
        what = name.removeprefix(here).lstrip(": ") or "whole command"
        lines.append(f"| {what} | {cell(mine, 'wall_s', 2)} | {cell(theirs, 'wall_s', 2)} | {' | '.join(ratios)} |")
    lines += [f"| {name} | failed: {clean(reason)} | | | | |" for name, reason in result.failed.items()]
    return "\n".join(lines) + "\n"


def with_figures(page: str, figures: str, *, begin: str = BEGIN) -> str:
    """The page with these figures between its marks.

    Raises:
        ValueError: It has no marks.
    """
    before, found, rest = page.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise ValueError(f"The page has no {begin} … {END}.")
    return f"{before}{begin}\n\n{figures.strip()}\n\n{END}{after}"


def write_page(path: Path, figures: str, *, begin: str = BEGIN) -> None:
    """Put the figures into the page."""
    path.write_text(with_figures(path.read_text(encoding="utf-8"), figures, begin=begin), encoding="utf-8")


def number(value: float) -> str:
    """A figure with as many digits as mean something."""
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"  # noqa: PLR2004


def clean(text: str) -> str:
    """A reason as a cell of a table."""
    return text.replace("|", "/").replace("\n", " ")[:300]


def _when(results: Sequence[Result]) -> str:
    times = sorted(result.measured_at for result in results)
    return times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
