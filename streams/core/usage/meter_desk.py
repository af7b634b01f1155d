"""Meters of one partition: counts what arrives, follows definitions, closes periods, forgets what is too old."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.timers import TimerIndex
from streams.core.usage.dormancy import Rules
from streams.core.usage.metering import (
    Crossed,
    MeterRow,
    Tally,
    Use,
    counted,
    crossed,
    define,
    judged,
    must_recount,
    next_close,
    recounted,
    replaced,
    tally_of,
    use_of,
)
from streams.core.usage.objects import Bucket, BucketChange, Contract, ContractChange, Meter, Usage
from streams.core.usage.rows import (
    Rows,
    day_of,
    meter_key,
    meter_reader,
    pack,
    unpack_use,
    use_key,
    uses_prefix,
)
from streams.core.usage.told import COMMIT_MET, UNDER_COMMIT, commitment, exceeded

#: Rows of usage are deleted a week's worth at a time, so that a meter is not written once more on every day.
EXPIRY_EVERY = timedelta(days=7)
#: Deletions in one step; the rest follows in the next.
EXPIRY_SLICE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all decisions of a worker share. ``retention``: for so long after its event time usage is counted, and known
    again if it comes twice."""

    rules: Rules
    retention: timedelta


class MeterDesk:
    """Decisions about the meters of one partition at one instant (``now`` is None before the first tick)."""

    def __init__(self, rows: Rows, index: TimerIndex, setup: Setup, now: datetime | None) -> None:
        self._rows = rows
        self._index = index
        self._retention = setup.retention
        self._now = now
        self._meters: dict[str, MeterRow[Any]] = {}

    def count(self, meter: Meter, id: str, usage: Usage, offset: int) -> Iterator[Finding]:
        """Count one record, once. Raises Poison (``too_late``, ``too_many_units``); then nothing has changed."""
        use = use_of(usage, offset)
        if self._now is not None and use.at < self._now - self._retention:
            raise Poison(
                "too_late",
                f"{use.at.isoformat()} is over {self._retention.days} days ago: usage of {meter} {id} is not counted "
                "any more (usage_retention_days)",
            )
        key = use_key(meter, id, use)
        known = self._rows.get(key)
        if known is not None and unpack_use(known).offset != offset:
            return  # a duplicate
        row = before = self._meter(meter, id)
        counts = counted(row, use)
        findings: list[Finding] = []
        if counts is not None:
            row, tally = counts
            tally, findings = self._look(meter, row, tally, use)
            row = replaced(row, tally)
        day = use.at.date()
        if row.oldest is None or day < row.oldest:
            row = replace(row, oldest=day)
        if row is not before:
            self._keep_meter(meter, row)
            if before.oldest is None:
                self._arm_meter(meter, row)
        # Behind the meter's: a record that is durable alone would be known when it comes again, and never be forgotten.
        if known is None:
            self._rows.put(key, pack(use))
        yield from findings

    def _look(self, meter: Meter, row: MeterRow[Any], tally: Tally, use: Use) -> tuple[Tally, list[Finding]]:
        """What one more record means."""
        if meter is Meter.CONTRACT:
            return self._judged(row, tally, use.at, use.id) if tally.closed else (tally, [])
        tally, new = crossed(row, tally, use.at, use.id)
        return tally, [exceeded(row, one, self._now) for one in new]

    def define(
        self, meter: Meter, change: BucketChange | ContractChange, terms: Bucket | Contract | None
    ) -> Generator[Finding, None, bool]:
        """Take a definition, or None where there is none any more; returns whether it is news."""
        before = self._meter(meter, change.subject.id)
        row = define(before, change.revision, terms, change.occurred_at)
        if row is None:
            return False
        findings: list[Finding] = []
        if must_recount(before, row):
            uses = (unpack_use(value) for _, value in self._rows.scan(uses_prefix(meter, row.id)))
            look = _keep_closed if meter is Meter.CONTRACT else _crossed_by
            row, crossings = recounted(row, uses, look)
            findings += [exceeded(row, one, self._now) for one in crossings]
        if meter is Meter.CONTRACT and row.closed_until is None and row.versions:
            # A contract that was agreed long ago and is heard of now: what was used then is not known here, so no
            # commitment of that time was not met.
            known_from = change.occurred_at if self._now is None else self._now - self._retention
            row = replace(row, closed_until=max(change.occurred_at, known_from))
        for tally in row.tallies:
            if meter is Meter.CONTRACT:
                after, found = self._judged(row, tally, change.occurred_at, None) if tally.closed else (tally, [])
            else:
                after, new = crossed(row, tally, change.occurred_at, None)
                found = [exceeded(row, one, self._now) for one in new]
            row, findings = replaced(row, after), [*findings, *found]
        self._keep_meter(meter, row)
        self._arm_meter(meter, row)
        yield from findings
        return True

    def _judged(
        self, row: MeterRow[Contract], tally: Tally, at: datetime, usage_id: str | None
    ) -> tuple[Tally, list[Finding]]:
        found = judged(row, tally, at, usage_id)
        if found is None:
            return tally, []
        late = tally.closed
        findings = [commitment(UNDER_COMMIT, row, found.contract, one, late) for one in found.under]
        findings += [commitment(COMMIT_MET, row, found.contract, one, late) for one in found.met]
        return found.tally, findings

    def fire(self, meter: Meter, id: str) -> tuple[list[Finding], datetime | None]:
        """Do what is due of one meter: what is raised, and when to look again."""
        before = self._meter(meter, id)
        row, found = self._close_period(before) if meter is Meter.CONTRACT else (before, [])
        row = self._expired(meter, row)
        if row is not before:
            self._keep_meter(meter, row)
        return found, wakes(meter, row, self._retention)

    def _close_period(self, row: MeterRow[Contract]) -> tuple[MeterRow[Contract], list[Finding]]:
        closing = next_close(row)
        if closing is None or self._now is None or closing[1] > self._now:
            return row, []
        period, at = closing
        tally, findings = self._judged(row, tally_of(row, period), at, None)
        return replace(replaced(row, tally), closed_until=period.end), findings

    def _expired(self, meter: Meter, row: MeterRow[Any]) -> MeterRow[Any]:
        """Without what no usage can reach any more: records and tallies that are older than the retention."""
        assert self._now is not None
        horizon = self._now - self._retention
        at = _expires_at(meter, row, self._retention)
        if at is None or at > self._now:
            return row
        oldest: date | None = None
        keys: list[bytes] = []
        for key, _ in self._rows.scan(uses_prefix(meter, row.id)):
            if day_of(key) >= horizon.date().isoformat() or len(keys) == EXPIRY_SLICE:
                oldest = date.fromisoformat(day_of(key))
                break
            keys.append(key)
        for key in keys:
            self._rows.delete(key)
        return replace(
            row, oldest=oldest, tallies=tuple(one for one in row.tallies if not _is_over(meter, row, one, horizon))
        )

    def _meter(self, meter: Meter, id: str) -> MeterRow[Any]:
        key = meter_key(meter, id)
        row = self._meters.get(key)
        if row is None:
            raw = self._rows.get(key.encode())
            row = self._meters[key] = MeterRow(id=id) if raw is None else meter_reader(meter)(raw)
        return row

    def _keep_meter(self, meter: Meter, row: MeterRow[Any]) -> None:
        key = meter_key(meter, row.id)
        self._rows.put(key.encode(), pack(row))
        self._meters[key] = row

    def _arm_meter(self, meter: Meter, row: MeterRow[Any]) -> None:
        at = wakes(meter, row, self._retention)
        if at is not None:
            self._index.add(meter_key(meter, row.id), at)


