"""Sends what is in an outbox until it is killed: `python -m tests.support.webhook_process URL FOLDER`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from app.domain.redaction import Redactor
from app.persistence.keys import Keyring
from app.persistence.leases import this_process
from app.persistence.service import open_service_store
from app.services.host_addresses import Resolver
from app.services.webhook_exchange import WebhookExchange
from app.services.webhook_sender import SenderSettings, WebhookSender

SECRET_KEY = "of the tests"


async def send(url: str, folder: Path) -> None:
    store = open_service_store(url, Keyring(SECRET_KEY, None, folder), Redactor().learn)
    exchange = WebhookExchange(lambda _host, _port, addresses: addresses, Resolver())
    sender = WebhookSender(store, store, this_process(), exchange, SenderSettings(look_s=0.05))
    await sender.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(send(sys.argv[1], Path(sys.argv[2])))
