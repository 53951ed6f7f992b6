"""The service's ingestions and their encrypted credentials."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Row,
    Select,
    Text,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.exc import IntegrityError

from app.domain.definition import hidden_credentials
from app.domain.errors import (
    DestinationFixedError,
    NameTakenError,
    NotFoundError,
    RunAtWorkError,
    TableTakenError,
    VersionMismatchError,
)
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.fixing import changed_fixed_fields
from app.domain.ingestions import Deployment, Ingestion, IngestionStatus, Schedule
from app.domain.live import EventKind
from app.domain.runs import RunStatus
from app.domain.service import IngestionQuery, NewIngestion, Sort
from app.domain.webhooks import WebhookState, webhooks_of
from app.persistence.keys import Keyring
from app.persistence.schema import batches, files, ingestions, run_logs, runs, secrets, tables
from app.persistence.sealing import Place, Sealed, rewrap, seal, unseal
from app.persistence.store import PAGE_ROWS, SqlStore
from app.persistence.telling import tell_ingestion
from app.persistence.webhooks import WebhookRows, forget, states

LOAD, SERVICE = "load", "service"
# A tombstone whose deployment is gone, kept because batches of it are in the table.
REMOVED = "removed"
_LOAD_NAME = literal("load into ").concat(tables.c.name)
_NAME = func.coalesce(ingestions.c.name, _LOAD_NAME).label("shown_name")
_CHANGED = func.coalesce(ingestions.c.updated_at, ingestions.c.created_at).label("changed_at")
_SORTS: dict[Sort, Any] = {Sort.NAME: _NAME, Sort.CREATED_AT: ingestions.c.created_at, Sort.UPDATED_AT: _CHANGED}
# What is wanted of an ingestion beside its status and its credentials.
_ASKED = ("name", "document", "table_id")
_NOT_OVER = (RunStatus.QUEUED.value, RunStatus.RUNNING.value)
# Batches of a generation that ended before they were settled may be in the table: nobody looked.
_LOADED = ("committed", "cleared")
_OPEN = ("open",)
_MAY_BE_IN_TABLE = (*_LOADED, *_OPEN)


class SqlIngestions(SqlStore):
    """Keeps the promises of `domain.service.Ingestions` and `KeptSecrets`."""

    def __init__(
        self,
        engine: Engine,
        *,
        keyring: Keyring,
        learn: Callable[[Iterable[str]], None],
        page_rows: int = PAGE_ROWS,
        failpoints: Failpoints = NO_FAILPOINTS,
    ) -> None:
        """Work on the database of `engine`; `learn` is told every secret that is read or written."""
        super().__init__(engine, page_rows=page_rows, failpoints=failpoints)
        self._keyring = keyring
        self._learn = learn
        self._webhooks = WebhookRows(keyring, learn)

    # --- ingestions -----------------------------------------------------------------------------------------------

    def add_ingestion(self, new: NewIngestion) -> Ingestion:
        """Keep it, its credentials encrypted."""
        now = datetime.now(UTC)
        with self._write() as connection:
            values = {
                "id": new.id,
                "table_id": self._table_id(connection, new.table, new.tenant),
                "kind": SERVICE,
                "next_batch": 1,
                "created_at": now,
                "updated_at": now,
                "tenant": new.tenant,
                "name": new.name,
                "status": new.status.value,
                "document": json.dumps(dict(new.document)),
            }
            _or_name_taken(connection, insert(ingestions).values(values), new.name)
            self._put_credentials(connection, new.id, new.credentials)
            self._webhooks.put(connection, new.id, webhooks_of(new.document), new.webhook_secrets)
            made = _one(connection, new.id)
            tell_ingestion(connection, made, EventKind.INGESTION_CREATED)
            return made

    def ingestion(self, ingestion_id: str, tenant: str | None = None, *, deleted: bool = False) -> Ingestion | None:
        """The ingestion, where the tenant has it."""
        statement = _select().where(ingestions.c.id == ingestion_id)
        if tenant is not None:
            statement = statement.where(ingestions.c.tenant == tenant)
        if not deleted:
            statement = statement.where(ingestions.c.deleted_at.is_(None))
        with self._read() as connection:
            return next(iter(_told(connection, statement)), None)

    def list_ingestions(self, query: IngestionQuery) -> list[Ingestion]:
        """A page of them."""
        key = _SORTS[query.sort]
        statement = _select().where(ingestions.c.tenant == query.tenant, ingestions.c.deleted_at.is_(None))
        if query.status is not None:
            statement = statement.where(ingestions.c.status == query.status.value)
        if query.source_type is not None:
            statement = statement.where(self._source_type() == query.source_type)
        if query.q:
            statement = statement.where(func.lower(_NAME).contains(query.q.lower(), autoescape=True))
        if query.after is not None:
            value, last_id = query.after
            position = tuple_(key, ingestions.c.id)
            last_key = literal(value) if query.sort is Sort.NAME else literal(_time(value), key.type)
            last = tuple_(last_key, literal(last_id))
            statement = statement.where(position < last if query.descending else position > last)
        order = [key.desc(), ingestions.c.id.desc()] if query.descending else [key, ingestions.c.id]
        with self._read() as connection:
            return _told(connection, statement.order_by(*order).limit(query.limit + 1))

    def _source_type(self) -> ColumnElement[str]:
        if self._engine.dialect.name == "sqlite":
            return func.json_extract(ingestions.c.document, "$.source.type", type_=Text)
        found: ColumnElement[str] = ingestions.c.document.cast(JSON)["source"]["type"].as_string()
        return found

    def change_ingestion(
        self,
        changed: Ingestion,
        credentials: Mapping[str, str] | None,
        version: int,
        *,
        webhook_secrets: Mapping[str, str | None] | None = None,
    ) -> Ingestion:
        """Keep what is wanted of it now."""
        with self._write() as connection:
            row = _locked(connection, changed.id)
            if row is None or row.deleted_at is not None or row.version != version:
                raise VersionMismatchError
            table_id = self._table_id(connection, changed.table, row.tenant)
            _refuse_fixed(connection, row, changed)
            values = {
                "name": changed.name,
                "status": changed.status.value,
                "document": json.dumps(dict(changed.document)),
                "table_id": table_id,
                "version": version + 1,
                "updated_at": datetime.now(UTC),
            }
            this = ingestions.c.id == changed.id
            _or_name_taken(connection, update(ingestions).where(this).values(values), changed.name)
            if credentials is not None:
                connection.execute(delete(secrets).where(secrets.c.ingestion_id == changed.id))
                self._put_credentials(connection, changed.id, credentials)
            if webhook_secrets is not None:
                self._webhooks.put(connection, changed.id, webhooks_of(changed.document), webhook_secrets)
            made = _one(connection, changed.id)
            wants_more = credentials is not None or any(getattr(row, n) != values[n] for n in _ASKED)
            tell_ingestion(connection, made, *_kinds(row.status, made, wants_more=wants_more))
            return made

    def set_deployment(self, ingestion_id: str, deployment: Deployment | None) -> bool:
        """Note what the scheduler was given."""
        values = {
            "deployment_id": deployment.id if deployment else None,
            "deployment_fingerprint": deployment.fingerprint if deployment else None,
        }
        with self._write() as connection:
            row = _locked(connection, ingestion_id)
            if row is None:
                return False
            connection.execute(update(ingestions).where(ingestions.c.id == ingestion_id).values(values))
            if row.deleted_at is None and row.deployment_id != values["deployment_id"]:
                made = _one(connection, ingestion_id)
                tell_ingestion(connection, made, EventKind.INGESTION_UPDATED)
            return True

    def set_discovered(self, ingestion_id: str, stored_bytes: int) -> None:
        """Note how many new bytes the last discovery found."""
        with self._write() as connection:
            connection.execute(
                update(ingestions).where(ingestions.c.id == ingestion_id).values(discovered_bytes=stored_bytes)
            )

    def bury_ingestion(self, ingestion_id: str, versions: Collection[int] | None) -> Ingestion:
        """Make it a tombstone, its credentials gone."""
        now = datetime.now(UTC)
        with self._write() as connection:
            row = _locked(connection, ingestion_id)
            if row is None or row.deleted_at is not None:
                raise NotFoundError(f"There is no ingestion {ingestion_id}.")
            if versions is not None and row.version not in versions:
                raise VersionMismatchError
            _refuse_while_at_work(connection, ingestion_id)
            connection.execute(delete(secrets).where(secrets.c.ingestion_id == ingestion_id))
            forget(connection, ingestion_id)
            connection.execute(
                update(ingestions)
                .where(ingestions.c.id == ingestion_id)
                .values(deleted_at=now, updated_at=now, version=row.version + 1)
            )
            buried = _one(connection, ingestion_id)
            tell_ingestion(connection, buried, EventKind.INGESTION_DELETED)
            return buried

    def remove_ingestion(self, ingestion_id: str) -> None:
        """Forget a tombstone; the fact that its batches are ours stays."""
        this = (ingestions.c.id == ingestion_id) & ingestions.c.deleted_at.is_not(None)
        with self._write() as connection:
            if connection.execute(select(ingestions.c.id).where(this).with_for_update()).first() is None:
                return
            mine = select(runs.c.id).where(runs.c.ingestion_id == ingestion_id)
            connection.execute(delete(run_logs).where(run_logs.c.run_id.in_(mine)))
            connection.execute(delete(runs).where(runs.c.ingestion_id == ingestion_id))
            if _has_batches(connection, ingestion_id):
                values = {"kind": REMOVED, "deployment_id": None, "deployment_fingerprint": None}
                connection.execute(update(ingestions).where(this).values(values))
            else:
                connection.execute(delete(ingestions).where(this))

    def ingestions_to_schedule(self) -> list[Ingestion]:
        """Every one that the scheduler may have to know or to forget."""
        wanted = or_(
            ingestions.c.deployment_id.is_not(None),
            ingestions.c.deleted_at.is_not(None),
            ingestions.c.document.contains('"schedule"'),
        )
        statement = _select().where(ingestions.c.kind == SERVICE, wanted).order_by(ingestions.c.created_at)
        with self._read() as connection:
            found = _told(connection, statement)
        return [one for one in found if one.schedule or one.deployment or one.deleted_at]

    def other_ingestions(self, ingestion_id: str) -> list[Ingestion]:
        """Those that have the same table."""
        table = select(ingestions.c.table_id).where(ingestions.c.id == ingestion_id).scalar_subquery()
        others = (ingestions.c.table_id == table) & (ingestions.c.id != ingestion_id)
        with self._read() as connection:
            return _told(connection, _select().where(others, ingestions.c.deleted_at.is_(None)))

    def _table_id(self, connection: Connection, name: str, tenant: str) -> int:
        """The tenant's record of the table, made when missing; kept from being forgotten until the transaction ends.

        Raises:
            TableTakenError: It is another tenant's.
        """
        values = {"name": name, "generation": 1, "sequence_number": 0, "created_at": datetime.now(UTC)}
        statement = self._insert(tables).values(**values, tenant=tenant)
        connection.execute(statement.on_conflict_do_nothing(index_elements=["name"]))
        # There are catalogs to which names in other letters are the same.
        alike = func.lower(tables.c.name) == func.lower(literal(name))
        # Whoever takes a table over waits for this transaction, and this one for him.
        rows = connection.execute(
            select(tables.c.id, tables.c.name, tables.c.tenant).where(alike).with_for_update(read=True, key_share=True)
        ).all()
        for row in rows:
            if row.tenant != tenant:
                self._take_over(connection, row.id, name, tenant)
        return next(int(row.id) for row in rows if row.name == name)

    @staticmethod
    def _take_over(connection: Connection, table_id: int, name: str, tenant: str) -> None:
        """Make another tenant's table this one's, when nobody uses it and nobody did."""
        connection.execute(select(tables.c.id).where(tables.c.id == table_id).with_for_update())
        for used in (
            select(batches.c.number).where(batches.c.table_id == table_id),
            select(files.c.key).where(files.c.table_id == table_id),
            select(ingestions.c.id).where(
                ingestions.c.table_id == table_id, ingestions.c.deleted_at.is_(None), ingestions.c.tenant != tenant
            ),
        ):
            if connection.execute(used.limit(1)).first() is not None:
                raise TableTakenError(f"The table {name} cannot be used: it is not this tenant's.")
        connection.execute(update(tables).where(tables.c.id == table_id).values(tenant=tenant))

    # --- credentials ----------------------------------------------------------------------------------------------

    def credentials(self, ingestion_id: str) -> dict[str, str]:
        """What is kept for it, decrypted."""
        with self._read() as connection:
            row = connection.execute(select(secrets).where(secrets.c.ingestion_id == ingestion_id)).first()
        if row is None:
            return {}
        sealed = Sealed(row.ciphertext, row.nonce, row.wrapped_key, row.key_id)
        found = unseal(self._keyring, Place(ingestion_id), sealed)
        self._learn(hidden_credentials(found))
        return found

    def _put_credentials(self, connection: Connection, ingestion_id: str, credentials: Mapping[str, str]) -> None:
        if not credentials:
            return
        self._learn(hidden_credentials(credentials))
        sealed = seal(self._keyring, Place(ingestion_id), credentials)
        values = {
            "ingestion_id": ingestion_id,
            "names": json.dumps(sorted(credentials)),
            "ciphertext": sealed.ciphertext,
            "nonce": sealed.nonce,
            "wrapped_key": sealed.wrapped_key,
            "key_id": sealed.key_id,
        }
        connection.execute(insert(secrets).values(values))

    def rewrap_secrets(self) -> int:
        """Wrap every row's key under the present master key."""
        self._keyring.begin_rotation()
        done = 0
        while True:
            present = self._keyring.current().id
            with self._write() as connection:
                row = connection.execute(
                    select(secrets).where(secrets.c.key_id != present).limit(1).with_for_update()
                ).first()
                if row is None and not self._webhooks.rewrap_one(connection, present):
                    # Inside the transaction: no other one writes under the old key after this, where keys are files.
                    self._keyring.end_rotation()
                    return done
                if row is not None:
                    wrapped, key_id = rewrap(self._keyring, Place(row.ingestion_id), row.wrapped_key, row.key_id)
                    connection.execute(
                        update(secrets)
                        .where(secrets.c.ingestion_id == row.ingestion_id)
                        .values(wrapped_key=wrapped, key_id=key_id)
                    )
            done += 1


