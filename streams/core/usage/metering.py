"""Meters: buckets, pools and contracts that count usage, and what their counts mean.

Pure. A **meter** is one row: the versions of its definition, and a tally per period. Each usage record that counts for
it is a row of its own beside it (:class:`Use`), kept for as long as late usage is taken. From these rows everything can
be counted again, in the order of arrival: so usage that comes before its bucket or contract is not lost, and the tiers
that are raised when the definition comes are those that would have been raised one by one.

How each record counts once:

- A tally knows the offset up to which it has counted (``next_offset``; a meter counts from one topic only). A repeated
  chunk finds its records below it, whichever of the rows had become durable when the process died.
- The row of a record holds the offset that it came at. The same id at another offset is a duplicate.
- The two may be put in either order. Row without count: the record comes again, at the offset of its row, not below
  ``next_offset``, and counts. Count without row: it comes again below ``next_offset``, and only its row is put.
  A tally that is new or made anew (:func:`recounted`) counts the rows that are there, in the order of their offsets,
  in which they also become durable: what is missing is behind the last of them, and comes again.

A version counts for the periods that end after it began (``since``), the first one for all: late usage is measured by
what was agreed in its own period. What was raised is never raised again, and never taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Context, Decimal, Inexact
from typing import Generic, TypeVar

from streams.core.errors import Poison
from streams.core.usage.objects import Bucket, Contract, Measure, PeriodRule, Usage
from streams.core.usage.periods import Period, nth_period, period_at

#: Units and currencies of one tally. More are a mistake of the producer, and the row would grow without bound.
MAX_UNITS = 20
#: Versions of a definition that are remembered: two years of monthly changes.
MAX_VERSIONS = 24
#: Sums of decimal(38, 6) have to be exact, and Python's own context rounds to 28 digits without a word.
_EXACT = Context(prec=200, traps=[Inexact])

T = TypeVar("T", bound=Bucket | Contract)


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What is kept of a usage record: all that counts, and the offset at which it was counted."""

    id: str
    offset: int
    at: datetime
    quantity: Decimal
    unit: str
    count: int
    amount: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(Generic[T]):
    """What a definition said from ``since`` on."""

    since: datetime
    terms: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Sums of one period by unit and by currency, and the tiers (from 1) that were raised and corrected in it.

    Records below ``next_offset`` are in it. ``closed``: a contract's period has been judged.
    """

    start: datetime
    end: datetime
    next_offset: int = 0
    quantities: dict[str, Decimal] = field(default_factory=dict)
    amounts: dict[str, Decimal] = field(default_factory=dict)
    count: int = 0
    raised: tuple[int, ...] = ()
    corrected: tuple[int, ...] = ()
    closed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRow(Generic[T]):
    """A bucket, pool or contract. ``oldest``: no row of a usage record is of an earlier day (UTC); None: there is none.

    ``closed_until``: the end of the last period of a contract that was judged; at first when the contract was heard of,
    since no period that was over then is judged.
    """

    id: str
    revision: int = 0
    gone: bool = False
    versions: tuple[Version[T], ...] = ()
    tallies: tuple[Tally, ...] = ()
    oldest: date | None = None
    closed_until: datetime | None = None

    @property
    def terms(self) -> T | None:
        """The definition as it is now; None before it has come and after it is deleted."""
        return None if self.gone or not self.versions else self.versions[-1].terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """Tier number ``tier`` of ``tiers`` (its own size is ``amount``) to raise: ``measured`` is what made it so,
    ``limit`` the threshold or commit, ``usage_id`` the cause, if it was a record."""

    tier: int
    tiers: int
    amount: Decimal
    measured: Decimal
    limit: Decimal
    period: Period
    usage_id: str | None
    at: datetime


def use_of(usage: Usage, offset: int) -> Use:
    """What is kept of a record."""
    return Use(
        id=usage.id,
        offset=offset,
        at=usage.event_time,
        quantity=usage.quantity,
        unit=usage.unit,
        count=usage.count,
        amount=usage.amount,
        currency=usage.currency,
    )


# -- definitions ------------------------------------------------------------------------------------------------------


def define(row: MeterRow[T], revision: int, terms: T | None, since: datetime) -> MeterRow[T] | None:
    """The row with a new revision of its definition; None if it is old."""
    # A bucket that moves comes under both keys with one revision; in one partition it may leave before it arrives.
    arrives = revision == row.revision and row.gone and terms is not None
    if revision <= row.revision and not arrives:
        return None
    if terms is None:
        return replace(row, revision=revision, gone=True)
    row = replace(row, revision=revision, gone=False)
    if row.versions and row.versions[-1].terms == terms:
        return row
    return replace(row, versions=(*row.versions, Version(since=since, terms=terms))[-MAX_VERSIONS:])


def terms_at(row: MeterRow[T], at: datetime) -> tuple[T, Period] | None:
    """What counts for usage at ``at``: the newest version whose period ends after the version began."""
    for version in reversed(row.versions[1:]):
        rule = version.terms.period
        period = period_at(rule, at)
        if period is not None and period.end > version.since:
            return version.terms, period
        if period is None and _has_ended(rule, at):
            return None  # it says that there is no period any more: an older version must not
    if not row.versions:
        return None
    period = period_at(row.versions[0].terms.period, at)
    return None if period is None else (row.versions[0].terms, period)


def _has_ended(rule: PeriodRule, at: datetime) -> bool:
    first = nth_period(rule, 0)
    return first is not None and at >= first.start


# -- counting ---------------------------------------------------------------------------------------------------------


def counted(row: MeterRow[T], use: Use) -> tuple[MeterRow[T], Tally] | None:
    """The row and its tally with one more record; None where no period takes it, or its period has it already.

    Raises Poison (``too_many_units``).
    """
    found = terms_at(row, use.at)
    if found is None:
        return None
    tally = tally_of(row, found[1])
    if use.offset < tally.next_offset:
        return None
    tally = replace(_added(tally, use), next_offset=use.offset + 1)
    return replaced(row, tally), tally


def _added(tally: Tally, use: Use) -> Tally:
    quantities = {**tally.quantities, use.unit: _EXACT.add(tally.quantities.get(use.unit, Decimal(0)), use.quantity)}
    amounts = tally.amounts
    if use.amount is not None and use.currency is not None:
        amounts = {**amounts, use.currency: _EXACT.add(amounts.get(use.currency, Decimal(0)), use.amount)}
    if len(quantities) > MAX_UNITS or len(amounts) > MAX_UNITS:
        raise Poison("too_many_units", f"a period counts in at most {MAX_UNITS} units and currencies")
    return replace(tally, quantities=quantities, amounts=amounts, count=tally.count + use.count)


def must_recount(before: MeterRow[T], after: MeterRow[T]) -> bool:
    """Whether the tallies may no longer follow from what was counted: the first definition, or other periods."""
    known = {version.terms.period for version in before.versions}
    return any(version.terms.period not in known for version in after.versions)


def recounted(
    row: MeterRow[T], uses: Iterable[Use], look: Callable[[MeterRow[T], Tally, Use], tuple[Tally, list[Crossed]]]
) -> tuple[MeterRow[T], list[Crossed]]:
    """Count the records that are there again, in the order in which they came, where periods are new.

    Tallies of periods that are as they were stay (of a long one, not all records need be there any more); of one that
    begins at the same instant and ends at another, only what was raised stays. ``look`` sees every count.
    """
    tallies = []
    for tally in row.tallies:
        found = terms_at(row, tally.start)
        if found is not None and found[1].start == tally.start:
            same = found[1].end == tally.end
            bare = replace(tally, end=found[1].end, next_offset=0, quantities={}, amounts={}, count=0)
            tallies.append(tally if same else bare)
    row = replace(row, tallies=tuple(tallies))
    crossings: list[Crossed] = []
    for use in sorted(uses, key=lambda use: use.offset):
        try:
            counts = counted(row, use)
        except Poison:  # the definition must not be put aside for a record of the past
            continue
        if counts is not None:
            row, tally = counts
            tally, new = look(row, tally, use)
            row = replaced(row, tally)
            crossings += new
    return row, crossings


def replaced(row: MeterRow[T], tally: Tally) -> MeterRow[T]:
    """The row with this tally for its period."""
    return replace(row, tallies=(*(one for one in row.tallies if one.start != tally.start), tally))


def tally_of(row: MeterRow[T], period: Period) -> Tally:
    """The tally of a period; an empty one where nothing was counted."""
    for tally in row.tallies:
        if tally.start == period.start:
            return tally
    return Tally(start=period.start, end=period.end)


# -- buckets ----------------------------------------------------------------------------------------------------------


def thresholds(row: MeterRow[Bucket], bucket: Bucket, period: Period) -> list[Decimal]:
    """What has to be used until each tier is used up: what is carried over goes first, then tier after tier."""
    total, found = _carried(row, period), []
    for tier in bucket.tiers:
        total = _EXACT.add(total, tier)
        found.append(total)
    return found


def _carried(row: MeterRow[Bucket], period: Period) -> Decimal:
    """What was said last of this period; billing may say it a little before or after the period has begun."""
    for version in reversed(row.versions):
        into = version.terms.carried_into
        if into == period.starts_on or (into is None and version.terms.period.months is None):
            return version.terms.carried_over or Decimal(0)
    return Decimal(0)


def crossed(row: MeterRow[Bucket], tally: Tally, at: datetime, usage_id: str | None) -> tuple[Tally, list[Crossed]]:
    """The tiers that are used up by now and were not raised, in their order, and the tally that remembers them."""
    found = terms_at(row, tally.start)
    if found is None or row.gone:
        return tally, []
    bucket, period = found
    used = tally.quantities.get(bucket.unit, Decimal(0))
    new = [
        Crossed(
            tier=number,
            tiers=len(bucket.tiers),
            amount=bucket.tiers[number - 1],
            measured=used,
            limit=limit,
            period=period,
            usage_id=usage_id,
            at=at,
        )
        for number, limit in enumerate(thresholds(row, bucket, period), 1)
        if used >= limit and number not in tally.raised
    ]
    return (replace(tally, raised=(*tally.raised, *(one.tier for one in new))), new) if new else (tally, [])


# -- contracts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What the judgement of one period has found: tiers below which it is, and told ones that it has met since."""

    contract: Contract
    tally: Tally
    under: tuple[Crossed, ...]
    met: tuple[Crossed, ...]