def wakes(meter: Meter, row: MeterRow[Any], retention: timedelta) -> datetime | None:
    """When there is something to do about a meter: a period to close, rows to forget."""
    closing = next_close(row) if meter is Meter.CONTRACT else None
    found = [None if closing is None else closing[1], _expires_at(meter, row, retention)]
    return min((at for at in found if at is not None), default=None)


def _expires_at(meter: Meter, row: MeterRow[Any], retention: timedelta) -> datetime | None:
    """When a week's worth of records can go, or a tally."""
    ends = [tally.end for tally in row.tallies if not _is_open(meter, row, tally)]
    if row.oldest is not None:
        ends.append(datetime.combine(row.oldest + timedelta(days=1), time.min, UTC))
    return min(ends) + retention + EXPIRY_EVERY if ends else None


def _is_open(meter: Meter, row: MeterRow[Any], tally: Tally) -> bool:
    """Whether a tally is still to be judged, however long ago its period was over."""
    return meter is Meter.CONTRACT and not row.gone and row.closed_until is not None and tally.end > row.closed_until


def _is_over(meter: Meter, row: MeterRow[Any], tally: Tally, horizon: datetime) -> bool:
    return tally.end < horizon and not _is_open(meter, row, tally)


def _crossed_by(row: MeterRow[Bucket], tally: Tally, use: Use) -> tuple[Tally, list[Crossed]]:
    return crossed(row, tally, use.at, use.id)


def _keep_closed(row: MeterRow[Contract], tally: Tally, use: Use) -> tuple[Tally, list[Crossed]]:
    return tally, []  # a contract's period is judged as a whole
