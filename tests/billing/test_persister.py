"""The persister's handlers on real batches, a real codec and a real billing store; only the broker is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from agents.plan_changes import persistence
from agents.plan_changes.persistence import Persister
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.clock import NextDue, Tick
from streams.core.errors import Transient
from streams.core.objects import ServicePlanChange
from streams.core.outcome import SealedOutcome
from streams.core.plan_change.messages import Acknowledgement, ExecutionResult, ExecutionVerdict, Settlement
from streams.sinks.billing import BillingStore, Fenced, SqlBillingStore
from streams.topics import ACKNOWLEDGEMENTS, DUE, OUTCOMES, SERVICE_PLANS, SETTLEMENTS, TICKS
from tests.billing.makers import (
    EVENING,
    LONG_AGO,
    MIDNIGHT,
    MORNING,
    NEXT_MIDNIGHT,
    closing,
    outcome,
    plan,
    releasing,
    sealed,
)
from tests.support.batch import Lane, Outputs, values

DEAD_LETTERS = "dead-letters.persistence"


@dataclass(frozen=True)
class WallClock:
    """A wall clock that stands still."""

    at: datetime

    def now(self) -> datetime:
        return self.at


@dataclass(frozen=True)
class FixedPorts:
    codec: Codec
    billing_store: BillingStore
    clock: WallClock


class Worker:
    """One worker of the app ``persistence`` with one partition."""

    def __init__(
        self,
        store: BillingStore,
        *,
        wall: datetime = EVENING,
        virtual: bool = False,
        second_part_hours: int | None = None,
    ) -> None:
        schemas = LocalSchemas()
        self.codec = Codec(LocalIds(schemas), schemas)
        self.persister = Persister(
            FixedPorts(self.codec, store, WallClock(wall)),
            group="persistence",
            virtual=virtual,
            second_part_hours=second_part_hours,
        )
        self.lane = Lane("persistence")

    def outcomes(self, results: Sequence[ExecutionResult | bytes | None]) -> Outputs:
        return self.lane.run(self.persister.outcomes, OUTCOMES, [self._record(OUTCOMES, one) for one in results])

    def settlements(self, settlements: Sequence[Settlement]) -> Outputs:
        records = [self._record(SETTLEMENTS, one) for one in settlements]
        return self.lane.run(self.persister.settlements, SETTLEMENTS, records)

    def tick(self, now: datetime, **crash: Any) -> Outputs:
        """One tick arrives; the runtime has taken the time from it."""
        self.lane.now = now
        value = self.codec.encode(TICKS, Tick(epoch="night", seq=1, now=now))
        return self.lane.replay(self.persister.ticks, self.lane.chunk(TICKS, [(None, value)]), **crash)

    def next_due(self, outputs: Outputs) -> list[datetime | None]:
        """What was reported to the virtual clock."""
        return [report.due for report in values(outputs, DUE, self.codec.decoder(NextDue))]

    def acknowledgements(self, outputs: Outputs) -> list[Acknowledgement]:
        return values(outputs, ACKNOWLEDGEMENTS, self.codec.decoder(Acknowledgement))

    def plans(self, outputs: Outputs) -> list[ServicePlanChange]:
        return values(outputs, SERVICE_PLANS, self.codec.decoder(ServicePlanChange))

    def _record(self, topic: str, message: Any) -> tuple[str | None, bytes | None]:
        if message is None or isinstance(message, bytes):
            return "s0", message
        return message.service_id, self.codec.encode(topic, message)


def load(store: SqlBillingStore, count: int) -> None:
    store.load_plans((plan(number) for number in range(count)), occurred_at=LONG_AGO)


def test_a_chunk_of_outcomes_is_acknowledged_by_service(store: SqlBillingStore) -> None:
    """The seal survives the wire (padded decimals, milliseconds), and each answer goes to its service's partition."""
    load(store, 3)
    worker = Worker(store)

    outputs = worker.outcomes([sealed(number) for number in range(3)])

    assert [output.key for output in outputs] == ["s0", "s1", "s2"]
    assert [(ack.kind, ack.committed_at) for ack in worker.acknowledgements(outputs)] == [("persisted", EVENING)] * 3
    assert store.outcomes(["c1"])["c1"].rows_match


