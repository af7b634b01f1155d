"""Nights of tests: an application on the virtual clock, at the noon before, and what tests do to its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from streams.core.plan_change.matrix import MatrixElement
from streams.settings import ClockMode
from tests.e2e.application import Application
from tests.support.brokers import Cluster
from tests.support.kafka_io import TIMEOUT_SECONDS

#: São Paulo has no midnight that night: 2018-11-04 begins at 01:00, which is 03:00 in UTC.
DEADLINE = datetime(2018, 11, 4, 3, 0, tzinfo=UTC)
NOON = DEADLINE - timedelta(hours=12)
HOUR = timedelta(hours=1)


@contextmanager
def night(
    stack: Cluster,
    directory: Path,
    services: Mapping[str, str],
    *,
    now: datetime | None = NOON,
    elements: Iterable[MatrixElement] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Application]:
    """All workers, with these services (service → account) in São Paulo on plan basic; the clock stands at ``now``.

    ``elements`` and ``env`` besides what every :class:`Application` has. None for ``now``: no clock has ticked.
    """
    assert stack.address is not None
    made = Application(stack.address, directory / "application", clock=ClockMode.VIRTUAL)
    made.env |= env or {}
    made.directory.mkdir()
    try:
        made.configure()
        made.send("catalog.matrix-element", *((one.key, one) for one in elements))
        made.start()
        made.know(services)
        if now is not None:
            pass_time(made, now, now)
        yield made
    finally:
        made.close()


def pass_time(application: Application, start: datetime, until: datetime, *, step_minutes: int = 60) -> None:
    """`curfew clock` from one instant to another; it ends when everything that it caused is finished."""
    span = ("--from", start.isoformat(), "--until", until.isoformat())
    application.run("clock", *span, "--step", str(step_minutes))


def run_freely(application: Application, start: datetime, until: datetime) -> None:
    """Time passes and waits for nobody: ten hours in twenty seconds."""
    application.run("clock", "--from", start.isoformat(), "--until", until.isoformat(), "--free-run", "1800")


def stop(application: Application, name: str) -> None:
    """End one worker for good."""
    [child] = [child for child in application.supervisor.children if child.name == name]
    assert child.process is not None
    application.supervisor.children.remove(child)
    child.process.terminate()
    assert child.process.wait(TIMEOUT_SECONDS) is not None
