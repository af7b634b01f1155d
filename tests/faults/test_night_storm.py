"""A whole night under kill -9: all workers, the real agents and billing store, judged by the demo's own checks."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from agents.cli.demo import QUICK_ACCOUNTS, QUICK_CHANGES
from agents.demo.fleet import generate
from agents.demo.night import Night, Options
from agents.demo.place import Place
from agents.demo.report import Report
from agents.demo.screen import Screen
from agents.embedded import DEFAULT_KAFKA_VERSION
from agents.worker import WORKERS
from streams.core.events import Finding
from streams.kafka.scan import Scanner
from streams.topics import FINDINGS
from tests.billing import postgres

pytestmark = [pytest.mark.faults, pytest.mark.kafka, pytest.mark.timeout(3600)]

#: Of each worker; there are eight.
KILLS_EACH = 3
KILLS = KILLS_EACH * len(WORKERS)
BROKER_RESTARTS = 2
#: About six events become of a change; over so much of the night the strikes are spread.
HAPPENINGS = 6 * 0.8
SEED = 20181104
#: What a night without kills says beside the rest. In a storm workers die, and a finding that was sent again under the
#: same id after a crash is counted again by the worker that reads it (that count is by record, not by id).
ONLY_WITHOUT_KILLS = {"no worker died", "raised = routed + unrouted, no revision is missing"}


class Storm(Place):
    """A place in which workers are killed all through the night, and the broker twice."""

    #: PostgreSQL, where that is the billing store: it crashes and comes back, in the middle of transactions.
    database: postgres.Server | None = None
    #: Set by the night when its clock runs; until then nothing is killed.
    night: StormyNight | None = None
    broker_restarts = 0
    database_restarts = 0

    def check(self) -> None:
        if self.night is not None:
            self.night.strike()
        super().check()

    def kill(self, name: str) -> bool:
        """SIGKILL a worker; False when it is not running at the moment."""
        child = next(child for child in self.supervisor.children if child.name == name)
        if child.process is None or child.process.poll() is not None:
            return False
        child.process.kill()
        child.process.wait()
        return True

    def restart_broker(self) -> None:
        self._stack.kill_broker()
        self._stack.restart_broker()
        self.broker_restarts += 1

    def restart_database(self) -> None:
        if self.database is not None:
            self.database.stop(signal.SIGQUIT)
            self.database.start()
            self.database_restarts += 1


class StormyNight(Night):
    """Strikes are spread over the records that the workers have done, so that they fall into the flow."""

    def __init__(self, options: Options, place: Storm, screen: Screen, fleet: object) -> None:
        super().__init__(options, place, screen, fleet)  # type: ignore[arg-type]
        self.storm = place
        self.kills: list[str] = []
        self._random = random.Random(SEED)
        strikes = self._plan()
        self._every = 1 + int(HAPPENINGS * options.changes / len(strikes))
        self._strikes = iter(strikes)
        self._progress = 0

    def _plan(self) -> list[str]:
        """Each worker three times, in random order, and the broker and the database in between."""
        names = [*WORKERS] * KILLS_EACH
        self._random.shuffle(names)
        third = len(names) // 3
        first, second, last = names[:third], names[third : 2 * third], names[2 * third :]
        return [*first, "broker", "database", *second, "database", "broker", *last]

    def strike(self) -> None:
        """Kill the next one, when enough has happened since the last."""
        happened = len(self.seen.event_types)
        if happened < self._progress:
            return
        name = next(self._strikes, None)
        if name is None:
            return
        self._progress = happened + self._every
        if name == "broker":
            self.storm.restart_broker()
        elif name == "database":
            self.storm.restart_database()
        elif self.storm.kill(name):
            self.kills.append(name)
        else:  # it is down already; strike again when it is up
            self._strikes = iter([name, *self._strikes])
            self._progress = happened


def repeated_findings(place: Place) -> int:
    """Records of events.findings beyond the first of each id."""
    with Scanner(place.kafka()) as scanner:
        records = list(scanner.read(FINDINGS, scanner.spans(FINDINGS)))
    ids = {place.codec.decode(record.value(), Finding).event_id for record in records}
    return len(records) - len(ids)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[postgres.Server | None]:
    """None: a SQLite file in the place itself."""
    if request.param == "sqlite":
        yield None
        return
    try:
        with postgres.server() as server:
            yield server
    except postgres.Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("accounts", "changes"),
    [
        pytest.param(QUICK_ACCOUNTS, QUICK_CHANGES, id="quick"),
        pytest.param(5_000, 5_000, id="full"),
        pytest.param(20_000, 20_000, id="large", marks=pytest.mark.long),
    ],
)
def test_a_night_of_kills_loses_nothing_and_persists_every_change_once(
    tmp_path: Path, accounts: int, changes: int, database: postgres.Server | None
) -> None:
    """Each worker three times, broker and database twice: all that the report checks of a quiet night."""
    fleet = generate(accounts, SEED)
    screen = Screen(console=Console(stderr=True, highlight=False), deadlines=fleet.deadlines)
    url = None if database is None else database.url.render_as_string(hide_password=False)
    place = Storm(tmp_path, DEFAULT_KAFKA_VERSION, screen.say, url)
    place.database = database
    night = StormyNight(Options(accounts=accounts, changes=changes, seed=SEED), place, screen, fleet)
    place.night = night
    try:
        report: Report = night.run()
        raised = sum(count for name, count in night._counted().items() if name.startswith("raised "))
        repeated = repeated_findings(place)
    finally:
        night.close()
        running = place.close()

    assert len(night.kills) == KILLS
    assert place.broker_restarts == BROKER_RESTARTS
    assert place.database_restarts == (0 if database is None else BROKER_RESTARTS)
    failed = [check for check in report.checks if not check.holds and check.name not in ONLY_WITHOUT_KILLS]
    assert [f"{check.name}: {check.found}" for check in failed] == []
    assert raised - repeated == len(night.seen.event_types)
    assert running == []