def test_the_same_chunk_again_sends_the_same_again(store: SqlBillingStore) -> None:
    """After a crash the chunk comes again, in another process and later: scheduler and tables see identical records."""
    load(store, 2)
    first, second = Worker(store), Worker(store, wall=MORNING)
    outcomes, settlements = [sealed(0), sealed(1)], [releasing(0), closing(1)]

    before = first.outcomes(outcomes), first.settlements(settlements)
    after = second.outcomes(outcomes), second.settlements(settlements)

    assert after == before


def test_what_cannot_be_persisted_is_put_aside_alone(store: SqlBillingStore) -> None:
    """Garbage, a tombstone and a forged outcome among two good ones."""
    load(store, 3)
    worker = Worker(store)
    forged = replace(sealed(1), sealed=SealedOutcome(outcome=outcome(1), hash="0" * 64))

    outputs = worker.outcomes([sealed(0), b"not avro", None, forged, sealed(2)])

    assert [ack.change_id for ack in worker.acknowledgements(outputs)] == ["c0", "c2"]
    assert len([output for output in outputs if output.topic == DEAD_LETTERS]) == 3


def test_executions_without_an_outcome_cause_nothing(store: SqlBillingStore) -> None:
    """Aborted ones travel on the same topic."""
    worker = Worker(store)

    assert worker.outcomes([replace(sealed(0), verdict=ExecutionVerdict.ABORTED, sealed=None)]) == []


def test_a_release_publishes_the_plan_by_account_before_it_is_acknowledged(store: SqlBillingStore) -> None:
    """A chunk of closes and releases is answered in its own order."""
    load(store, 2)
    worker = Worker(store)
    worker.outcomes([sealed(0)])

    outputs = worker.settlements([closing(1), releasing(0), releasing(1)])

    assert [(output.topic, output.key) for output in outputs] == [
        (ACKNOWLEDGEMENTS, "s1"),
        (SERVICE_PLANS, "a0"),
        (ACKNOWLEDGEMENTS, "s0"),
        (DEAD_LETTERS, b"s1"),
    ]
    assert [ack.kind for ack in worker.acknowledgements(outputs)] == ["missed", "released"]
    (change,) = worker.plans(outputs)
    assert (change.revision, change.subject.rate_plan_id, change.subject.change_id) == (2, "GOLD", "c0")
    assert change == store.plan("s0")


def test_in_a_virtual_night_commits_are_dated_by_ticks(store: SqlBillingStore) -> None:
    """Never by the machine's clock; a message from after the last tick here moves the date on, never back."""
    load(store, 3)
    worker = Worker(store, wall=MORNING, virtual=True)

    (before_any_tick,) = worker.acknowledgements(worker.outcomes([sealed(0)]))
    assert worker.tick(MIDNIGHT) == []
    (after_tick,) = worker.acknowledgements(worker.outcomes([sealed(1)]))
    (missed,) = worker.acknowledgements(worker.settlements([closing(2, sent_at=MORNING)]))

    assert (before_any_tick.committed_at, before_any_tick.late) == (EVENING, False)
    assert (after_tick.committed_at, after_tick.late) == (MIDNIGHT, True)
    assert (missed.kind, missed.committed_at) == ("missed", MORNING)


