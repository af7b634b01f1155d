"""The billing store over SQLAlchemy: many changes per transaction, the clock read after COMMIT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeVar

from streams.core.errors import Poison
from streams.core.objects import ServicePlan, ServicePlanChange
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult, Settlement
from streams.sinks.billing import migrate, parts, plans, read, settle
from streams.sinks.billing.database import Database
from streams.sinks.billing.decide import Opened, Waiting
from streams.sinks.billing.engine import SQLITE_CACHE_MIB
from streams.sinks.billing.port import Counts, Fence, Finished, Now, Released, Settled, Split, StoredOutcome

T = TypeVar("T")

#: Plans per transaction of an import: SQLite takes at most 32,766 parameters in one statement, and a transaction of a
#: million plans would keep the persister waiting.
LOAD_PLANS = 2_000
#: Change ids per query, for the same limit.
READ_OUTCOMES = 1_000


class SqlBillingStore:
    """A :class:`~streams.sinks.billing.port.BillingStore` in SQLite or PostgreSQL; the URL says which.

    Connects at the first call. Raises Misconfigured for a URL that is neither. ``sqlite_cache_mib``: memory that a
    connection to SQLite fills with pages as the store grows, up to this and no further.
    """

    def __init__(self, url: str, sqlite_cache_mib: int = SQLITE_CACHE_MIB) -> None:
        self._database = Database(url, sqlite_cache_mib)

    def __str__(self) -> str:
        return str(self._database)

    @property
    def parallel(self) -> int:
        return self._database.parallel

    def migrate(self) -> None:
        self._database.migrate()

    def schema_revision(self) -> str | None:
        """The newest migration that the tables have had; None when there are none."""
        with self._database.reading() as connection:
            return migrate.revision(connection)

    def dispose(self) -> None:
        self._database.dispose()

    def take_fence(self, group: str, partition: int) -> Fence:
        return self._database.take_fence(group, partition)

    def persist(
        self, results: Sequence[ExecutionResult], *, now: Now, fence: Fence | None = None, split: Split | None = None
    ) -> list[Acknowledgement | Poison | None]:
        answers: list[Acknowledgement | Poison | None] = [None] * len(results)
        facts: dict[int, settle.Fact] = {}
        outcomes: dict[int, Opened] = {}
        for index, found in settle.opened_all(results).items():
            if isinstance(found, Poison):
                facts[index] = found
            else:
                outcomes[index] = found
        if outcomes:
            facts |= self._database.write(partial(settle.persist, outcomes=outcomes, split=split), fence)
        stamps = self._database.stamp(_marks(facts.values()), now)
        for index, fact in facts.items():
            if not isinstance(fact, Waiting):
                answers[index] = fact if isinstance(fact, Poison) else settle.acknowledge(results[index], fact, stamps)
        return answers

    def next_due(self, partition: int) -> datetime | None:
        with self._database.reading() as connection:
            return parts.next_due(connection, partition)

    def finish(
        self, partition: int, *, at: datetime, limit: int, now: Now, fence: Fence | None = None
    ) -> list[Finished]:
        done = self._database.write(partial(parts.finish, partition=partition, at=at, limit=limit), fence)
        stamps = self._database.stamp(_marks(one.fact for one in done), now)
        return [
            Finished(
                result=one.result,
                answer=one.fact if isinstance(one.fact, Poison) else settle.acknowledge(one.result, one.fact, stamps),
            )
            for one in done
        ]

    def forget(self, change_ids: Sequence[str], *, fence: Fence | None = None) -> None:
        for some in _batched(change_ids, READ_OUTCOMES):
            self._database.write(partial(parts.forget, change_ids=some), fence)

    def close(
        self, settlements: Sequence[Settlement], *, now: Now, fence: Fence | None = None
    ) -> list[Acknowledgement | Poison]:
        facts = self._database.write(lambda connection: settle.close(connection, settlements), fence)
        stamps = self._database.stamp(_marks(facts.values()), now)
        return [
            fact if isinstance(fact, Poison) else settle.acknowledge(settlement, fact, stamps)
            for settlement, fact in ((settlement, facts[index]) for index, settlement in enumerate(settlements))
        ]

    def release(
        self, settlements: Sequence[Settlement], *, now: Now, fence: Fence | None = None
    ) -> list[Released | Poison]:
        facts = self._database.write(lambda connection: plans.release(connection, settlements), fence)
        freed = [fact for fact in facts.values() if isinstance(fact, plans.Freed)]
        stamps = self._database.stamp({one.mark_id for one in freed} | {one.persisted.mark_id for one in freed}, now)
        return [
            fact if isinstance(fact, Poison) else plans.answer(settlement, fact, stamps)
            for settlement, fact in ((settlement, facts[index]) for index, settlement in enumerate(settlements))
        ]

    def load_plans(self, imported: Iterable[ServicePlan], *, occurred_at: datetime) -> list[ServicePlanChange]:
        changes: list[ServicePlanChange] = []
        for some in _batched(imported, LOAD_PLANS):
            changes += self._database.write(partial(plans.load, plans=some, occurred_at=occurred_at))
        return changes

    def counts(self) -> Counts:
        with self._database.reading() as connection:
            return read.counts(connection)

    def changes(self) -> Iterator[Settled]:
        last: Settled | None = None
        while True:
            with self._database.reading() as connection:
                page = read.page(connection, last)
            if not page:
                return
            yield from page
            last = page[-1]

    def outcomes(self, change_ids: Sequence[str]) -> dict[str, StoredOutcome]:
        found: dict[str, StoredOutcome] = {}
        for some in _batched(change_ids, READ_OUTCOMES):
            with self._database.reading() as connection:
                found.update(read.outcomes(connection, some))
        return found

    def plan(self, service_id: str) -> ServicePlanChange | None:
        with self._database.reading() as connection:
            return plans.current(connection, [service_id]).get(service_id)


def _marks(facts: Iterable[settle.Fact]) -> set[int]:
    return {fact.mark_id for fact in facts if not isinstance(fact, Poison | Waiting)}


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
