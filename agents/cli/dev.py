"""`curfew dev`: a local Kafka and schema registry for development."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from agents.embedded import DEFAULT_KAFKA_VERSION, StackAddress, StackConfig, StackError, daemon, faststart
from agents.embedded.download import say
from streams import dev_stack

app = typer.Typer(
    help="A local Kafka and schema registry: no Docker, no Java needed on the machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

FOLLOW_POLL_SECONDS = 0.2

P = ParamSpec("P")
R = TypeVar("R")


class Format(StrEnum):
    """How a result is printed."""

    table = "table"
    json = "json"


class Log(StrEnum):
    """Which log."""

    kafka = "kafka"
    registry = "registry"
    supervisor = "supervisor"


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where data, logs and state are. Default: [cyan]dev[/] below $CURFEW_DATA_DIR, else [cyan].curfew/dev[/].",
        show_default=False,
        file_okay=False,
    ),
]
KafkaVersion = Annotated[
    str,
    typer.Option(
        envvar="CURFEW_KAFKA_VERSION",
        help="Checksums of 4.3.0 and 3.9.2 are pinned; others are trusted on first use.",
    ),
]
Output = Annotated[Format, typer.Option("--format", "-f", help="How to print: table or json.")]


def _place(data_dir: Path | None) -> Path:
    return (data_dir or dev_stack.directory()).expanduser().absolute()


def _plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print a StackError and exit with 1: the person at the terminal needs the remedy, not the stack trace."""

    @wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except StackError as error:
            typer.echo(f"error: {error}", err=True)
        except OSError as error:  # a directory that may not be written, a full disk: the text names the path
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1)

    return wrapper


@app.command()
@_plain_errors
def start(
    data_dir: DataDir = None,
    kafka_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 9092 if it is free, else any.", show_default=False)
    ] = None,
    registry_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: 8081 if it is free, else any.", show_default=False)
    ] = None,
    kafka_version: KafkaVersion = DEFAULT_KAFKA_VERSION,
    registry: Annotated[bool, typer.Option("--registry/--no-registry", help="With the schema registry.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the data of this directory first.")] = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay in this terminal; Ctrl-C or SIGTERM stops it.")
    ] = False,
    output: Output = Format.table,
) -> None:
    """Start Kafka and the registry in the background and print their addresses.

    The first start downloads about 210 MB into the cache ($CURFEW_CACHE_DIR, else ~/.cache/curfew).

    Starting what already runs prints its addresses and exits with 0.

    Example: curfew dev start --fresh --kafka-version 3.9.2
    """
    config = StackConfig(
        data_dir=_place(data_dir),
        kafka_version=kafka_version,
        kafka_port=kafka_port,
        registry_port=registry_port,
        with_registry=registry,
        prefer_usual_ports=True,
        fresh=fresh,
    )
    if foreground:
        raise typer.Exit(daemon.supervise(config, say))
    address, new = daemon.start(config)
    if not new:
        typer.echo(f"already running at {address.bootstrap_servers} (process {address.pid})", err=True)
    _print_address("running", address, output)


@app.command()
@_plain_errors
def prepare(kafka_version: KafkaVersion = DEFAULT_KAFKA_VERSION) -> None:
    """Download all that a start needs, and make caches for a faster start.

    Every later start is a second or two shorter. Takes half a minute and 170 MB of disk. Not needed to start; for
    the build of an image, or before a journey.

    Example: curfew dev prepare
    """
    for path in faststart.prepare(kafka_version, say):
        typer.echo(str(path))


@app.command()
@_plain_errors
def stop(data_dir: DataDir = None) -> None:
    """Stop Kafka and the registry; the data stays.

    Example: curfew dev stop
    """
    directory = _place(data_dir)
    if daemon.stop(directory, StackConfig(data_dir=directory).stop_grace_seconds):
        typer.echo("stopped")
    else:
        typer.echo(f"not running: {directory}")


@app.command()
@_plain_errors
def status(data_dir: DataDir = None, output: Output = Format.table) -> None:
    """Ask Kafka and the registry whether they answer; exits with 1 unless both do.

    Example: curfew dev status -f json | jq -r .bootstrap_servers
    """
    found = daemon.status(_place(data_dir))
    if found.address is not None:
        _print_address(found.health, found.address, output)
    elif output is Format.json:
        typer.echo(json.dumps({"health": found.health, "detail": found.detail}))
    else:
        typer.echo(f"{found.health}: {found.detail}\nstart it with: curfew dev start")
    if found.detail and found.address is not None:
        typer.echo(found.detail, err=True)
    raise typer.Exit(0 if found.health == "running" else 1)


@app.command()
@_plain_errors
def logs(
    which: Annotated[Log, typer.Argument(help="Whose log.")] = Log.kafka,
    data_dir: DataDir = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on printing what is added; Ctrl-C ends it.")] = False,
) -> None:
    """Print the end of a log.

    Example: curfew dev logs registry -n 100 --follow
    """
    path = _place(data_dir) / f"{which}.log"
    if not path.is_file():
        raise StackError("There is no such log yet.", where=str(path), remedy="start the stack with `curfew dev start`")
    text = path.read_text("utf-8", errors="replace")
    typer.echo("".join(f"{line}\n" for line in text.splitlines()[-lines:] if lines), nl=False)
    if follow:
        _follow(path, len(text.encode("utf-8", errors="replace")))


def _follow(path: Path, offset: int) -> None:
    """Print what is added, also after a restart has begun a new file of the same name."""
    inode = path.stat().st_ino
    while True:
        if path.is_file() and path.stat().st_ino != inode:
            inode, offset = path.stat().st_ino, 0
        if path.is_file() and path.stat().st_size > offset:
            with path.open("rb") as file:
                file.seek(offset)
                added = file.read()
            offset += len(added)
            typer.echo(added.decode("utf-8", errors="replace"), nl=False)
        time.sleep(FOLLOW_POLL_SECONDS)


def _print_address(health: str, address: StackAddress, output: Format) -> None:
    rows = {
        "health": health,
        "bootstrap_servers": address.bootstrap_servers,
        "schema_registry_url": address.schema_registry_url,
        "kafka_version": address.kafka_version,
        "pid": address.pid,
        "data_dir": str(address.data_dir),
        "started_at": address.started_at.isoformat(timespec="seconds"),
    }
    if output is Format.json:
        typer.echo(json.dumps(rows))
        return
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for key, value in rows.items():
        table.add_row(key.replace("_", " "), str(value), style="bold" if key.endswith(("servers", "url")) else None)
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    sys.exit(app())
