"""``curfew worker``, ``curfew clock`` and ``curfew up``: the processes that do the work."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated

import typer

from agents import preflight
from agents.cli import choices, completion
from agents.cli.output import Exit, note
from streams.settings import ClockMode, Settings
from streams.telemetry import configure_logging

app = typer.Typer(no_args_is_help=True)


@app.command()
def worker(
    name: Annotated[
        str,
        typer.Argument(
            help="events, usage, sources, plan-changes, execution, persistence, delivery or dispatch",
            autocompletion=completion.workers,
        ),
    ],
    instance: Annotated[str, typer.Option(help="tells workers of one app apart; stable over restarts")] = "1",
    health_port: Annotated[int | None, typer.Option(help="serve GET /health on this loopback port")] = None,
) -> None:
    """Run one worker in the foreground until SIGTERM or Ctrl-C.

    Example: curfew worker events --instance a --health-port 9400
    """
    from agents.worker import WORKERS, build

    if name not in WORKERS:
        raise typer.BadParameter(choices.unknown("worker", name, WORKERS), param_hint="NAME")
    settings = Settings()
    _admitted(settings)
    configure_logging(settings, app=name)
    raise typer.Exit(build(settings, name, instance=instance, health_port=health_port).run())


@app.command()
def clock(
    start: Annotated[str | None, typer.Option("--from", help="virtual: first instant, like 2018-11-03T04:00Z")] = None,
    until: Annotated[str | None, typer.Option(help="virtual: last instant")] = None,
    step: Annotated[float, typer.Option(help="virtual: longest step, minutes")] = 15.0,
    free_run: Annotated[float | None, typer.Option(help="virtual, no barrier: this many times real time")] = None,
) -> None:
    """Write ticks: the machine's time, or with --from and --until a virtual one.

    Example: CURFEW_CLOCK=virtual curfew clock --from 2018-11-03T04:00Z --until 2018-11-04T12:00Z
    """
    from agents.clock import ClockFace, VirtualClock, barrier_reads, due_reports, run_free, run_wall
    from streams.codec import Codec, Registry
    from streams.core.errors import Misconfigured
    from streams.kafka.admin import quiet
    from streams.kafka.catalogue import patiently
    from streams.kafka.manifest import Manifest
    from streams.kafka.quiescence import Quiescence

    settings = Settings()
    _admitted(settings)
    configure_logging(settings, app="clock")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    # Every wall clock is the same clock: two that begin on an empty topic must not begin two epochs.
    epoch = "wall" if settings.clock is ClockMode.WALL else None
    codec = Codec(Registry(settings.schema_registry_url))
    faces: list[ClockFace] = []
    kafka = quiet(settings.kafka())  # what matters is logged by the clock itself
    patiently(lambda: faces.append(ClockFace(config=kafka, codec=codec, epoch=epoch)))
    face = faces[0]
    try:
        if settings.clock is ClockMode.WALL:
            if start or until or free_run:
                raise Misconfigured("--from, --until and --free-run need CURFEW_CLOCK=virtual")
            return run_wall(face, stop)
        if start is None or until is None:
            raise Misconfigured("a virtual clock needs --from and --until, like --from 2018-11-03T04:00Z")
        first, last = _instant(start), _instant(until)
        if free_run is not None:
            return run_free(face, stop, start=first, until=last, speed=free_run)
        manifest = Manifest.load()
        due = due_reports(kafka, face.codec)
        patiently(due.start)
        looks: list[Quiescence] = []
        patiently(lambda: looks.append(Quiescence(kafka, barrier_reads(manifest.groups, manifest.topics))))
        virtual = VirtualClock(
            face=face,
            quiescence=looks[0],
            due=due,
            step=timedelta(minutes=step),
        )
        try:
            virtual.run(stop, start=first, until=last)
        finally:
            due.stop()
    finally:
        face.close()


def _admitted(settings: Settings) -> None:
    """A broker that is away is waited for; one that refuses us is told, since waiting does not help."""
    from streams.core.errors import Misconfigured
    from streams.kafka.admin import refusal

    if why := refusal(settings.kafka()):
        raise Misconfigured(why)


def _instant(text: str) -> datetime:
    from streams.core.errors import Misconfigured

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Misconfigured(f"{text!r} is not an instant; write it like 2018-11-03T04:00Z") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _only_one(data_dir: Path) -> IO[str]:
    """The lock of this data directory; two sets of workers on one would take each other's partitions for ever."""
    import fcntl

    from streams.core.errors import Misconfigured

    data_dir.mkdir(parents=True, exist_ok=True)
    lock = (data_dir / "up.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        running = lock.read().strip()
        lock.close()
        raise Misconfigured(
            f"`curfew up` runs here already (process {running}, {data_dir}): stop it, or give this one its own "
            "CURFEW_DATA_DIR"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


@app.command()
def up(
    instances: Annotated[int, typer.Option(help="processes of each worker", min=1)] = 1,
    with_clock: Annotated[bool, typer.Option("--clock/--no-clock", help="run the clock process as well")] = True,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="serve /health and /metrics of each worker on this port and the next ones; 0: free ones",
            min=0,
            max=65_000,
        ),
    ] = None,
) -> None:
    """Run all workers and the clock on this machine, restart those that die; Ctrl-C stops them all.

    Looks first for Kafka and its topics, the registry and its schemas, and the billing store, whose tables it brings up
    to date; exit code 1, and nothing is started, where something is missing. Names secrets that are not set.

    With --health-port it prints where each worker answers; one that is restarted keeps its port.

    Example: curfew up --instances 2 --health-port 9400
    """
    from sqlalchemy import make_url

    from agents import health_ports
    from agents.supervisor import Supervisor
    from agents.worker import WORKERS
    from streams.sinks.secrets import Secrets

    settings = Settings()
    lock = _only_one(settings.data_dir)
    if problems := preflight.missing(settings):
        lock.close()
        for problem in problems:
            note(f"error: {problem}")
        note("nothing was started")
        raise typer.Exit(Exit.FAILURE)
    processes = {f"{name}-{number}": (name, number) for name in WORKERS for number in range(1, instances + 1)}
    ports = {} if health_port is None else health_ports.choose([*processes], health_port, settings.health_host)
    for warning in preflight.unset_secrets(preflight.subscriptions(settings), Secrets(settings.webhook_secrets)):
        note(f"warning: {warning}")
    configure_logging(settings, app="up")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    shown = make_url(settings.billing_store_url).render_as_string(hide_password=True)
    supervisor = Supervisor(log_dir=(settings.data_dir / "logs").absolute())
    try:
        for process, (name, instance) in processes.items():
            command = ["worker", name, "--instance", str(instance)]
            if process in ports:
                command += ["--health-port", str(ports[process])]
                note(f"{process}: http://{settings.health_host}:{ports[process]}/health and /metrics")
            supervisor.add(process, *command)
        if with_clock and settings.clock is ClockMode.WALL:
            supervisor.add("clock", "clock")
        typer.echo(
            f"{len(supervisor.children)} processes on Kafka {settings.bootstrap_servers}, billing store {shown}; "
            f"logs in {supervisor.log_dir}; Ctrl-C stops them",
            err=True,
        )
        while not stop.is_set():
            supervisor.check()
            time.sleep(0.2)
    finally:
        killed = supervisor.stop()
        lock.close()
        typer.echo("stopped" + (f"; had to kill {', '.join(killed)}" if killed else ""), err=True)
