"""`autoloader ingestions …`: standing orders, on the database or at a service."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer

from app.cli.desk import Desk, find
from app.cli.desks import ServerOption, TokenFileOption, TokenOption, open_desk
from app.cli.options import Output, OutputOption, VerboseOption
from app.cli.render import print_json, print_rows
from app.domain.errors import (
    ConfirmationNeededError,
    ConflictError,
    NotFoundError,
    RetriableError,
    RunAtWorkError,
    StoppedByUser,
    UsageError,
)

ingestions = typer.Typer(help="Make, run and look at ingestions.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Its name or its id.")]
LimitOption = Annotated[int, typer.Option(min=1, help="How many at most.")]
DEFAULT_LIMIT = 100
TRIGGERED = {"completed": 0, "triggered": 0, "running": 0, "partial": 3}
FAILED = 1
SIGNAL_BASE = 128


@ingestions.callback()
def _ingestions() -> None:
    """Make, run and look at ingestions."""


@ingestions.command()
def create(
    *,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="JSON or YAML; - reads it from stdin.")],
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Make an ingestion from a definition."""
    from app.cli.documents import read_document

    document = read_document(file)
    with open_desk(server, token, token_file, verbose=verbose, makes=True) as desk:
        try:
            made = desk.create(document)
        except UsageError as error:
            shown = "standard input" if file == "-" else file
            error.message = f"{shown}: {error.message}"
            raise
    if output is Output.JSON:
        print_json(made)
        return
    sys.stdout.write(f"Made {made['name']} ({made['id']}): {made['source'].get('path')} → {made['table']}.\n")
    _warn(made)
    if made["schedule"] is None:
        sys.stdout.write(f"It has no schedule. Run it: autoloader ingestions run {made['id']}\n")


