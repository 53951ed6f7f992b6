"""What role each operation needs. An operation that is not named here cannot be served."""

from __future__ import annotations

from collections.abc import Mapping

from app.domain.access import Role

# None: it is open to everybody, without a token.
ROLES: Mapping[str, Role | None] = {
    "create_ingestion": Role.OPERATOR,
    "list_ingestions": Role.VIEWER,
    "get_ingestion": Role.VIEWER,
    "update_ingestion": Role.OPERATOR,
    "delete_ingestion": Role.OPERATOR,
    "pause_ingestion": Role.OPERATOR,
    "resume_ingestion": Role.OPERATOR,
    "run_ingestion": Role.OPERATOR,
    "list_runs": Role.VIEWER,
    "get_run": Role.VIEWER,
    "run_logs": Role.VIEWER,
    "prefect_details": Role.VIEWER,
    "retry_run": Role.OPERATOR,
    "cancel_run": Role.OPERATOR,
    "list_files": Role.VIEWER,
    "list_failed_files": Role.VIEWER,
    "retry_files": Role.OPERATOR,
    "clear_processed_files": Role.OPERATOR,
    # They read what is in a source, with the service's own keys where none are sent.
    "preview_ingestion": Role.OPERATOR,
    "estimate_cost": Role.OPERATOR,
    "list_webhook_deliveries": Role.VIEWER,
    "redeliver_webhook": Role.OPERATOR,
    "test_webhook": Role.OPERATOR,
    "stream_events": Role.VIEWER,
    "migrate_to_prefect": Role.ADMIN,
    # Prefect has a token of its own for it, which is good for nothing else.
    "prefect_webhook": None,
    "health": Role.VIEWER,
    "metrics": Role.VIEWER,
    "live": None,
    "ready": None,
    # Not of the API itself.
    "openapi": Role.VIEWER,
    "docs": Role.VIEWER,
}


def role_of(operation: str) -> Role | None:
    """The least role that may ask for an operation; None: everybody may, without a token.

    Raises:
        LookupError: Nobody has said which.
    """
    if operation not in ROLES:
        raise LookupError(f"The operation {operation!r} has no role in app/api/roles.py.")
    return ROLES[operation]
