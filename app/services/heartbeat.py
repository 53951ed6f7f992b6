"""Keeps a lease alive while a run works, and says at once when it is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.domain.errors import AutoloaderError, LeaseLostError
from app.domain.ledger import Leases
from app.domain.runs import Lease

log = structlog.get_logger(__name__)

# A lease is renewed so many times before it would run out, so that one slow database call loses nothing.
RENEWALS = 4


class Heartbeat:
    """Renews one lease from a thread of its own."""

    def __init__(self, leases: Leases, lease: Lease, seconds: float) -> None:
        self._leases = leases
        self._lease = lease
        self._seconds = seconds
        self._stopped = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self._stopped.wait(self._seconds / RENEWALS):
            try:
                if not self._leases.renew(self._lease, self._seconds):
                    self._lost.set()
                    return
            except AutoloaderError as error:
                # The database may be back before the lease runs out; whoever commits asks it again anyway.
                log.warning("lease_not_renewed", run_id=self._lease.run_id, reason=str(error))

    def assert_alive(self) -> None:
        """Ask the database whether the lease is ours.

        Raises:
            LeaseLostError: It is not.
        """
        if self._lost.is_set() or not self._leases.is_alive(self._lease):
            self._lost.set()
            raise LeaseLostError

    @contextmanager
    def beating(self) -> Iterator[Heartbeat]:
        """Renew until the block ends."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._thread.join()