@ingestions.command("list")
def list_them(
    *,
    status: Annotated[str | None, typer.Option(help="Only those that are draft, active or paused.")] = None,
    source_type: Annotated[str | None, typer.Option(help="Only those of such a source: local, s3, …")] = None,
    named: Annotated[str | None, typer.Option(metavar="TEXT", help="Only those with this in their name.")] = None,
    limit: LimitOption = DEFAULT_LIMIT,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """List ingestions, the newest first."""
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = desk.ingestions(status=status, source_type=source_type, q=named, limit=limit + 1)
    if output is Output.JSON:
        print_json(found[:limit])
    else:
        headers = ("id", "name", "status", "schedule", "source", "table")
        print_rows(headers, [_row(one) for one in found[:limit]])
    _more(found, limit)


@ingestions.command()
def show(
    name: NameArgument,
    *,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Show one ingestion. Of its credentials only the names are kept where they can be read."""
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = find(desk, name)
    if output is Output.JSON:
        print_json(found)
        return
    rows = [(field, value) for field, value in _flat(found) if value not in (None, [], "")]
    print_rows(("field", "value"), rows)


@ingestions.command()
def run(
    name: NameArgument,
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until it is over; the exit status is the run's.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="The same, and tell how it goes.")] = False,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Run an ingestion now. Ctrl-C ends the waiting or following, not the run."""
    from app.cli.following import exit_status, line_of

    stays = wait or follow
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        ingestion_id = find(desk, name)["id"]
        begun = _begin(desk, ingestion_id, waits=not stays)
        if not stays:
            _told_begun(begun, output)
            raise typer.Exit(TRIGGERED.get(begun["status"], FAILED))
        ended = _stay(desk, ingestion_id, begun["run_id"], tells=follow)
    if output is Output.JSON:
        print_json(ended)
    else:
        _show_errors(ended, told=follow)
        sys.stdout.write(f"Run {ended['id']}: {line_of(ended)}.\n")
    raise typer.Exit(exit_status(ended))


@ingestions.command()
def pause(
    name: NameArgument,
    *,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Let its schedule rest. A run at work goes on; none is begun."""
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = find(desk, name)
        changed = desk.pause(found["id"])
    _told_status(found, changed, output)


@ingestions.command()
def resume(
    name: NameArgument,
    *,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Let its schedule go on. A draft becomes active."""
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = find(desk, name)
        changed = desk.resume(found["id"])
    _told_status(found, changed, output)


@ingestions.command()
def delete(
    name: NameArgument,
    *,
    delete_table: Annotated[bool, typer.Option("--delete-table", help="Drop its table too; needs --yes.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Delete an ingestion, its schedule and its credentials. Its table stays unless asked otherwise."""
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = find(desk, name)
        if delete_table and not yes:
            raise ConfirmationNeededError(
                f"This drops {found['table']} from its catalog, with all that was loaded.",
                remedy="Say --yes if you mean it.",
            )
        desk.delete(found["id"], delete_table=delete_table)
    if output is Output.JSON:
        print_json({"id": found["id"], "name": found["name"], "table": found["table"], "table_deleted": delete_table})
    else:
        rest = "was dropped too" if delete_table else "stays"
        sys.stdout.write(f"Deleted {found['name']} ({found['id']}); {found['table']} {rest}.\n")


@ingestions.command()
def runs(
    name: NameArgument,
    *,
    limit: LimitOption = DEFAULT_LIMIT,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """List the runs of an ingestion, the newest first."""
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = desk.runs(find(desk, name)["id"], limit=limit + 1)
    if output is Output.JSON:
        print_json(found[:limit])
    else:
        headers = ("id", "status", "trigger", "method", "created", "seconds", "loaded", "failed", "rows", "why")
        print_rows(headers, [_run_row(one) for one in found[:limit]])
    _more(found, limit)


@ingestions.command()
def logs(
    name: NameArgument,
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Of which run; the last one unless given.")
    ] = None,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and tell what comes, until it is over or Ctrl-C.")
    ] = False,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Show what a run tells: its log as far as one is kept, its warnings and errors, and how it stands."""
    from app.cli.following import Story, changes

    with open_desk(server, token, token_file, verbose=verbose) as desk:
        found = find(desk, name)
        run_id = run_id or _last_run(desk.runs(found["id"], limit=1), found)
        story = Story(desk, found["id"], run_id)
        stages = changes(desk, found["id"], run_id) if follow else iter([desk.run_of(found["id"], run_id)])
        stage: dict[str, Any] = {}
        with _left_to_itself(found["id"], run_id) if follow else nullcontext():
            for stage in stages:
                if output is Output.TEXT:
                    for line in story.news(stage):
                        sys.stdout.write(f"{line}\n")
                    sys.stdout.flush()
        if output is Output.JSON:
            print_json({"run": stage, "lines": list(story.log())})


def migrate_to_prefect(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    execute: Annotated[bool, typer.Option("--execute", help="Do it.")] = False,
    server: ServerOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    output: OutputOption = Output.TEXT,
    verbose: VerboseOption = False,
) -> None:
    """Make the Prefect deployments that scheduled ingestions lack. The service does it by itself too."""
    if dry_run is execute:
        raise ConfirmationNeededError("Say --dry-run, to see what would be done, or --execute, to do it.")
    with open_desk(server, token, token_file, verbose=verbose) as desk:
        report = desk.migrate(dry_run=dry_run, on_progress=_progress)
    if output is Output.JSON:
        print_json(report)
    else:
        _show_migration(report)
    raise typer.Exit(FAILED if report["failed"] or report["left"] else 0)


# --- what is told --------------------------------------------------------------------------------------------------


def _begin(desk: Desk, ingestion_id: str, *, waits: bool) -> dict[str, Any]:
    try:
        return desk.run(ingestion_id, waits=waits)
    except ConflictError as error:
        if error.code != RunAtWorkError.code:
            raise
        remedy = f"Wait for it, and see how it goes: autoloader ingestions logs -f {ingestion_id}"
        raise RunAtWorkError(error.message, remedy=remedy) from error
    except StoppedByUser as stopped:
        sys.stderr.write(
            f"Not waited for any longer; a run that was begun goes on: autoloader ingestions runs {ingestion_id}\n"
        )
        raise typer.Exit(SIGNAL_BASE + stopped.signal_number) from None


def _stay(desk: Desk, ingestion_id: str, run_id: str, *, tells: bool) -> dict[str, Any]:
    from app.cli.following import Story, changes

    story = Story(desk, ingestion_id, run_id)
    stage: dict[str, Any] = {}
    with _left_to_itself(ingestion_id, run_id):
        for stage in changes(desk, ingestion_id, run_id):
            for line in story.news(stage) if tells else ():
                sys.stderr.write(f"{line}\n")
    return stage


@contextmanager
def _left_to_itself(ingestion_id: str, run_id: str) -> Iterator[None]:
    """Follow a run: whoever is stopped meanwhile says that it goes on."""
    try:
        yield
    except StoppedByUser as stopped:
        sys.stderr.write(
            f"Not waited for any longer; run {run_id} goes on: autoloader ingestions logs -f {ingestion_id} {run_id}\n"
        )
        raise typer.Exit(SIGNAL_BASE + stopped.signal_number) from None
    except RetriableError as error:
        remedy = f"{error.advice} The run may well go on: autoloader ingestions logs -f {ingestion_id} {run_id}"
        error.advice = remedy.strip()
        raise


def _told_begun(begun: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(begun)
        return
    from app.cli.following import error_line

    sys.stdout.write(f"{begun['message']} (run {begun['run_id']}).\n")
    for error in begun.get("errors") or ():
        sys.stderr.write(f"  {error_line(error)}\n")


def _told_status(found: Mapping[str, Any], changed: Mapping[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(changed)
        return
    sys.stdout.write(f"{found['name']} is {changed['status']}.\n")
    _warn(changed)


def _show_errors(ended: Mapping[str, Any], *, told: bool) -> None:
    if told:
        return
    from app.cli.following import error_line

    for warning in ended["warnings"]:
        sys.stderr.write(f"Note: {warning}\n")
    for error in ended["errors"]:
        sys.stderr.write(f"  {error_line(error)}\n")


def _warn(answer: Mapping[str, Any]) -> None:
    for warning in answer.get("warnings") or ():
        sys.stderr.write(f"Note: {warning}\n")


def _more(found: list[Any], limit: int) -> None:
    if len(found) > limit:
        sys.stderr.write(f"There are more: --limit {10 * limit}\n")


def _last_run(found: list[dict[str, Any]], ingestion: Mapping[str, Any]) -> str:
    if not found:
        raise NotFoundError(
            f"{ingestion['name']} has not run yet.", remedy=f"autoloader ingestions run {ingestion['id']}"
        )
    return str(found[0]["id"])


def _row(one: Mapping[str, Any]) -> tuple[object, ...]:
    path = one["source"].get("path", "")
    return one["id"], one["name"], one["status"], _schedule(one["schedule"]), path, one["table"]


def _schedule(schedule: Mapping[str, Any] | None) -> str:
    if not schedule:
        return ""
    parts = (schedule.get(name) for name in ("frequency", "day_of_week", "time", "cron_expression", "timezone"))
    return " ".join(str(part) for part in parts if part not in (None, "custom"))


def _flat(value: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """The fields of a document by their paths."""
    found: list[tuple[str, Any]] = []
    for name, inner in value.items():
        found += _flat(inner, f"{above}{name}.") if isinstance(inner, Mapping) else [(f"{above}{name}", inner)]
    return found


def _run_row(one: Mapping[str, Any]) -> tuple[object, ...]:
    files = one["files"]
    counts = (files["loaded"], files["failed"], one["rows"]["loaded"])
    why = next((error["category"] for error in one["errors"] if error["file"] is None), "")
    seconds = "" if one["duration_s"] is None else one["duration_s"]
    return one["id"], one["status"], one["trigger"], one["method"], one["created_at"], seconds, *counts, why


def _progress(done: int, of: int) -> None:
    end = "\n" if done >= of or not sys.stderr.isatty() else ""
    begin = "\r" if sys.stderr.isatty() else ""
    sys.stderr.write(f"{begin}{done} of {of}{end}")


def _show_migration(report: Mapping[str, Any]) -> None:
    would = "would be " if report["dry_run"] else ""
    lines = [f"Ingestions with a schedule: {report['scheduled']}; with a deployment already: {report['present']}."]
    for word in ("created", "updated"):
        lines += [f"  {would}{word}: {one}" for one in report[word]]
    lines += [f"  failed: {one}: {reason}" for one, reason in report["failed"].items()]
    counts = (len(report["created"]), len(report["updated"]), len(report["failed"]))
    lines.append("{} {would}created, {} {would}updated, {} failed.".format(*counts, would=would))
    if report["left"]:
        lines.append(f"{report['left']} are left: run this again.")
    sys.stdout.write("\n".join(lines) + "\n")