def _select() -> Select[Any]:
    loaded = exists(
        select(batches.c.number).where(batches.c.ingestion_id == ingestions.c.id, batches.c.state.in_(_MAY_BE_IN_TABLE))
    )
    return (
        select(
            ingestions,
            _NAME,
            _CHANGED,
            tables.c.name.label("table_name"),
            secrets.c.names,
            loaded.label("has_loaded"),
        )
        .join(tables, tables.c.id == ingestions.c.table_id)
        .outerjoin(secrets, secrets.c.ingestion_id == ingestions.c.id)
        .where(ingestions.c.kind.in_((LOAD, SERVICE)))
    )


def _one(connection: Connection, ingestion_id: str) -> Ingestion:
    return _told(connection, _select().where(ingestions.c.id == ingestion_id))[0]


def _told(connection: Connection, statement: Select[Any]) -> list[Ingestion]:
    """The rows of `_select` as nouns."""
    rows = connection.execute(statement).all()
    with_webhooks = [row.id for row in rows if '"webhooks"' in (row.document or "")]
    known = states(connection, with_webhooks)
    return [_ingestion(row, known.get(row.id, ())) for row in rows]


def _locked(connection: Connection, ingestion_id: str) -> Row[Any] | None:
    this = (ingestions.c.id == ingestion_id) & (ingestions.c.kind == SERVICE)
    return connection.execute(select(ingestions).where(this).with_for_update()).first()