def test_a_retried_chunk_does_not_take_the_partition_back(
    store: SqlBillingStore, open_store: Callable[[], SqlBillingStore]
) -> None:
    """The old owner's memory is rebuilt at every retry; if that took a new fence, it would shut the new owner out."""
    load(store, 2)
    old, new = Worker(open_store()), Worker(open_store())
    old.outcomes([sealed(0)])
    new.outcomes([sealed(0)])

    old.lane.reopen()

    with pytest.raises(Fenced):
        old.outcomes([sealed(1)])
    assert [ack.change_id for ack in new.acknowledgements(new.outcomes([sealed(1)]))] == ["c1"]


def test_a_partition_that_comes_back_is_written_again(
    store: SqlBillingStore, open_store: Callable[[], SqlBillingStore]
) -> None:
    """It went to another worker and returned: the first one opens it anew and is the newest writer."""
    load(store, 2)
    first, second = Worker(open_store()), Worker(open_store())
    first.outcomes([sealed(0)])
    second.outcomes([sealed(0)])

    first.lane = Lane("persistence")

    assert [ack.change_id for ack in first.acknowledgements(first.outcomes([sealed(1)]))] == ["c1"]


def test_a_lost_database_leaves_the_chunk_for_another_try() -> None:
    """Nothing is acknowledged and nothing dead-lettered: the runtime tries the whole chunk again."""
    worker = Worker(SqlBillingStore("postgresql://curfew@127.0.0.1:1/billing"))

    with pytest.raises(Transient):
        worker.outcomes([sealed(0), b"not avro"])
    assert worker.lane.sent == []


# -- outcomes in two parts ------------------------------------------------------------------------------------------

SECOND_PART_HOURS = 2
PART_DUE = MIDNIGHT - timedelta(hours=SECOND_PART_HOURS)


def two_parts(store: BillingStore, *, virtual: bool = True) -> Worker:
    worker = Worker(store, wall=PART_DUE, virtual=virtual, second_part_hours=SECOND_PART_HOURS)
    worker.lane.now = EVENING
    return worker


def test_ticks_finish_the_second_parts_and_then_the_changes_are_acknowledged(store: SqlBillingStore) -> None:
    """Nothing is said before; the clock learns when to come, and that nothing waits any more."""
    load(store, 2)
    worker = two_parts(store)

    first = worker.outcomes([sealed(0), sealed(1)])
    early = worker.tick(PART_DUE - timedelta(milliseconds=1))
    due = worker.tick(PART_DUE)
    after = worker.tick(MIDNIGHT)

    assert [output.topic for output in first] == [DUE]
    assert worker.next_due(first) == [PART_DUE]
    assert early == []
    assert [output.key for output in due] == ["s0", "s1", "persistence/0"]
    assert [(ack.kind, ack.committed_at, ack.late) for ack in worker.acknowledgements(due)] == [
        ("persisted", PART_DUE, False)
    ] * 2
    assert worker.next_due(due) == [None]
    assert after == []
    assert store.counts().waiting == 0


