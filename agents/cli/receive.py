"""`curfew receive`: a small receiver of webhooks on this machine."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agents.delivery.receiver import HOST, Behaviour, Received, Receiver, serve, to_file
from streams.core.errors import Misconfigured
from streams.settings import Settings
from streams.sinks.secrets import DEFAULT_ALLOWED, SecretError, Secrets

app = typer.Typer()


@app.command()
def receive(
    secret_ref: Annotated[
        list[str], typer.Option(help="Reference of the secret, env:NAME or file:PATH; again for a second one.")
    ],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on loopback; 0 takes a free one.")] = 0,
    port_file: Annotated[Path | None, typer.Option(help="Write the port to this file once it listens.")] = None,
    log_file: Annotated[Path | None, typer.Option(help="Append every request as a line of JSON to this file.")] = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Print lines of JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing for a request.")] = False,
    fail_status: Annotated[int | None, typer.Option(help="Answer with this status.")] = None,
    fail_key: Annotated[str | None, typer.Option(help="Fail only for this account (or subject).")] = None,
    fail_first: Annotated[int, typer.Option(help="Fail only the first so many requests of a webhook-id.")] = 0,
    retry_after: Annotated[str | None, typer.Option(help="Send this Retry-After with a failure.")] = None,
) -> None:
    r"""Receive webhooks on this machine, verify and print them, until Ctrl-C.

    It may look up secrets in variables CURFEW_SECRET_*; others, and files, are allowed by the setting webhook_secrets,
    as in CURFEW_WEBHOOK_SECRETS='\["file:/run/secrets/*"]'.

    Example: CURFEW_SECRET_CRM=whsec_… curfew receive --secret-ref env:CURFEW_SECRET_CRM --port 8085
    """
    secrets = Secrets(getattr(Settings(), "webhook_secrets", DEFAULT_ALLOWED))
    try:
        keys = [secrets.resolve(reference) for reference in secret_ref]
    except SecretError as error:
        raise Misconfigured(str(error)) from None
    behaviour = Behaviour(fail_status=fail_status, fail_key=fail_key, fail_first=fail_first, retry_after=retry_after)
    console = Console()
    with ExitStack() as opened:
        write = to_file(opened.enter_context(log_file.open("a"))) if log_file is not None else None

        def on_received(received: Received) -> None:
            if write is not None:
                write(received)
            if json_lines:
                print(received.line(), flush=True)
            elif not quiet:
                console.print(_pretty(received))

        receiver = Receiver(keys=keys, behaviour=behaviour, on_received=on_received)
        asyncio.run(serve(receiver, port, port_file, lambda actual: _announce(console, actual, json_lines)))


def _announce(console: Console, port: int, json_lines: bool) -> None:
    if not json_lines:
        console.print(f"listening on [cyan]http://{HOST}:{port}/[/], Ctrl-C ends it")


def _pretty(received: Received) -> str:
    mark = "[green]verified[/]" if received.verified else "[red]not verified[/]"
    colour = "green" if received.status < 300 else "yellow"
    return (
        f"{received.at:%H:%M:%S} {mark} [{colour}]{received.status}[/] attempt {received.attempt} "
        f"{received.type} {received.key} #{received.sequence} {received.webhook_id}"
    )
