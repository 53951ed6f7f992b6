"""What is said of Prefect's answers."""

from __future__ import annotations

import json
from base64 import b64encode

import httpx
import pytest

from app.services.prefect_connection import _of_status

PASSWORD = "hidden\"value' of it"


@pytest.mark.parametrize("beginning", [0, 100, 180, 195])
@pytest.mark.parametrize("kind", ["Basic", "Bearer"])
def test_a_server_that_tells_what_it_was_sent_is_quoted_without_it(kind: str, beginning: int) -> None:
    key = b64encode(f"me:{PASSWORD}".encode()).decode() if kind == "Basic" else PASSWORD
    request = httpx.Request("GET", "http://prefect/api/hello", headers={"authorization": f"{kind} {key}"})
    told = json.dumps({"detail": "." * beginning + f"{PASSWORD} {key} {kind} {key}"})
    response = httpx.Response(400, text=told, request=request)
    said = str(_of_status(httpx.HTTPStatusError("", request=request, response=response)))
    assert said.startswith("Prefect answered 400: ")
    for part in ("hidden", "value", key[:12]):
        assert part not in said