def _kinds(status_before: str, now: Ingestion, *, wants_more: bool) -> list[EventKind]:
    """What a change is told as: its status by a word of its own, all else as an update."""
    kinds = []
    if wants_more or status_before == now.status.value:
        kinds.append(EventKind.INGESTION_UPDATED)
    if status_before != now.status.value:
        is_paused = now.status is IngestionStatus.PAUSED
        kinds.append(EventKind.INGESTION_PAUSED if is_paused else EventKind.INGESTION_RESUMED)
    return kinds


def _has_batches(connection: Connection, ingestion_id: str, states: Iterable[str] | None = None) -> bool:
    """Whether rows of batches refer to the ingestion, whatever became of them; in one of the states, where given."""
    statement = select(batches.c.number).where(batches.c.ingestion_id == ingestion_id).limit(1)
    if states is not None:
        statement = statement.where(batches.c.state.in_(states))
    return connection.execute(statement).first() is not None


def _refuse_fixed(connection: Connection, row: Row[Any], changed: Ingestion) -> None:
    """Refuse a change of what only counts when the table is made, once that is made or may be.

    Raises:
        RunAtWorkError: A run is queued or at work.
        DestinationFixedError: A batch is in the table, or may come to be.
    """
    table = connection.execute(select(tables.c.name).where(tables.c.id == row.table_id)).scalar_one()
    document = json.loads(row.document or "{}")
    fields = changed_fixed_fields(table, document, wanted_table=changed.table, wanted=changed.document)
    if not fields:
        return
    # First: a run that is at work may claim or commit at any moment, by the definition of before.
    _refuse_while_at_work(connection, row.id)
    named = ", ".join(fields)
    if _has_batches(connection, row.id, _LOADED):
        raise DestinationFixedError(f"The ingestion has loaded, which fixes {named}.")
    if _has_batches(connection, row.id, _OPEN):
        raise DestinationFixedError(
            f"A batch of an earlier run is still open in {table}, and the next run settles it there; until then "
            f"{named} cannot change.",
            remedy="Run the ingestion; if nothing of that batch was loaded, the change can be made afterwards.",
        )


