"""Whatever the OpenAPI document allows, and what it does not, is answered as it says: no 500, no status it lacks."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from app.api.operations import OPERATIONS
from tests.contract.api_rigs import MemoryRig, Rig

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    unsupported_method,
]
# A definition that is generated may name any store in the world: sources are looked into by tests of their own.
OUTSIDE = {"preview_ingestion", "estimate_cost"}
# Nothing in them can be wrong in a way that the generator knows; `BAD` in `test_api.py` has what can be in bodies.
UNSPOILT = {"get_ingestion", "get_run", "health", "live", "metrics", "ready", "update_ingestion", *OUTSIDE}
# It goes on for ever: here it is asked for what there is. `test_event_stream.py` has the rest.
ENDLESS = {"stream_events"}
EXAMPLES = settings(
    max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("api", ["memory", "database"], indirect=True)
@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - OUTSIDE))
def test_what_the_document_allows_is_answered_as_it_says(api: Rig, name: str) -> None:
    check(api, name, GenerationMode.POSITIVE)


@pytest.mark.parametrize("name", sorted(OUTSIDE))
def test_so_with_definitions_that_are_looked_into(memory: MemoryRig, name: str) -> None:
    memory.clear()
    check(memory, name, GenerationMode.POSITIVE)


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - UNSPOILT))
def test_what_it_does_not_allow_is_refused(memory: MemoryRig, name: str) -> None:
    memory.clear()
    check(memory, name, GenerationMode.NEGATIVE)


def check(api: Rig, name: str, mode: GenerationMode) -> None:
    """Send requests that are generated from the document, and hold the answers against it."""
    schema = schemathesis.openapi.from_url(f"{api.client.base_url}/openapi.json", timeout=120)
    operation = schema.find_operation_by_id(name)
    known = _known(api)

    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=mode), at_known=booleans())
    def send(case: Any, *, at_known: bool) -> None:
        if name in ENDLESS:
            case.query = {**case.query, "timeout_s": 0}
        if at_known and case.path_parameters:
            case.path_parameters |= {key: known[key] for key in case.path_parameters if key in known}
        case.call_and_validate(checks=CHECKS, timeout=120)

    send()


def _known(api: Rig) -> dict[str, Any]:
    """Ids of an ingestion, which is a draft so that nothing runs."""
    found = api.client.get("/api/v1/ingestions?q=fuzzed").json()["items"]
    if found:
        return {"ingestion_id": found[0]["id"]}
    document = {
        "name": "fuzzed",
        "status": "draft",
        "source": {"path": "s3://b/p/"},
        "destination": {"database": "d", "table": "t"},
    }
    answer = api.client.post("/api/v1/ingestions", json=document)
    return {"ingestion_id": answer.json()["id"]} if answer.status_code == 201 else {}
