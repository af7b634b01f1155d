"""The desk of one partition: takes usage and definitions, judges what is due, keeps rows and index in step.

Pure: rows, index and time are given, effects are returned for the agent to send. Lines and meters are their own timers
(no row beside them): an entry of the index is a hint, and whoever takes it looks at the row again. Usage never touches
the index, unless it ends what was raised: a hint that comes too early is set again from the row (lazy re-arm).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TypeAlias

from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.timers import TimerIndex
from streams.core.usage.dormancy import (
    MAX_SIMS,
    Line,
    Rules,
    judge,
    take_context,
    take_sim,
    take_usage,
    wake_at,
    with_room_for_sim,
    with_room_for_track,
)
from streams.core.usage.meter_desk import MeterDesk, Setup, wakes
from streams.core.usage.objects import (
    Bucket,
    BucketChange,
    ContractChange,
    Meter,
    SimChange,
    Usage,
    UsageContext,
    UsageShare,
)
from streams.core.usage.rows import LINE, METERS, Rows, line_key, meter_reader, pack, unpack_line

#: A device with a wrong clock would never be dormant again, and its usage would open periods that nobody closes.
MAX_AHEAD = timedelta(days=366)

Effect: TypeAlias = Finding | UsageShare | SimChange | BucketChange


def rebuild(rows: Rows, rules: Rules, retention: timedelta) -> TimerIndex:
    """The index of a partition from its rows: a full scan, a few microseconds each."""
    index = TimerIndex()
    for key, value in rows.scan(LINE.encode()):
        at = wake_at(unpack_line(value), rules)
        if at is not None:
            index.add(key.decode(), at)
    for meter in METERS:
        read = meter_reader(meter)
        for key, value in rows.scan(f"{meter}/".encode()):
            at = wakes(meter, read(value), retention)
            if at is not None:
                index.add(key.decode(), at)
    return index


class Desk:
    """Decisions of one partition at one instant; ``now`` is None before the first tick, and then nothing is judged.

    ``rearmed``: what was looked at already in this run of due work; give it to all desks of the run.
    """

    def __init__(
        self, rows: Rows, index: TimerIndex, setup: Setup, now: datetime | None, rearmed: set[str] | None = None
    ) -> None:
        self._rows = rows
        self._index = index
        self._setup = setup
        self._now = now
        self._lines: dict[str, Line] = {}
        self._meters = MeterDesk(rows, index, setup, now)
        self._rearmed = set() if rearmed is None else rearmed

    # -- what arrives -------------------------------------------------------------------------------------------------

    def usage(self, usage: Usage, offset: int) -> Iterator[Effect]:
        """Take one record: its SIM was used; its bucket counts it here, its pool and its contract elsewhere.

        Raises Poison (``in_the_future``, ``too_many_sims``; ``too_late``, ``too_many_units`` for what its bucket cannot
        count). What was given before that is true all the same.
        """
        if self._now is not None and usage.event_time > self._now + MAX_AHEAD:
            raise Poison("in_the_future", f"event_time {usage.event_time.isoformat()} is over a year ahead of time")
        line = with_room_for_track(self._line(usage.service_id), usage.sim_id)
        taken = None if line is None else take_usage(line, usage.sim_id, usage.event_time, self._setup.rules)
        if taken is not None:
            line, findings = taken
            yield from findings
            self._keep_line(line)
            at = wake_at(line, self._setup.rules)
            # A silence that this record has ended or begun may be dormancy already; other hints stand where they are.
            if at is not None and (findings or at <= usage.event_time):
                self._index.add(line_key(line.service_id), at)
        if usage.pooled and usage.bucket_id is not None:
            yield UsageShare(meter=Meter.POOL, meter_id=usage.bucket_id, usage=usage)
        if usage.contract_id is not None:
            yield UsageShare(meter=Meter.CONTRACT, meter_id=usage.contract_id, usage=usage)
        if usage.bucket_id is not None and not usage.pooled:
            yield from self._meters.count(Meter.BUCKET, usage.bucket_id, usage, offset)
        if line is None:  # last: what was used counts, whichever SIM it was
            raise Poison("too_many_sims", f"service {usage.service_id} has usage of more than {MAX_SIMS} SIMs")

    def share(self, share: UsageShare, offset: int) -> Iterator[Effect]:
        """Count a record for a pool or a contract. Raises Poison (``too_late``, ``too_many_units``)."""
        yield from self._meters.count(share.meter, share.meter_id, share.usage, offset)

    def sim(self, change: SimChange, key: str) -> Iterator[Effect]:
        """Take a change of a SIM, under the key of its service or of the one that it has left; news go to the account.

        Raises Poison (``wrong_key``, ``too_many_sims``).
        """
        here = _check_key(key, change.subject.service_id, change.previous.service_id if change.previous else None)
        line = with_room_for_sim(self._line(key), change.subject.id)
        if line is None:
            raise Poison("too_many_sims", f"service {key} has more than {MAX_SIMS} SIMs")
        taken = take_sim(line, change, here=here)
        if taken is None:
            return
        self._keep_line(taken)
        self._arm_line(taken)
        if here:
            yield change

    def context(self, context: UsageContext) -> Iterator[Effect]:
        """Take what the events worker tells of a service."""
        taken = take_context(self._line(context.service_id), context)
        if taken is not None:
            self._keep_line(taken)
            self._arm_line(taken)
        yield from ()

    def bucket(self, change: BucketChange, key: str) -> Iterator[Effect]:
        """Take a change of a bucket, under its key now or before; news go on to the account. Raises Poison
        (``wrong_key``)."""
        subject, before = change.subject, change.previous
        here = _check_key(key, _bucket_key(subject), None if before is None else _bucket_key(before))
        bucket = subject if here else before
        assert bucket is not None  # else the key was wrong
        meter = Meter.POOL if bucket.pooled else Meter.BUCKET
        taken = yield from self._meters.define(meter, change, change.current if here else None)
        if taken and here:
            yield change

    def contract(self, change: ContractChange) -> Iterator[Effect]:
        """Take a change of a contract."""
        yield from self._meters.define(Meter.CONTRACT, change, change.current)

    # -- time ---------------------------------------------------------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether :meth:`fire` would find something to look at."""
        return self._now is not None and self._index.is_due(self._now)

    def fire(self) -> list[Finding]:
        """Look at the line or meter that is due first: what is raised is returned, what it waits for is remembered."""
        assert self._now is not None
        taken = self._index.take(self._now)
        if taken is None:
            return []
        key, _ = taken
        kind, _, id = key.partition("/")
        if key.startswith(LINE):
            line, found = judge(self._line(id), self._now, self._setup.rules)
            if found:
                self._keep_line(line)
            at = wake_at(line, self._setup.rules)
        else:
            found, at = self._meters.fire(Meter(kind), id)
        self._rearm(key, at)
        return found

    # -- rows and index -----------------------------------------------------------------------------------------------

    def _line(self, service_id: str) -> Line:
        line = self._lines.get(service_id)
        if line is None:
            raw = self._rows.get(line_key(service_id).encode())
            line = self._lines[service_id] = Line(service_id=service_id) if raw is None else unpack_line(raw)
        return line

    def _keep_line(self, line: Line) -> None:
        self._rows.put(line_key(line.service_id).encode(), pack(line))
        self._lines[line.service_id] = line

    def _arm_line(self, line: Line) -> None:
        at = wake_at(line, self._setup.rules)
        if at is not None:
            self._index.add(line_key(line.service_id), at)

    def _rearm(self, key: str, at: datetime | None) -> None:
        """Hints that were left twice come at the same instant: the second is dropped, or each would live forever."""
        assert self._now is not None
        if at is None:
            return
        if at > self._now:  # what is due still is looked at again in this run, and that look must leave its hint
            if key in self._rearmed:
                return
            self._rearmed.add(key)
        self._index.add(key, at)


def _bucket_key(bucket: Bucket) -> str:
    return bucket.id if bucket.service_id is None else bucket.service_id


def _check_key(key: str, expected: str, before: str | None) -> bool:
    """True under the key of now, False under the one of before; raises Poison (``wrong_key``) for another."""
    if key in (expected, before):
        return key == expected
    raise Poison("wrong_key", f"the key is {key!r}, for this record it must be {expected!r}")