def test_first_parts_do_not_ask_the_database_when_the_next_second_part_is_due(
    store: SqlBillingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what memory cannot know is asked: what was there before it, and what is left after some were finished."""
    asked: list[int] = []
    ask = store.next_due

    def next_due(partition: int) -> datetime | None:
        asked.append(partition)
        return ask(partition)

    monkeypatch.setattr(store, "next_due", next_due)
    load(store, 5)
    two_parts(store).outcomes([sealed(4, effective_from=NEXT_MIDNIGHT)])
    asked.clear()
    worker = two_parts(store)

    later = worker.next_due(worker.outcomes([sealed(0, effective_from=NEXT_MIDNIGHT + timedelta(hours=1))]))
    others = [worker.next_due(worker.outcomes([sealed(number)])) for number in (1, 2, 1)]
    before = len(asked)
    left = worker.next_due(worker.tick(PART_DUE))

    assert later == [PART_DUE + timedelta(days=1)], "of the one that an earlier process has written"
    assert others == [[PART_DUE], [], []], "said once"
    assert before == 1
    assert left == [PART_DUE + timedelta(days=1)]
    assert len(asked) == 2


def test_a_worker_that_takes_over_between_the_parts_finishes_them(
    store: SqlBillingStore, open_store: Callable[[], SqlBillingStore]
) -> None:
    """It knows of them from the database, also when the setting was taken away meanwhile."""
    load(store, 1)
    two_parts(store).outcomes([sealed(0)])

    other = Worker(open_store(), virtual=True)

    assert other.tick(EVENING) == []
    assert [ack.change_id for ack in other.acknowledgements(other.tick(PART_DUE))] == ["c0"]


def test_acknowledgements_lost_in_a_crash_are_sent_again(
    store: SqlBillingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second parts are committed, one answer of three leaves, the process dies: the next tick sends all three."""
    monkeypatch.setattr(persistence, "SLICE", 3)
    load(store, 5)
    worker = two_parts(store)
    worker.outcomes([sealed(number) for number in range(5)])

    lost = worker.tick(PART_DUE, crash_after_outputs=1)
    again = worker.tick(PART_DUE + timedelta(minutes=1))

    assert [ack.change_id for ack in worker.acknowledgements(lost)] == ["c0"]
    acks = worker.acknowledgements(again)
    assert [ack.change_id for ack in acks] == ["c0", "c1", "c2", "c3", "c4"]
    assert acks[0] == worker.acknowledgements(lost)[0]
    assert worker.tick(MIDNIGHT) == []


def test_a_tick_finishes_so_much_and_the_next_one_goes_on(
    store: SqlBillingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closes must not wait for a whole evening's second parts, while time goes on by itself."""
    monkeypatch.setattr(persistence, "SLICE", 2)
    monkeypatch.setattr(persistence, "SLICES_PER_TICK", 2)
    load(store, 5)
    worker = two_parts(store, virtual=False)
    worker.outcomes([sealed(number) for number in range(5)])

    ticks = [worker.acknowledgements(worker.tick(PART_DUE)) for _ in range(3)]

    assert [len(acks) for acks in ticks] == [4, 1, 0]


def test_a_virtual_clock_finds_everything_finished(store: SqlBillingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands still until the tick is handled, and its next one may be the deadline."""
    monkeypatch.setattr(persistence, "SLICE", 2)
    monkeypatch.setattr(persistence, "SLICES_PER_TICK", 1)
    load(store, 5)
    worker = two_parts(store)
    worker.outcomes([sealed(number) for number in range(5)])

    assert len(worker.acknowledgements(worker.tick(PART_DUE))) == 5


def test_a_second_part_that_is_refused_becomes_a_dead_letter_that_can_be_redriven(store: SqlBillingStore) -> None:
    """Made again from what the store kept: it carries the sealed outcome, and its memberships are taken back."""
    load(store, 2)
    worker = two_parts(store)
    euro = (replace(outcome(0).fees[0], currency="EURO"),)
    worker.outcomes([sealed(0, fees=euro), sealed(1)])

    outputs = worker.tick(PART_DUE)

    assert [ack.change_id for ack in worker.acknowledgements(outputs)] == ["c1"]
    (letter,) = values(outputs, DEAD_LETTERS, worker.codec.decoder(ExecutionResult))
    assert letter.sealed == sealed(0, fees=euro).sealed
    assert worker.tick(MIDNIGHT) == []
    (missed,) = worker.acknowledgements(worker.settlements([closing(0)]))
    assert missed.kind == "missed"


def test_without_the_setting_ticks_ask_the_database_once(store: SqlBillingStore) -> None:
    """Whether something is left over from before; then they cost nothing."""
    load(store, 1)
    worker = Worker(store, virtual=True)
    worker.outcomes([sealed(0)])
    worker.tick(EVENING)

    store.dispose()
    worker.persister._store = SqlBillingStore("postgresql://curfew@127.0.0.1:1/billing")

    assert worker.tick(MIDNIGHT) == []
