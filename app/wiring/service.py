"""The parts of one process of the service, and what keeps Prefect in view beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from app.config import Settings
from app.wiring.environment import child_environ, learn_secrets, worker_environ
from app.wiring.limits import reach_in_server_mode
from app.wiring.product import Product
from app.wiring.scheduling import prefect_service, retry_policy
from app.wiring.stores import keyring_of, require_server

if TYPE_CHECKING:
    from app.domain.ingestions import Scheduler
    from app.domain.redaction import Redactor
    from app.domain.service import RetryPolicy
    from app.persistence.service import SqlServiceStore
    from app.services.clearing import Fenced
    from app.services.direct_runs import DirectRunner
    from app.services.event_feed import EventFeed
    from app.services.ingestion_service import IngestionService
    from app.services.metrics import MetricsService
    from app.services.orchestration import Orchestration
    from app.services.webhook_sender import WebhookSender
    from app.services.webhook_service import WebhookService


class Service:
    """The parts of one process of the service, on one open database. `close` ends them."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        store: SqlServiceStore,
        scheduler: Scheduler | None,
        redactor: Redactor,
        *,
        quiet_runs: bool = False,
    ) -> None:
        from app.services.host_addresses import Resolver

        self.settings = settings
        # Told every secret that this process makes or is given.
        self.learn = redactor.learn
        # Takes what it was told out of a text.
        self.clean = redactor.text
        self.reach = reach_in_server_mode(settings, store)
        self.product = Product(settings, environ, self.reach, redactor.learn)
        self.store = store
        self.scheduler = scheduler
        self.runner = self._runner(environ, quiet=quiet_runs)
        self.resolver = Resolver()
        self.webhook_sender, self.webhooks = self._webhooks()
        self.ingestions = self._ingestions()
        self.events = self._events()

    def close(self) -> None:
        """Close catalogs and the database; the runner is closed in its own event loop before."""
        self.product.close()
        self.store.dispose()

    @property
    def retry(self) -> RetryPolicy:
        """How often and how late a run goes on."""
        return retry_policy(self.settings)

    def _runner(self, environ: Mapping[str, str], *, quiet: bool) -> DirectRunner:
        from app.services.direct_runs import ChildProcesses, DirectRunner, DirectSettings

        command = (sys.executable, "-m", "app", "run-order")
        starter = ChildProcesses(command, child_environ(self.settings, environ), quiet=quiet)
        return DirectRunner(self.store, starter, DirectSettings(self.settings.autoloader_direct_runs, self.retry))

    def _events(self) -> EventFeed:
        from app.services.event_feed import EventFeed

        return EventFeed(self.store)

    def metrics(self) -> MetricsService:
        """What is measured in this process, and by the database."""
        from app.services.metrics import MetricsService, PrefectReadings, ReaderReadings
        from app.services.prefect_service import PrefectService

        prefect, events = self.scheduler, self.events

        def of_prefect() -> PrefectReadings:
            assert isinstance(prefect, PrefectService)  # noqa: S101 - asked only where it is
            return PrefectReadings(prefect.initialized, prefect.is_silent, prefect.calls)

        return MetricsService(
            self.store,
            lambda: ReaderReadings(events.readers, events.dropped),
            of_prefect if isinstance(prefect, PrefectService) else None,
        )

    def _webhooks(self) -> tuple[WebhookSender, WebhookService]:
        from app.persistence.leases import this_process
        from app.services.webhook_exchange import WebhookExchange
        from app.services.webhook_sender import WebhookSender
        from app.services.webhook_service import WebhookService

        exchange = WebhookExchange(self._may_call, self.resolver, clean=self.clean)
        sender = WebhookSender(self.store, self.store, this_process(), exchange)
        return sender, WebhookService(self.store, exchange, sender.nudge)

    def _may_call(self, host: str, port: int, addresses: Sequence[str]) -> Sequence[str]:
        """Those of a host's addresses that receivers of webhooks may have.

        Without tokens only this machine's own user names them, and he reaches everything that the service does.
        """
        reach = self.reach()
        return addresses if reach is None else reach.hosts.reachable(host, port, addresses)

    def _ingestions(self) -> IngestionService:
        from app.services.ingestion_service import IngestionService, ServiceSettings
        from app.services.webhook_service import ReceiverLooks

        settings = self.settings
        return IngestionService(
            self.store,
            self.runner,
            _Dropper(self.product),
            ServiceSettings(
                default_catalog=settings.autoloader_default_catalog,
                home=str(settings.home),
                direct_wait_s=settings.autoloader_direct_run_wait_s,
                retry=self.retry,
                catalogs=self.product.catalogs,
                check_source=self._check_source,
            ),
            self.scheduler,
            looks=ReceiverLooks(self._may_call, self.resolver),
        )

    def _check_source(self, path: str, credentials: Mapping[str, str]) -> None:
        from app.domain.errors import SourceUnreachableError
        from app.sources.factory import check_reach

        reach = self.reach()
        if reach is not None:
            # A name that cannot be resolved now may be when it is needed; it is checked then.
            with suppress(SourceUnreachableError):
                check_reach(path, credentials, reach)