def measured(contract: Contract, tally: Tally) -> Decimal:
    """What the contract measures, in this period."""
    if contract.measure == Measure.COUNT:
        return Decimal(tally.count)
    if contract.measure == Measure.AMOUNT:
        return tally.amounts.get(contract.currency or "", Decimal(0))
    return tally.quantities.get(contract.unit or "", Decimal(0))


def judged(row: MeterRow[Contract], tally: Tally, at: datetime, usage_id: str | None = None) -> Judged | None:
    """Judge one period as it is: each enabled tier that it is below is raised once; one that was raised and is met now
    is corrected once. None where the contract has no such period any more."""
    found = terms_at(row, tally.start)
    if found is None or row.gone:
        return None
    contract, period = found
    value = measured(contract, tally)
    under, met = [], []
    for number, tier in enumerate(contract.tiers, 1):
        one = Crossed(
            tier=number,
            tiers=len(contract.tiers),
            amount=tier.commit,
            measured=value,
            limit=tier.commit,
            period=period,
            usage_id=usage_id,
            at=at,
        )
        if tier.enabled and value < tier.commit and number not in tally.raised:
            under.append(one)
        elif value >= tier.commit and number in tally.raised and number not in tally.corrected:
            met.append(one)
    after = replace(
        tally,
        raised=(*tally.raised, *(one.tier for one in under)),
        corrected=(*tally.corrected, *(one.tier for one in met)),
        closed=True,
    )
    return Judged(contract=contract, tally=after, under=tuple(under), met=tuple(met))


def next_close(row: MeterRow[Contract]) -> tuple[Period, datetime] | None:
    """The next period of a contract that is to be judged, and the instant from which it is; None when there is none."""
    if row.gone or row.closed_until is None:
        return None
    found = terms_at(row, row.closed_until)
    if found is None:  # before its first period, or after its last
        first = nth_period(row.versions[-1].terms.period, 0)
        if first is None or first.start <= row.closed_until:
            return None
        found = row.versions[-1].terms, first
    contract, period = found
    return period, period.end + timedelta(hours=contract.grace_hours)
