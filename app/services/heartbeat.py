"""Keeps a lease alive while a run works, and says at once when it is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import AutoloaderError, LeaseLostError
from app.domain.events import EventLog, in_context
from app.domain.failpoints import NO_FAILPOINTS, Failpoints
from app.domain.ledger import Leases
from app.domain.runs import Lease

log = EventLog(__name__)

# A lease is renewed so many times before it would run out, so that one slow database call loses nothing.
RENEWALS = 4


class Heartbeat:
    """Renews one lease from a thread of its own."""

    def __init__(self, leases: Leases, lease: Lease, seconds: float, *, failpoints: Failpoints = NO_FAILPOINTS) -> None:
        self._leases = leases
        self._lease = lease
        self._seconds = seconds
        self._failpoints = failpoints
        self._stopped = threading.Event()
        self._lost = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=in_context(self._beat), name="lease-heartbeat", daemon=True)

    def _beat(self) -> None:
        try:
            self._renew_until_stopped()
        except Exception as error:  # noqa: BLE001 - this is the thread's outermost frame
            # A run without a heartbeat must not end as if all were well.
            self._error = error

    def _renew_until_stopped(self) -> None:
        while not self._stopped.wait(self._seconds / RENEWALS):
            try:
                with self._failpoints.step("lease_renewed"):
                    renewed = self._leases.renew(self._lease, self._seconds)
                if not renewed:
                    self._lost.set()
                    return
            except AutoloaderError as error:
                # The database may be back before the lease runs out; whoever commits asks it again anyway.
                log.warning("lease_not_renewed", run_id=self._lease.run_id, reason=str(error))

    def assert_alive(self) -> None:
        """Ask the database whether the lease is ours.

        Raises:
            LeaseLostError: It is not.
            Exception: What ended the heartbeat, if that was nothing that it knows.
        """
        if self._error is not None:
            raise self._error
        if self._lost.is_set() or not self._leases.is_alive(self._lease):
            self._lost.set()
            raise LeaseLostError

    @contextmanager
    def beating(self) -> Iterator[Heartbeat]:
        """Renew until the block ends.

        Raises:
            Exception: What ended the heartbeat, if that was nothing that it knows.
        """
        self._thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._thread.join()
        if self._error is not None:
            raise self._error
