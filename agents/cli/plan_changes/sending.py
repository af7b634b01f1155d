"""Sends a plan change request and, if wanted, waits for its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from agents.cli.output import Exit, TableOrJson, note, show
from agents.cli.plan_changes.options import utc_or_none
from agents.plan_changes.reasons import in_words
from agents.plan_changes.requests import exchange

if TYPE_CHECKING:
    from streams.core.plan_change.messages import Reply, Request


def send(request: Request, wait: bool, timeout: float, style: TableOrJson) -> None:
    """Produce the request; with ``wait`` print the reply."""
    from streams.codec import Codec, Registry
    from streams.settings import Settings

    settings = Settings()
    reply = exchange(settings, Codec(Registry(settings.schema_registry_url)), request, timeout if wait else None)
    if not wait:
        show([{"request_id": request.request_id, "service_id": request.service_id}], style, columns=("request_id",))
        return
    if reply is None:
        note(f"no reply within {timeout:g} s: is `curfew up` running? Ask again with --request-id {request.request_id}")
        raise typer.Exit(Exit.FAILURE)
    show([_reply_row(reply)], style, columns=("accepted", "state", "reasons", "revision", "start_at", "deadline_at"))
    if style is TableOrJson.TABLE:
        for line in in_words(reply.reasons, reply.state):
            typer.echo(line)
    if not reply.accepted:
        raise typer.Exit(Exit.FAILURE)


def _reply_row(reply: Reply) -> dict[str, Any]:
    return {
        "request_id": reply.request_id,
        "service_id": reply.service_id,
        "change_id": reply.change_id,
        "revision": reply.revision,
        "accepted": reply.accepted,
        "state": reply.state,
        "reasons": list(reply.reasons),
        "start_at": utc_or_none(reply.start_at),
        "deadline_at": utc_or_none(reply.deadline_at),
    }
