"""`curfew board`: the operator's web page."""

from __future__ import annotations

from typing import Annotated

import typer

from agents.cli.output import note
from streams.settings import Settings
from streams.telemetry import configure_logging

PORT = 8090

app = typer.Typer()


@app.command()
def board(
    host: Annotated[str, typer.Option(help="Address to listen on. Other than loopback it needs board_token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = PORT,
    name: Annotated[
        list[str] | None, typer.Option(help="A name under which the board is reached, e.g. of a proxy; repeatable.")
    ] = None,
) -> None:
    """Serve the board: the next midnights, who is in danger and why, dead letters, groups, subscriptions.

    Reading needs no login on a loopback address. Acting (retry, resolve, redrive) needs the token of the setting
    board_token (CURFEW_BOARD_TOKEN) and is written to the audit trail; without a token the board is read-only. Every
    panel is JSON too: /panels/nights?format=json.

    Example: curfew board

    Example: CURFEW_BOARD_TOKEN=$(head -c 24 /dev/urandom | base64) curfew board --port 8091
    """
    from agents.board.server import build, listen, serve

    settings = Settings()
    configure_logging(settings, app="board")
    made = build(settings, host, tuple(name or ()))
    listening = listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    note(f"board on http://{shown}:{port}" + ("" if settings.board_token else ", read-only: board_token is not set"))
    serve(made, listening)
