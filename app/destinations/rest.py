"""pyiceberg's REST catalog with an end to its patience: by itself it waits for an answer for ever."""

from __future__ import annotations

from functools import partial

from pyiceberg.catalog.rest import RestCatalog
from requests import Session

CONNECT_TIMEOUT_S = 10.0


class PatientRestCatalog(RestCatalog):
    """Gives up on a server that says nothing for a time. What was sent may still be applied then."""

    def __init__(self, name: str, timeout_s: float, **properties: str) -> None:
        """Ask the server for its configuration, as pyiceberg does.

        Args:
            name: The catalog's.
            timeout_s: Seconds that the server may be silent.
            properties: In pyiceberg's words.
        """
        self._timeout_s = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        super().__init__(name, **properties)

    def _config_headers(self, session: Session) -> None:
        # The first thing that is done with a new session: the request for a token comes right after it.
        super()._config_headers(session)
        session.request = partial(session.request, timeout=self._timeout_s)  # type: ignore[method-assign]
