"""Make the Prefect deployments that scheduled ingestions lack: `--dry-run` says which, `--execute` makes them.

It does what the service does by itself when Prefect is there, for those who want to watch it. It can be broken off and
begun again: it does what is left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from app.config import read_settings
from app.domain.errors import AutoloaderError
from app.services.migrating import MigrationReport
from app.telemetry import configure_logging
from app.wiring.service import build_orchestration, build_service


def main() -> int:
    """Exit status 0: every scheduled ingestion has its deployment, or would have; 1: not all, or Prefect is away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--dry-run", action="store_true", help="only say what would be done")
    which.add_argument("--execute", action="store_true", help="do it")
    arguments = parser.parse_args()
    try:
        report = asyncio.run(_migrate(dry_run=arguments.dry_run))
    except AutoloaderError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    _show(report)
    return 0 if report.is_whole else 1


async def _migrate(*, dry_run: bool) -> MigrationReport:
    service = build_service(read_settings(), os.environ, configure_logging(verbose=False))
    try:
        orchestration = build_orchestration(service, os.environ, lambda _up, _detail, _facts: None)
        if orchestration is None:
            raise AutoloaderError("PREFECT_API_URL is not set.", remedy="Set it to the address of the Prefect API.")
        # It keeps nobody else waiting.
        with orchestration.prefect.patiently():
            await orchestration.prefect.initialize()
            try:
                return await orchestration.migration.migrate(
                    None, dry_run=dry_run, within_s=None, on_progress=_show_progress
                )
            finally:
                await orchestration.prefect.close()
    finally:
        service.close()


def _show_progress(done: int, of: int) -> None:
    print(f"\r{done} of {of}", end="" if done < of else "\n", file=sys.stderr, flush=True)


def _show(report: MigrationReport) -> None:
    would = "would be " if report.dry_run else ""
    print(f"{report.scheduled} ingestions have a schedule, {report.present} have a deployment already.")
    for word, ids in (("created", report.created), ("updated", report.updated)):
        for one in ids:
            print(f"  {would}{word}: {one}")
    for one, reason in report.failed.items():
        print(f"  failed: {one}: {reason}")
    print(f"{len(report.created)} {would}created, {len(report.updated)} {would}updated, {len(report.failed)} failed.")
    if report.left:
        print(f"{report.left} are left: run this again.")


if __name__ == "__main__":
    sys.exit(main())
