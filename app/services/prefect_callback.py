"""What makes Prefect call us: a block with our address and a token, and an automation that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

BLOCK_TYPE = "webhook"
BEARER = "Bearer "
# After these there may be something to do for us.
STATES = ("Cancelled", "Cancelling", "Completed", "Crashed", "Failed")
PAYLOAD = '{"flow_run_id": "{{ event.resource.id }}", "event": "{{ event.event }}"}'


@dataclass(frozen=True)
class Callback:
    """How Prefect is to call us.

    Args:
        url: Whom it calls.
        token: What it says to be let in; it must not be logged.
    """

    url: str
    token: str


async def read_callback(client: PrefectClient, name: str) -> Callback | None:
    """How Prefect calls us now; None where it does not, or only half of it is there."""
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415 - takes more than a second

    try:
        block = await client.read_block_document_by_name(name, BLOCK_TYPE)
    except ObjectNotFound:
        return None
    automations = [one for one in await client.read_automations_by_name(name) if one.enabled]
    uses = [getattr(action, "block_document_id", None) for one in automations for action in one.actions]
    headers = block.data.get("headers") or {}
    authorization = str(headers.get("Authorization", ""))
    if block.id not in uses or not authorization.startswith(BEARER):
        return None
    return Callback(str(block.data.get("url", "")), authorization.removeprefix(BEARER))


async def write_callback(client: PrefectClient, name: str, tag: str, callback: Callback) -> None:
    """Have Prefect call us about flow runs with that tag, and in no other way under that name."""
    from prefect.client.schemas.actions import BlockDocumentCreate, BlockDocumentUpdate  # noqa: PLC0415
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    data = {
        "url": callback.url,
        "headers": {"Authorization": f"{BEARER}{callback.token}", "Content-Type": "application/json"},
    }
    try:
        block = await client.read_block_document_by_name(name, BLOCK_TYPE)
        await client.update_block_document(block.id, BlockDocumentUpdate(data=data, merge_existing_data=False))
    except ObjectNotFound:
        kind = await client.read_block_type_by_slug(BLOCK_TYPE)
        schema = await client.get_most_recent_block_schema_for_block_type(kind.id)
        if schema is None:
            raise
        new = BlockDocumentCreate(name=name, data=data, block_type_id=kind.id, block_schema_id=schema.id)
        block = await client.create_block_document(new)
    for old in await client.read_automations_by_name(name):
        await client.delete_automation(old.id)
    await client.create_automation(_automation(name, tag, block.id))


async def remove_callback(client: PrefectClient, name: str) -> None:
    """Have Prefect call us no more. Again: no change."""
    from prefect.exceptions import ObjectNotFound  # noqa: PLC0415

    for old in await client.read_automations_by_name(name):
        await client.delete_automation(old.id)
    try:
        block = await client.read_block_document_by_name(name, BLOCK_TYPE, include_secrets=False)
    except ObjectNotFound:
        return
    await client.delete_block_document(block.id)


def _automation(name: str, tag: str, block_id: Any) -> Any:  # noqa: ANN401 - classes of a library imported late
    from prefect.events.actions import CallWebhook  # noqa: PLC0415
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture  # noqa: PLC0415

    trigger = EventTrigger.model_validate(
        {
            "expect": {f"prefect.flow-run.{state}" for state in STATES},
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"},
            "for_each": {"prefect.resource.id"},
            "posture": Posture.Reactive,
            "threshold": 1,
            "within": 0,
        }
    )
    return AutomationCore(
        name=name,
        description="Made by Autoloader: tells it of its flow runs. Changes made here are undone.",
        enabled=True,
        trigger=trigger,
        actions=[CallWebhook(block_document_id=block_id, payload=PAYLOAD)],
    )