def _refuse_while_at_work(connection: Connection, ingestion_id: str) -> None:
    statement = select(runs.c.id).where(runs.c.ingestion_id == ingestion_id, runs.c.status.in_(_NOT_OVER))
    at_work = connection.execute(statement).scalar()
    if at_work is not None:
        raise RunAtWorkError(f"Run {at_work} of this ingestion is queued or at work.", run_id=at_work)


def _or_name_taken(connection: Connection, statement: Any, name: str) -> None:  # noqa: ANN401 - an insert or update
    try:
        connection.execute(statement)
    except IntegrityError as error:
        raise NameTakenError(f"There is an ingestion {name!r} already.") from error


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _ingestion(row: Row[Any], webhook_states: tuple[WebhookState, ...]) -> Ingestion:
    """A row as a noun."""
    document = json.loads(row.document or "{}")
    schedule = document.get("schedule")
    has_deployment = row.deployment_id is not None
    return Ingestion(
        id=row.id,
        tenant=row.tenant,
        name=row.shown_name,
        status=IngestionStatus(row.status),
        table=row.table_name,
        document=document,
        schedule=Schedule(**schedule) if schedule else None,
        credential_names=tuple(json.loads(row.names or "[]")),
        webhook_states=webhook_states,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at or row.created_at,
        deployment=Deployment(row.deployment_id, row.deployment_fingerprint or "") if has_deployment else None,
        discovered_bytes=row.discovered_bytes,
        deleted_at=row.deleted_at,
        has_loaded=row.has_loaded,
        is_load=row.kind == LOAD,
    )
