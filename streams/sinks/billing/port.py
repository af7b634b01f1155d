"""What the rest of Curfew may ask of the billing store, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeAlias

from streams.core.errors import Fatal, Poison
from streams.core.objects import ServicePlan, ServicePlanChange
from streams.core.outcome import Outcome
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult, Settlement

#: Business time, asked after COMMIT: aware UTC.
Now: TypeAlias = Callable[[], datetime]


class Fenced(Fatal):
    """A newer writer has taken this partition: whoever gets this must stop, its view of the partition is old."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The right to write for one partition of a consumer group, until someone takes a newer one."""

    group: str
    partition: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Outcomes are written in two parts: memberships at once, the rest from ``before`` their deadline on.

    ``at`` is business time (None before the first tick): what is due by then is written whole. The ticks of
    ``partition`` will finish the others.
    """

    before: timedelta
    at: datetime | None
    partition: int

    def due_at(self, deadline: datetime) -> datetime:
        """The instant from which the second part may be written."""
        return deadline - self.before

    def waits(self, deadline: datetime) -> bool:
        """True if the second part has to wait."""
        return self.at is None or self.at < self.due_at(deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A second part that was written, or can never be: what to answer to its ``result`` (made again from the store)."""

    result: ExecutionResult
    answer: Acknowledgement | Poison


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A change became true: the next revision of its service's plan, and the acknowledgement to send after it."""

    change: ServicePlanChange
    acknowledgement: Acknowledgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much the store holds. A missed change that was persisted late counts in ``missed``, ``persisted``, ``late``.

    ``waiting`` are changes of which the memberships are written and the rest is due later. ``unconfirmed`` are
    persisted changes whose commit time was not read yet (the process died between COMMIT and reading the clock); the
    redelivery of their outcome confirms them.
    """

    services: int
    memberships: int
    options: int
    persisted: int
    missed: int
    late: int
    released: int
    unconfirmed: int
    fees: int
    tasks: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One change at one deadline, as the store has decided it; all instants aware UTC.

    ``missed``: nothing was there at ``deadline``. ``hash``, ``revision`` and ``committed_at`` are the persisted
    outcome's (None: nothing persisted for this deadline; only ``committed_at`` None: unconfirmed, see :class:`Counts`).
    ``plan_revision`` is the revision of the service's plan that the change became, None before its release.
    """

    change_id: str
    account_id: str
    service_id: str
    deadline: datetime
    missed: bool
    revision: int | None
    hash: str | None
    committed_at: datetime | None
    plan_revision: int | None

    @property
    def persisted(self) -> bool:
        """True if an outcome was written for this deadline, in time or late."""
        return self.hash is not None

    @property
    def late(self) -> bool:
        """True if it was written, but not before the deadline."""
        return self.persisted and (
            self.missed or (self.committed_at is not None and self.committed_at >= self.deadline)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredOutcome:
    """A persisted outcome together with the rows that were written for it, for reconciliation.

    ``differing`` names the tables (``membership``, ``service_option``, ``fee``, ``task``) whose rows are not what the
    outcome asked for: every row with its start, nothing else of the service with its change id, and what it ended is
    over.
    """

    outcome: Outcome
    hash: str
    differing: tuple[str, ...]

    @property
    def rows_match(self) -> bool:
        """True if no table differs."""
        return not self.differing


class BillingStore(Protocol):
    """The database of record for memberships, options and products.

    Answers come in the order of the arguments, one per element. Every method is blocking and thread-safe, commits once
    and can be repeated: a repeated call gives the same answers. Raises :class:`~streams.core.errors.Transient` when the
    database cannot be used now (nothing of the call is lost or half done), :class:`Fenced` for an old ``fence``.
    """

    @property
    def parallel(self) -> int:
        """How many calls may usefully run at the same time (1 for SQLite, which has one writer)."""
        ...

    def migrate(self) -> None:
        """Create or update the tables; safe when two processes do it at once."""
        ...

    def take_fence(self, group: str, partition: int) -> Fence:
        """Become the writer of a partition; every older fence is worth nothing from here on."""
        ...

    def persist(
        self, results: Sequence[ExecutionResult], *, now: Now, fence: Fence | None = None, split: Split | None = None
    ) -> list[Acknowledgement | Poison | None]:
        """Write sealed outcomes, whole or (with ``split``) their memberships only.

        The acknowledgement says ``persisted``, or ``missed`` when the deadline was closed and late writing is not
        accepted. None: nothing to say (not a sealed result, or its second part is still to come). Poison: this one can
        never be written.
        """
        ...

    def next_due(self, partition: int) -> datetime | None:
        """When :meth:`finish` has something to do for this partition; None if nothing waits."""
        ...

    def finish(
        self, partition: int, *, at: datetime, limit: int, now: Now, fence: Fence | None = None
    ) -> list[Finished]:
        """Write second parts that are due at ``at``, earliest deadline first, at most ``limit``; both parts are
        persisted then. What was finished before comes out again until :meth:`forget` hears that its answer is durable.
        """
        ...

    def forget(self, change_ids: Sequence[str], *, fence: Fence | None = None) -> None:
        """The answers to these finished changes are durable."""
        ...

    def close(
        self, settlements: Sequence[Settlement], *, now: Now, fence: Fence | None = None
    ) -> list[Acknowledgement | Poison]:
        """Decide at the deadline: ``persisted`` if the outcome is there, otherwise ``missed``, for good."""
        ...

    def release(
        self, settlements: Sequence[Settlement], *, now: Now, fence: Fence | None = None
    ) -> list[Released | Poison]:
        """Make persisted changes visible: the next revision of each service's plan."""
        ...

    def load_plans(self, plans: Iterable[ServicePlan], *, occurred_at: datetime) -> list[ServicePlanChange]:
        """Import services with their plans as revision 1; services that are there already keep what they have.

        Returns the first revision of each, to be published. Raises Misconfigured naming the plan that is refused.
        """
        ...

    def counts(self) -> Counts: ...

    def changes(self) -> Iterator[Settled]:
        """Every decision, ordered by change id, then deadline; pages of its own, so a million are no matter."""
        ...

    def outcomes(self, change_ids: Sequence[str]) -> dict[str, StoredOutcome]:
        """Persisted outcomes by change id, with a comparison of their rows; unknown ids are left out."""
        ...

    def plan(self, service_id: str) -> ServicePlanChange | None:
        """The plan of a service as last published, None for an unknown service."""
        ...

    def dispose(self) -> None:
        """Close the connections."""
        ...
