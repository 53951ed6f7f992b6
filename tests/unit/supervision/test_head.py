"""The head's orders, and what it says at its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.domain.errors import ChildFailedError, OutputError
from app.domain.redaction import Redactor
from app.supervision.head import Orders, _from_json, _tell, _to_json
from app.supervision.tree import TreePlan
from tests.support.command import ROOT

SECRET = "a-secret-of-many-letters"


def orders(home: Path, document: dict[str, object] | None = None) -> Orders:
    plan = TreePlan("127.0.0.1", 8000, 4200, "http://127.0.0.1:4200/api", "pool", home, "mark", prefect_user="u:p")
    # The system's own encoding of what is no UTF-8.
    environ = {"PATH": "/bin", "ODD": "\udcff\u00e4"}
    return Orders(plan, "It is ready.", document, environ, {**environ, "KEY": SECRET}, (SECRET,))


@pytest.mark.parametrize("document", [None, {"status": "ready"}])
def test_orders_arrive_as_they_were_given(tmp_path: Path, document: dict[str, object] | None) -> None:
    given = orders(tmp_path, document)
    assert _from_json(_to_json(given)) == given


def test_what_it_was_given_is_in_no_list_of_processes_and_no_text_of_it(tmp_path: Path) -> None:
    assert SECRET not in repr(orders(tmp_path))
    assert "u:p" not in repr(orders(tmp_path))


def test_its_errors_are_those_of_any_command(capsys: pytest.CaptureFixture[str]) -> None:
    error = ChildFailedError(f"The API cannot be started with {SECRET}.")
    _tell(error, Redactor([SECRET]), as_json=False)
    _tell(error, Redactor([SECRET]), as_json=True)
    # What could not be written there is not written there once more.
    _tell(OutputError("The answer could not be written."), Redactor(), as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "status": "failed",
        "code": "child_failed",
        "detail": "The API cannot be started with ***.",
        "remedy": error.advice or None,
    }
    assert err.startswith("Error (child_failed): The API cannot be started with ***.\n")
    assert "Error (output_failed): The answer could not be written.\n" in err


def test_it_is_small() -> None:
    """What the head imports it has for as long as the service lives."""
    code = "import sys, app.supervision.head; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not {"pydantic", "typer", "rich", "asyncio", "sqlalchemy", "prefect"} & set(done.stdout.split())
