"""What `curfew doctor` asks about time: this machine's clock, the broker's, the ticks', and the time zones."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaException, Producer

from agents.doctor.checks import Finding, Status
from streams.codec import Codec, Registry
from streams.core.clock import Tick
from streams.core.errors import Poison, Transient
from streams.core.midnight import TZ_VERSION
from streams.kafka.admin import answering
from streams.kafka.scan import Scanner, Span
from streams.settings import ClockMode, Settings
from streams.topics import TICKS

#: A topic of the manifest to whose records the broker gives its own time; nobody reads it.
PROBES: Final = "clock.probes"
PROBE_TIMEOUT_S: Final = 10.0
#: NTP keeps machines within milliseconds. A clock that is further off starts a change too early, or too late.
SKEW_LIMIT_S: Final = 2.0
#: A clock process writes every second; without one for so long nobody writes.
TICK_LIMIT_S: Final = 60.0
#: Rows that were written last, of each partition: every worker at work has written one of them.
ROWS: Final = 200
CHANGELOGS: Final = ("plan-changes-store-changelog", "events-store-changelog")
_ROW_VERSION: Final = re.compile(rb'"tz_version":"(\d{4}[a-z]+)"')
SYSTEM_ZONES: Final = Path("/usr/share/zoneinfo/tzdata.zi")
machine_time = time.time


def clock(settings: Settings) -> Iterator[Finding]:
    """This machine's clock beside the broker's, which stamps a record that is written now."""
    before = machine_time()
    broker = _broker_time(settings)
    after = machine_time()
    # the stamp lies between the two instants, so a slow answer makes nobody's clock wrong
    off = before - broker if broker < before else min(0.0, after - broker)
    if abs(off) <= SKEW_LIMIT_S:
        yield Finding(check="clock", status=Status.OK, finding="this machine and the broker agree")
        return
    yield Finding(
        check="clock",
        status=Status.FAULT,
        finding=f"this machine's clock is {_span(abs(off))} {'ahead of' if off > 0 else 'behind'} the broker's",
        remedy="switch on NTP on both (timedatectl set-ntp true) and see which one is wrong (chronyc tracking)",
    )


def _broker_time(settings: Settings) -> float:
    answers: list[tuple[Any, Any]] = []
    producer = Producer(
        answering(settings.kafka())
        | {"acks": "all", "allow.auto.create.topics": False, "delivery.timeout.ms": int(PROBE_TIMEOUT_S * 1000)}
    )
    try:
        producer.produce(PROBES, b"", on_delivery=lambda error, message: answers.append((error, message)))
    except KafkaException as error:
        answers.append((error.args[0], None))
    producer.flush(2 * PROBE_TIMEOUT_S)
    problem, message = answers[0] if answers else (None, None)
    if message is None or problem is not None:
        why = problem.str() if problem is not None else "no answer"
        raise Transient(
            f"the broker's time is unknown, {PROBES} cannot be written: {why}. curfew topics apply makes it"
        )
    kind, stamp = message.timestamp()
    if kind != TIMESTAMP_LOG_APPEND_TIME:
        raise Transient(f"{PROBES} does not have the broker's time: correct it with curfew topics apply")
    return float(stamp) / 1000


def ticks(settings: Settings) -> Iterator[Finding]:
    """The newest tick beside this machine's clock, in wall mode."""
    codec = Codec(Registry(settings.schema_registry_url))
    newest: dict[int, datetime] = {}
    with Scanner(answering(settings.kafka())) as scanner:
        spans = scanner.spans(TICKS)
        # by position, so a partition whose newest records are something else is only unknown
        last = {number: Span(max(span.start, span.end - 5), span.end) for number, span in spans.items()}
        for message in scanner.read(TICKS, last):
            value = message.value()
            try:
                tick = codec.decode(value, cls=Tick) if value else None
            except Poison:
                continue
            if tick is not None:
                number = int(message.partition() or 0)
                newest[number] = max(tick.now, newest.get(number, tick.now))
    if not newest:
        yield Finding(check="ticks", status=Status.NOTE, finding="no clock has written yet", remedy="curfew up")
        return
    oldest, latest = min(newest.values()), max(newest.values())
    if settings.clock is ClockMode.VIRTUAL:
        yield Finding(check="ticks", status=Status.OK, finding=f"virtual clock at {latest.isoformat()}")
        return
    now = datetime.now(UTC)
    age, ahead = (now - oldest).total_seconds(), (latest - now).total_seconds()
    if ahead > SKEW_LIMIT_S:
        yield Finding(
            check="ticks", status=Status.FAULT,
            finding=f"business time is {_span(ahead)} ahead of this machine's clock",
            remedy="set the clock of the machine that runs `curfew clock` (NTP); business time waits for it",
        )  # fmt: skip
    elif age > TICK_LIMIT_S:
        yield Finding(
            check="ticks", status=Status.FAULT, finding=f"the newest tick is {_span(age)} old: business time stands",
            remedy="start `curfew up` or `curfew clock`; if one runs, compare the clocks of both machines (NTP)",
        )  # fmt: skip
    else:
        yield Finding(check="ticks", status=Status.OK, finding="business time follows this machine's clock")


def zones(settings: Settings) -> Iterator[Finding]:
    """Our time zone data beside this machine's own."""
    system = _system_version()
    if system is not None and system > TZ_VERSION:
        yield _stale(f"this machine's own is {system}", Status.NOTE)
    elif int(TZ_VERSION[:4]) < datetime.now(UTC).year - 1:
        yield _stale("governments have changed their clocks since", Status.NOTE)
    else:
        yield Finding(check="time zones", status=Status.OK, finding=f"tzdata {TZ_VERSION}")


def zones_of_rows(settings: Settings) -> Iterator[Finding]:
    """Our time zone data beside what workers have used for their newest rows."""
    newest = ""
    with Scanner(answering(settings.kafka())) as scanner:
        for topic in CHANGELOGS:
            spans = scanner.spans(topic)
            last = {number: Span(max(span.start, span.end - ROWS), span.end) for number, span in spans.items()}
            for message in scanner.read(topic, last):
                for found in _ROW_VERSION.findall(message.value() or b""):
                    newest = max(newest, found.decode())
    if newest > TZ_VERSION:
        yield _stale(f"workers with {newest} have written rows, so deadlines would differ", Status.FAULT)
    else:
        with_rows = f"; newest rows: {newest}" if newest else ""
        yield Finding(check="time zones of rows", status=Status.OK, finding=f"tzdata {TZ_VERSION}{with_rows}")


def _stale(why: str, status: Status) -> Finding:
    return Finding(
        check="time zones" if status is Status.NOTE else "time zones of rows",
        status=status,
        finding=f"tzdata is stale, {TZ_VERSION}: {why}",
        remedy="pip install --upgrade tzdata on every machine, then restart the workers",
    )


def _system_version() -> str | None:
    try:
        with SYSTEM_ZONES.open(encoding="utf-8") as lines:
            first = lines.readline()
    except OSError:
        return None
    found = re.fullmatch(r"# version (\d{4}[a-z]+)\s*", first)
    return found[1] if found else None


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
