"""What OpenAPI says of each operation beyond its types: examples, and the ways in which it can be refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

INGESTION_ID = "0190a5c4b1de7c3e8f21d0a9c6b3e7f4"
RUN_ID = "0190a5d07e3a7b12a4c5f8e1d2b3a495"
FLOW_RUN_ID = "3f6c1c0e-8a58-4f0e-9d5b-0f6f3a9a2b7d"
DELIVERY_ID = "0190a5d0a1b24c3d8e4f5a6b7c8d9e0f"
DEPLOYMENT_ID = "b0c8f2a4-1a7e-4c39-8f55-6f0f7a1f2f10"
_AT = "2026-11-25T10:00:00Z"

DEFINITION: Mapping[str, Any] = {
    "name": "Test Hourly Ingestion",
    "cluster_id": "local",
    "source": {
        "type": "s3",
        "path": "s3://test-bucket/data/",
        "file_pattern": "*.json",
        "credentials": {
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_region": "us-east-1",
        },
    },
    "format": {"type": "json", "schema": {"inference": "auto", "evolution_enabled": True}},
    "destination": {"catalog": "local", "database": "default", "table": "test_table", "write_mode": "append"},
    "schedule": {"frequency": "hourly", "timezone": "UTC"},
    "webhooks": [
        {
            "name": "on call",
            "url": "https://example.com/hooks/autoloader",
            "events": ["run.failed"],
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        }
    ],
}
_SOURCE = {"type": "s3", "path": "s3://test-bucket/data/", "file_pattern": "*.json"}
_INGESTION: Mapping[str, Any] = {
    "id": INGESTION_ID,
    "name": "Test Hourly Ingestion",
    "status": "active",
    "cluster_id": "local",
    "source": _SOURCE,
    "format": DEFINITION["format"],
    "destination": DEFINITION["destination"],
    "schedule": DEFINITION["schedule"],
    "webhooks": [{"name": "on call", "url": "https://example.com/hooks/autoloader", "events": ["run.failed"]}],
    "webhook_states": [{"webhook": "on call", "signed": True, "disabled_at": None, "disabled_reason": None}],
    "table": "local.default.test_table",
    "credential_names": ["aws_access_key_id", "aws_region", "aws_secret_access_key"],
    "prefect_deployment_id": DEPLOYMENT_ID,
    "pending_schema_change": None,
    "version": 1,
    "created_at": _AT,
    "updated_at": _AT,
    "warnings": [],
}
_RUN: Mapping[str, Any] = {
    "id": RUN_ID,
    "run_id": RUN_ID,
    "ingestion_id": INGESTION_ID,
    "status": "partial",
    "trigger": "manual",
    "method": "direct",
    "table": "local.default.test_table",
    "snapshot_id": 5731871256412836917,
    "files": {"loaded": 2, "failed": 1, "skipped": 0, "known": 3},
    "new_versions": {"replaced": 0, "appended": 0},
    "rows": {"loaded": 2000, "rescued": 0, "quarantined": 0, "dropped": 0},
    "bytes": 240000,
    "progress": None,
    "duration_s": 1.25,
    "warnings": [],
    "errors": [
        {
            "file": "s3://test-bucket/data/batch_7.json",
            "category": "data_malformed",
            "line": 12,
            "message": "Line 12 is no JSON: a bracket is never closed.",
            "retryable": False,
        }
    ],
    "created_at": _AT,
    "started_at": _AT,
    "ended_at": "2026-11-25T10:00:01.250000Z",
    "retry_of": None,
    "flow_run_id": None,
    "attempts": 1,
    "next_attempt_at": None,
}
_QUEUED = {
    **_RUN,
    "status": "queued",
    "trigger": "retry",
    "retry_of": RUN_ID,
    "id": "0190a5d2c4f57d90b8a1e6c3f0d2b7a8",
    "run_id": "0190a5d2c4f57d90b8a1e6c3f0d2b7a8",
    "snapshot_id": None,
    "files": {"loaded": 0, "failed": 0, "skipped": 0, "known": 0},
    "rows": {"loaded": 0, "rescued": 0, "quarantined": 0, "dropped": 0},
    "bytes": 0,
    "duration_s": None,
    "errors": [],
    "started_at": None,
    "ended_at": None,
    "attempts": 0,
}
_FILE = {
    "path": "s3://test-bucket/data/batch_0.json",
    "version": '"9b2cf535f27731c974343645a3985328"',
    "state": "success",
    "bytes": 120000,
    "rows": 1000,
    "run_id": RUN_ID,
    "tries": 1,
}
_FAILED = {
    **_FILE,
    "path": "s3://test-bucket/data/batch_7.json",
    "state": "failed",
    "rows": None,
    "category": "data_malformed",
    "message": "Line 12 is no JSON: a bracket is never closed.",
    "line": 12,
    "retryable": False,
    "next_try_at": None,
}
_DELIVERY = {
    "id": DELIVERY_ID,
    "ingestion_id": INGESTION_ID,
    "webhook": "on call",
    "event": "run.partial",
    "run_id": RUN_ID,
    "state": "pending",
    "attempts": 2,
    "created_at": "2026-11-25T10:00:01.250000Z",
    "last_attempt_at": "2026-11-25T10:00:06Z",
    "next_attempt_at": "2026-11-25T10:00:14Z",
    "delivered_at": None,
    "last_status": 503,
    "error": "The receiver answered 503 Service Unavailable.",
    "payload": {
        "type": "run.partial",
        "timestamp": "2026-11-25T10:00:01.250000Z",
        "data": {
            "ingestion": {"id": INGESTION_ID, "name": "Test Hourly Ingestion"},
            "run": {
                "id": RUN_ID,
                "status": "partial",
                "trigger": "manual",
                "method": "direct",
                "table": "local.default.test_table",
                "snapshot_id": 5731871256412836917,
                "files": {"loaded": 2, "failed": 1, "skipped": 0, "known": 3},
                "rows": {"loaded": 2000},
                "bytes": 240000,
                "duration_s": 1.25,
                "errors": [
                    {
                        "file": "s3://test-bucket/data/batch_7.json",
                        "category": "data_malformed",
                        "line": 12,
                        "message": "Line 12 is no JSON: a bracket is never closed.",
                        "retryable": False,
                    }
                ],
                "created_at": _AT,
                "started_at": _AT,
                "ended_at": "2026-11-25T10:00:01.250000Z",
                "attempts": 1,
                "retry_of": None,
            },
            "link": f"/api/v1/ingestions/{INGESTION_ID}/runs/{RUN_ID}",
        },
    },
}
_PREVIEW = {
    "source_type": "s3",
    "format": "json",
    "files": 3,
    "bytes": 360000,
    "complete": True,
    "row_estimate": 3000,
    "schema": [
        {"name": "id", "type": "long", "samples": [0, 1, 2]},
        {"name": "timestamp", "type": "timestamp", "samples": ["2026-11-25T10:00:00"]},
    ],
    "rows": [{"id": 0, "timestamp": "2026-11-25T10:00:00"}],
    "warnings": [],
}
_COST = {
    "currency": "USD",
    "files": 3,
    "bytes": 360000,
    "new_bytes_per_month": 10957500,
    "runs_per_month": 730.5,
    "compute": {"first_load": 0.000561, "per_run": 0.000556, "per_month": 0.405858},
    "storage": {"per_month": 0.000008},
    "discovery": {"per_run": 0.000005, "per_month": 0.003652},
    "total_per_month": 0.409518,
    "assumptions": ["730.5 runs a month, as the schedule has them."],
    "warnings": [],
}


_EVENTS = (
    "retry: 2000\n\n"
    f'id: 41\nevent: run.running\ndata: {{"at": "{_AT}", "run_id": "{RUN_ID}", "status": "running"}}\n\n'
    f'id: 42\nevent: run.success\ndata: {{"at": "{_AT}", "run_id": "{RUN_ID}", "status": "success"}}\n\n'
    ":\nid: 42\n\n"
)
_METRICS = (
    "# HELP autoloader_runs_total Runs that ended, by status.\n"
    "# TYPE autoloader_runs_total counter\n"
    'autoloader_runs_total{status="success"} 12.0\n'
)


@dataclass(frozen=True)
class Operation:
    """One operation.

    Args:
        answers: Status → an example of its body; None where there is none.
        problems: Statuses of its problem documents, beyond those of every operation.
        body: An example of its request.
        schema: The name of the schema of its request.
        headers: Names of headers that its first answer has.
        media: The type of its answers.
    """

    answers: Mapping[int, Any]
    problems: tuple[int, ...] = ()
    body: Any = None
    schema: str | None = None
    headers: tuple[str, ...] = ()
    body_required: bool = True
    media: str = "application/json"


OPERATIONS: Mapping[str, Operation] = {
    "create_ingestion": Operation({201: _INGESTION}, (409,), DEFINITION, "Definition", ("ETag", "Location")),
    "list_ingestions": Operation({200: {"items": [_INGESTION], "next": None}}),
    "get_ingestion": Operation({200: _INGESTION}, (404,), headers=("ETag",)),
    "update_ingestion": Operation(
        {200: {**_INGESTION, "schedule": {"frequency": "daily", "time": "14:30", "timezone": "UTC"}, "version": 2}},
        (404, 409, 412),
        {"schedule": {"frequency": "daily", "time": "14:30", "timezone": "UTC"}},
        "Changes",
        ("ETag",),
    ),
    "delete_ingestion": Operation({204: None}, (404, 409, 412)),
    "pause_ingestion": Operation({200: {"status": "paused"}}, (404, 409, 412), headers=("ETag",)),
    "resume_ingestion": Operation({200: {"status": "active"}}, (404, 409, 412), headers=("ETag",)),
    "run_ingestion": Operation(
        {
            202: {
                "status": "triggered",
                "method": "prefect",
                "run_id": RUN_ID,
                "flow_run_id": FLOW_RUN_ID,
                "message": "Ingestion run triggered via Prefect",
            },
            200: {
                "status": "completed",
                "method": "direct",
                "run_id": RUN_ID,
                "message": "Ingestion run completed via direct execution",
            },
        },
        (404, 409),
        headers=("Location",),
    ),
    "list_runs": Operation({200: {"items": [_RUN], "next": None}}, (404,)),
    "get_run": Operation({200: _RUN}, (404,)),
    "run_logs": Operation(
        {
            200: {
                "items": [
                    {"number": 1, "at": _AT, "level": "info", "message": "run_begins attempt=1"},
                    {"number": 2, "at": _AT, "level": "info", "message": "batch_begins files=3 stored_bytes=360000"},
                ],
                "next": None,
                "left_out": 0,
            }
        },
        (404,),
    ),
    "prefect_details": Operation(
        {
            200: {
                "run_id": RUN_ID,
                "flow_run_id": FLOW_RUN_ID,
                "state": "COMPLETED",
                "state_name": "Completed",
                "message": f"Run {RUN_ID}: success, 2 files and 2000 rows loaded.",
                "start_time": _AT,
                "end_time": "2026-11-25T10:00:04Z",
                "total_run_time_s": 4.0,
                "logs": [{"at": _AT, "level": 20, "message": "Finished in state Completed()"}],
                "url": f"http://localhost:4200/runs/flow-run/{FLOW_RUN_ID}",
            }
        },
        (404, 409),
    ),
    "retry_run": Operation({202: _QUEUED}, (404, 409), headers=("Location",)),
    "cancel_run": Operation({202: {**_RUN, "status": "cancelled", "errors": []}}, (404, 409)),
    "list_files": Operation({200: {"items": [_FILE], "next": None}}, (404,)),
    "list_failed_files": Operation({200: {"items": [_FAILED], "next": None}}, (404,)),
    "retry_files": Operation(
        {202: _QUEUED},
        (404, 409),
        {"paths": ["s3://test-bucket/data/batch_7.json"]},
        "FilesToRetry",
        ("Location",),
        body_required=False,
    ),
    "clear_processed_files": Operation(
        {
            200: {
                "message": "Forgot 5 files. A new generation has begun: "
                "the next run loads every file of the source again.",
                "files_cleared": 5,
                "ingestion_id": INGESTION_ID,
            }
        },
        (404, 409),
        {"confirm": True},
        "Confirmation",
    ),
    "list_webhook_deliveries": Operation({200: {"items": [_DELIVERY], "next": None}}, (404,)),
    "test_webhook": Operation(
        {
            200: {
                "webhook": "on call",
                "delivery_id": DELIVERY_ID,
                "signed": True,
                "delivered": False,
                "status": 401,
                "error": "The receiver answered 401 Unauthorized.",
                "answer": "signature mismatch",
                "duration_s": 0.041,
            }
        },
        (404, 409),
        {"webhook": "on call"},
        "WebhookToTest",
        body_required=False,
    ),
    "redeliver_webhook": Operation(
        {202: {**_DELIVERY, "attempts": 0, "last_status": 503, "error": None}},
        (404, 409),
    ),
    "preview_ingestion": Operation({200: _PREVIEW}, (409,), DEFINITION, "Definition"),
    "estimate_cost": Operation({200: _COST}, (409,), DEFINITION, "Definition"),
    "migrate_to_prefect": Operation(
        {
            200: {
                "dry_run": False,
                "scheduled": 12,
                "present": 10,
                "created": [INGESTION_ID],
                "updated": [],
                "failed": {},
                "left": 1,
            }
        },
        body={"dry_run": False},
        schema="MigrationWish",
        body_required=False,
    ),
    "stream_events": Operation({200: _EVENTS}, (404,), media="text/event-stream"),
    "prefect_webhook": Operation(
        {202: {"status": "accepted"}},
        # Its token is not asked for at the door.
        (401, 403, 409),
        {"flow_run_id": f"prefect.flow-run.{FLOW_RUN_ID}", "event": "prefect.flow-run.Completed"},
        "PrefectHint",
    ),
    "metrics": Operation({200: _METRICS}, media="text/plain"),
    "health": Operation(
        {
            200: {
                "status": "healthy",
                "database": "connected",
                "prefect": "connected",
            },
            503: {
                "status": "unhealthy",
                "database": "disconnected",
                "prefect": "connected",
                "database_detail": "The server of the ledger's database does not answer.",
            },
        }
    ),
    "live": Operation({200: {"status": "alive"}}),
    "ready": Operation({200: {"status": "ready"}}),
}