class _Dropper:
    """Drops and fences tables, whatever catalog they are in."""

    def __init__(self, product: Product) -> None:
        self._product = product

    def drop(self, table: str) -> bool:
        """Drop it; False where there is none."""
        name = self._product.table_name(table)
        return self._product.catalog(name.catalog).drop(name)

    def fence(self, table: str) -> Fenced:
        """Shut out the runs that sleep with a batch for it in hand."""
        return self._product.fence(self._product.table_name(table))


def build_service(
    settings: Settings,
    environ: Mapping[str, str],
    redactor: Redactor,
    scheduler: Scheduler | None = None,
    *,
    quiet_runs: bool = False,
) -> Service:
    """The service for one process; the database is opened, and made or upgraded where it is SQLite.

    Args:
        settings: What `read_settings` read.
        environ: The process's environment; children are given it too.
        redactor: Told every secret that is read.
        scheduler: Gives ingestions their time; None: scheduling is off.
        quiet_runs: Whether nobody reads what the processes of direct runs write.

    Raises:
        AutoloaderError: The database cannot be used, or on PostgreSQL SECRET_KEY is not set.
    """
    require_server()
    from app.persistence.service import open_service_store

    learn_secrets(settings, environ, redactor)
    keys = keyring_of(settings)
    keys.require()
    store = open_service_store(settings.ledger_url, keys, redactor.learn)
    if scheduler is None and settings.prefect_api_url:
        scheduler = prefect_service(settings, store)
    return Service(settings, environ, store, scheduler, redactor, quiet_runs=quiet_runs)


def build_orchestration(
    service: Service, environ: Mapping[str, str], tell: Callable[[bool, str, Mapping[str, Any]], None]
) -> Orchestration | None:
    """What keeps Prefect in view beside the API; None where scheduling is off.

    Args:
        service: The service that `build_service` made.
        environ: The process's environment; the worker is given it too.
        tell: Told with every beat: whether Prefect is there and schedules, what is wrong, and more of it.
    """
    from app.persistence.leases import this_process
    from app.services.migrating import Migration
    from app.services.orchestration import Orchestration
    from app.services.prefect_beat import PrefectBeat
    from app.services.prefect_hints import PrefectCallback, PrefectHints, PrefectStream
    from app.services.prefect_service import PrefectService
    from app.services.prefect_worker import WorkerChild
    from app.services.reconciler import PassReport, Reconciler
    from app.services.reconciling import grace_s

    settings, prefect = service.settings, service.scheduler
    if not isinstance(prefect, PrefectService):
        return None
    reconciler = Reconciler(service.store, prefect, service.retry, grace_s=grace_s(settings.autoloader_lease_s))
    worker = None
    if settings.autoloader_worker == "auto":
        worker = WorkerChild(prefect, prefect.settings.pool, worker_environ(settings, environ))
    beat = PrefectBeat(
        prefect,
        reconciler,
        service.store,
        this_process(),
        tell=tell,
        ensure_worker=None if worker is None else worker.ensure,
        ensure_callback=PrefectCallback(prefect, service.store, settings.autoloader_public_url, service.learn).ensure,
    )
    hints = PrefectHints(service.store, reconciler.look_at, lambda: reconciler.settle_runs(PassReport()))
    stream = PrefectStream(prefect.flow_run_events, lambda: prefect.initialized, hints.tell)
    return Orchestration(prefect, beat, Migration(reconciler), worker, hints, stream)
