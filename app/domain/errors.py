"""One tree of errors, sorted by what to do next: try again, change something, or leave one file out.

The docstring of a class is its default message, `code` is stable, `remedy` is a sentence a person can follow.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar


class Category(enum.StrEnum):
    """Why a file failed. The values are part of the contract."""

    DATA_MALFORMED = "data_malformed"
    SCHEMA_MISMATCH = "schema_mismatch"
    AUTH = "auth"
    CONNECTIVITY = "connectivity"
    WRITE_FAILURE = "write_failure"
    PATH_NOT_FOUND = "path_not_found"
    BUCKET_NOT_FOUND = "bucket_not_found"
    FORMAT_OPTIONS_INVALID = "format_options_invalid"
    SCHEMA_INFERENCE_FAILURE = "schema_inference_failure"
    LIMIT_EXCEEDED = "limit_exceeded"
    UNKNOWN = "unknown"

    @property
    def retryable(self) -> bool:
        """Whether the same file may load at a later try although nobody changed anything."""
        return self in _RETRYABLE


_RETRYABLE = {Category.CONNECTIVITY, Category.WRITE_FAILURE, Category.PATH_NOT_FOUND, Category.UNKNOWN}


class AutoloaderError(Exception):
    """The work could not be done."""

    code: ClassVar[str] = "error"
    remedy: ClassVar[str] = ""

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        """Keep `message` (default: the class's docstring) and what a person may do about it."""
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.advice = remedy or self.remedy
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".strip()


class StoppedByUser(BaseException):
    """A person (or the system on a person's behalf) asked the process to end.

    `report` is what the run had done by then, where one was at work.
    """

    def __init__(self, signal_number: int = 15, report: object | None = None) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
        self.report = report


class RunCancelled(StoppedByUser):
    """Somebody asked for this one run to end."""


class RunTimedOut(StoppedByUser):
    """The run's time is over."""


class RunTooLarge(StoppedByUser):
    """The run found more to load than is to be loaded where it is: it goes on elsewhere."""


class RunGivenBack(StoppedByUser):
    """The worker ends: another one goes on with the run."""


# --- try again: nothing has to change --------------------------------------------------------------------------


class RetriableError(AutoloaderError):
    """The work could not be done now; the next run tries again."""

    code = "retriable"


class SourceUnreachableError(RetriableError):
    """The source does not answer."""

    code = "connectivity"
    remedy = "Check the network and the endpoint, then run again; nothing was written."


class TooManyReadersError(RetriableError):
    """As many read the events as this process takes."""

    code = "too_many_readers"
    remedy = "Close streams that nobody looks at, then ask again with the id of the last event."


class CatalogUnreachableError(RetriableError):
    """The catalog does not answer."""

    code = "catalog_unreachable"
    remedy = "Check that the catalog runs and that its URI is right, then run again."


class RunInProgressError(RetriableError):
    """Another run of this ingestion is at work."""

    code = "run_in_progress"
    remedy = "Wait for it, or give a longer --wait."

    def __init__(self, message: str = "", *, run_id: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.run_id = run_id


class LeaseLostError(RetriableError):
    """This run lost its lease to another one and stopped; the other one goes on with its work."""

    code = "lease_lost"


class FencedError(LeaseLostError):
    """A later run has taken this batch over; this run wrote nothing more."""

    code = "fenced"


class TableConflictError(RetriableError):
    """The table was changed by somebody else while this batch was being loaded; the batch is loaded again."""

    code = "table_conflict"


class AlreadyCommittedError(RetriableError):
    """The batch is in the table already."""

    code = "already_committed"


class CommitUnknownError(RetriableError):
    """The catalog did not say whether it applied the commit."""

    code = "commit_unknown"
    remedy = "Run again: the next run looks the batch up in the table before it does anything else."


class WriteFailureError(RetriableError):
    """Data could not be written."""

    code = "write_failure"
    remedy = "Check space and permissions at the table's location, then run again; the table was not changed."


class LedgerBusyError(RetriableError):
    """The ledger's database is locked by another process."""

    code = "ledger_busy"
    remedy = "Run again when the other process is done."


class LedgerUnreachableError(RetriableError):
    """The server of the ledger's database does not answer."""

    code = "ledger_unreachable"
    remedy = (
        "Check that the database server runs and that DATABASE_URL leads to it, then run again: "
        "what was committed stays, and the next run settles what was begun."
    )


class LedgerWriteError(RetriableError):
    """The ledger's database could not be written."""

    code = "ledger_write_failure"
    remedy = (
        "Check the space on its disk, and the disk itself, then run again: "
        "what was committed stays, and the next run settles what was begun."
    )


class EngineDiedError(RetriableError):
    """The engine's process died."""

    code = "engine_died"
    remedy = "Run again: what was not committed is loaded then."


class RunDiedError(RetriableError):
    """The process that carried the run out ended before the run did."""

    code = "run_died"
    remedy = "What was committed stays; the run goes on by itself, or the next one settles what was begun."


class SchedulerUnavailableError(RetriableError):
    """The scheduler does not answer."""

    code = "scheduler_unavailable"
    remedy = "Check that the Prefect server runs and that PREFECT_API_URL leads to it."


class ServerUnreachableError(RetriableError):
    """The server does not answer."""

    code = "server_unreachable"
    remedy = "Check that it runs, and that --server or AUTOLOADER_SERVER leads to it."


class DeploymentGoneError(SchedulerUnavailableError):
    """The scheduler does not know the deployment any more."""

    code = "deployment_gone"
    remedy = "Nothing has to be done: within a minute it is made again."


# --- fatal: a person must change something ----------------------------------------------------------------------


class FatalError(AutoloaderError):
    """The work cannot be done until a person changes something."""

    code = "fatal"


class UsageError(FatalError):
    """The request cannot be understood."""

    code = "usage"


class InvalidFieldError(UsageError):
    """A field of the definition has a value that is not allowed."""

    code = "invalid_field"

    def __init__(self, message: str = "", *, remedy: str = "", field: str = "") -> None:
        """Say what is wrong with `field`, a path such as `schedule.time`; empty where it is not one field."""
        super().__init__(message, remedy=remedy)
        self.field = field


class NotSupportedError(UsageError):
    """This field or value is known but cannot be used yet."""

    code = "not_supported"

    def __init__(self, message: str = "", *, remedy: str = "", field: str = "") -> None:
        """Say what of `field`, a path such as `format.type`, is not built; empty where it is not one field."""
        super().__init__(message, remedy=remedy)
        self.field = field


class TokensRequiredError(UsageError):
    """Without tokens the service listens to this machine alone."""

    code = "tokens_required"


class MixedFormatsError(UsageError):
    """The source mixes formats."""

    code = "mixed_formats"


class SourceNotFoundError(FatalError):
    """The source does not exist."""

    code = "path_not_found"
    remedy = "Check the spelling of the path."


class NoMatchError(FatalError):
    """The source holds no file that matches."""

    code = "no_match"
    remedy = "Check the path and the pattern; names that begin with '.' or '_' only match when the pattern names them."


class BucketNotFoundError(FatalError):
    """The bucket does not exist."""

    code = "bucket_not_found"
    remedy = "Check the spelling of the bucket and the endpoint."


class SourceAuthError(FatalError):
    """The source refuses our credentials."""

    code = "auth"
    remedy = "Check the key, and that it may list and read the bucket."


class SourceContainsWarehouseError(FatalError):
    """The source contains the warehouse: its own output would be loaded as input."""

    code = "source_contains_warehouse"
    remedy = "Set AUTOLOADER_HOME (or AUTOLOADER_WAREHOUSE) to a folder outside the source."


class SourceNotAllowedError(FatalError):
    """The source is not one that this service may read."""

    code = "source_not_allowed"
    remedy = "Ask whoever runs the service: AUTOLOADER_LOCAL_ROOTS and AUTOLOADER_ALLOWED_HOSTS say what it may read."


class SchemaInferenceError(FatalError):
    """No schema could be inferred from the files."""

    code = "schema_inference_failure"


class CatalogNotConfiguredError(FatalError):
    """The catalog is not configured."""

    code = "catalog_not_configured"
    remedy = (
        "Configure it in .pyiceberg.yaml or by PYICEBERG_CATALOG__<NAME>__URI; `autoloader catalogs` lists what is."
    )


class CatalogAuthError(FatalError):
    """The catalog refuses our credentials."""

    code = "catalog_auth"
    remedy = "Check the catalog's credential or token."


class CatalogRefusedError(FatalError):
    """The catalog refused the request."""

    code = "catalog_refused"
    remedy = "Check what the catalog allows; nothing was written."


class TableNotFoundError(FatalError):
    """The table does not exist."""

    code = "table_not_found"
    remedy = "Check its name; `autoloader load SOURCE --to NAME` makes it."


class TableUnreadableError(FatalError):
    """The table's metadata cannot be read."""

    code = "table_unreadable"
    remedy = "Restore its metadata, or drop the table in the catalog; nothing was written."


class TableUnsuitableError(FatalError):
    """The table cannot be written by this version."""

    code = "table_unsuitable"
    remedy = "Load into another table; nothing was written."


class TableReplacedError(FatalError):
    """The table is not the one that the ledger knows."""

    code = "table_replaced"
    remedy = "If this is meant, `autoloader ledger clear TABLE --yes` begins anew: the next run loads every file again."


class TableRolledBackError(FatalError):
    """The table was rolled back to before our last commit."""

    code = "table_rolled_back"
    remedy = (
        "Roll it forward again, or `autoloader ledger clear TABLE --yes` to begin anew: "
        "the next run loads every file again, so empty the table first."
    )


class LedgerBehindTableError(FatalError):
    """The table holds batches that the ledger does not know; loading now could load rows twice."""

    code = "ledger_behind_table"
    remedy = (
        "Use the database that loaded this table (check AUTOLOADER_HOME and DATABASE_URL), or load into another table."
    )


class LedgerUnreadableError(FatalError):
    """The ledger's database cannot be read; nothing was started, so that nothing is loaded twice."""

    code = "ledger_unreadable"
    remedy = (
        "Check DATABASE_URL, the file's permissions and the space on its disk, or stop what uses it, remove it with "
        "`-wal` and `-shm` beside it, and restore it from a backup."
    )


class LedgerVersionError(FatalError):
    """The ledger's database has another schema version than this program."""

    code = "ledger_version"


class InvalidQueryError(FatalError):
    """The query cannot be run."""

    code = "invalid_query"
    remedy = "Correct it: one SELECT on the table of the command."


class OutputError(FatalError):
    """The answer could not be written to standard output."""

    code = "output_failed"
    remedy = "Check where the output goes, then ask again; what the command did stays done."


class ConfirmationNeededError(UsageError):
    """This needs a confirmation."""

    code = "confirmation_needed"


class NotFoundError(FatalError):
    """There is nothing of that id."""

    code = "not_found"
    remedy = "Check the id."


class NoFlowRunError(NotFoundError):
    """The run has no flow run: it was carried out directly."""

    code = "no_flow_run"
    remedy = "Look at the run itself."


class ConflictError(FatalError):
    """The request does not go with how things stand now."""

    code = "conflict"


class NameTakenError(ConflictError):
    """Another ingestion has that name."""

    code = "name_taken"
    remedy = "Choose another name, or change the ingestion that has it."


class DestinationFixedError(ConflictError):
    """The ingestion has loaded: its destination is fixed."""

    code = "destination_fixed"
    remedy = "Leave it as it was, or make another ingestion."


class RunAtWorkError(ConflictError):
    """A run of this ingestion is at work, or waits to be."""

    code = "run_in_progress"
    remedy = "Wait for it, or cancel it."

    def __init__(self, message: str = "", *, run_id: str = "", remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.run_id = run_id


class NotActiveError(ConflictError):
    """The ingestion is not active."""

    code = "not_active"
    remedy = "Resume it first."


class NothingToRetryError(ConflictError):
    """There is nothing that failed."""

    code = "nothing_to_retry"
    remedy = "Run the ingestion: it loads what is new."


class WebhookOffError(ConflictError):
    """The webhook is disabled, or is no longer there."""

    code = "webhook_off"
    remedy = "Send the ingestion's webhooks again: that enables them."


class RunOverError(ConflictError):
    """The run is over."""

    code = "run_over"
    remedy = "Begin another one."


class SchedulingOffError(ConflictError):
    """PREFECT_API_URL is not set, so that scheduling is off."""

    code = "scheduling_off"
    remedy = "Set it to the address of the API of a Prefect server."


class LoadIngestionError(ConflictError):
    """This ingestion is the command line's: it has no definition that the service could change or run."""

    code = "load_ingestion"
    remedy = "Make an ingestion of the same source and table; files that were loaded stay known."


class TableTakenError(ConflictError):
    """The table cannot be used by this tenant."""

    code = "table_taken"
    remedy = "Choose another table, or ask whoever runs the service."


class SharedTableError(ConflictError):
    """Another ingestion writes the table too."""

    code = "table_shared"
    remedy = "Delete the other ingestion first, or leave the table as it is."


class VersionMismatchError(ConflictError):
    """The ingestion was changed by somebody else meanwhile."""

    code = "version_mismatch"
    remedy = "Read it again, and send the change with its present ETag."


class KeyReusedError(ConflictError):
    """The idempotency key was used for another request."""

    code = "idempotency_key_reused"
    remedy = "Use a new key for a new request."


class KeyAtWorkError(ConflictError):
    """The first request with this idempotency key is still at work."""

    code = "idempotency_key_at_work"
    remedy = "Ask again in a moment."


class ClusterUnknownError(FatalError):
    """The cluster is not registered."""

    code = "cluster_unknown"
    remedy = "Set cluster_id to local."


class WrongDatabaseError(FatalError):
    """The database does not know the ingestion."""

    code = "wrong_database"
    remedy = "Give the worker the DATABASE_URL and AUTOLOADER_HOME of the service."


class SecretKeyError(FatalError):
    """The key that credentials are kept under is missing or is another one."""

    code = "secret_key"
    remedy = "Set SECRET_KEY to the key that they were stored under, or send the credentials again."


class TimedOutError(FatalError):
    """The run took longer than it may."""

    code = "timed_out"
    remedy = (
        "What was committed stays, the next run goes on from there. PREFECT_FLOW_RUN_TIMEOUT_SECONDS says how long."
    )


class PortTakenError(FatalError):
    """A port that is to be listened on is taken."""

    code = "port_taken"


class AlreadyUpError(FatalError):
    """Another `autoloader up` is at work in this folder."""

    code = "already_up"


class HomeUnwritableError(FatalError):
    """The folder AUTOLOADER_HOME cannot be written."""

    code = "home_unwritable"
    remedy = "Check its permissions, or set AUTOLOADER_HOME to another folder."


class ChildFailedError(FatalError):
    """A process of the service cannot be started."""

    code = "child_failed"
    remedy = "What it said stands in the log above."


class PrefectVersionError(FatalError):
    """The Prefect server is of a version that this program does not work with."""

    code = "prefect_version"


class PrefectUnusableError(FatalError):
    """What answers at PREFECT_API_URL is not Prefect's API, or refuses our key."""

    code = "prefect_unusable"


class ServerNotUnderstoodError(FatalError):
    """What answers is no Autoloader."""

    code = "server_not_understood"
    remedy = "Check that --server or AUTOLOADER_SERVER is the address of the service, such as http://localhost:8000."


class MemoryLimitError(FatalError):
    """The run needed more memory than it may have and was ended."""

    code = "memory_limit"
    remedy = (
        "What was committed stays, the next run goes on from there. Raise AUTOLOADER_RUN_MEMORY_GB, "
        "or lower AUTOLOADER_BATCH_BYTES."
    )


class ForkServerError(FatalError):
    """The process that a worker forks runs from does not come up."""

    code = "worker_cannot_fork"
    remedy = "What it wrote last says why. Correct that and start the worker again; no run was begun."


class InternalError(FatalError):
    """The program met something that it did not expect."""

    code = "internal"
    remedy = "This is a defect of the program: please report it with what `--verbose` prints."


# --- one file's -------------------------------------------------------------------------------------------------


class FileError(AutoloaderError):
    """One file cannot be loaded; the others can."""

    code = "file"

    def __init__(self, category: Category, message: str, *, line: int | None = None, offset: int | None = None) -> None:
        """Say why.

        Args:
            category: What kind of failure it is.
            message: One or two sentences that an analyst understands.
            line: Number of the line, from 1, where the record that fails begins.
            offset: Byte offset, from 0, in the decompressed file, where there are no lines or none could be told.
        """
        super().__init__(message)
        self.category = category
        self.line = line
        self.offset = offset


@dataclass(frozen=True)
class FileFailure:
    """A file that was left out of its batch, and why."""

    key: str
    version: str
    category: Category
    message: str
    line: int | None = None
    offset: int | None = None

    @property
    def retryable(self) -> bool:
        """Whether the next runs try the file again by themselves."""
        return self.category.retryable

    @classmethod
    def of(cls, key: str, version: str, error: FileError) -> FileFailure:
        """The failure that `error` describes, of this version of this file."""
        return cls(key, version, error.category, error.message, error.line, error.offset)
