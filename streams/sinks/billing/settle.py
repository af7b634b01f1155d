"""Persist and close: gather what the store knows, decide, write; all inside a transaction that the caller holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import Connection

from streams.core.errors import Poison
from streams.core.outcome import Outcome
from streams.core.plan_change.messages import (
    Acknowledgement,
    AcknowledgementKind,
    CommandStep,
    ExecutionResult,
    ExecutionVerdict,
    Settlement,
)
from streams.sinks.billing import gather, parts, write
from streams.sinks.billing.decide import (
    Facts,
    Missed,
    Opened,
    Persisted,
    UpdateMissed,
    Waiting,
    Write,
    WriteMissed,
    check_settlement,
    judge_close,
    judge_outcome,
    opened,
    replaces,
    takes_back,
)
from streams.sinks.billing.port import Split

Message: TypeAlias = ExecutionResult | Settlement
Fact: TypeAlias = Persisted | Missed | Waiting | Poison
#: Of a close, which decides: nothing waits after it.
Closed: TypeAlias = Persisted | Missed | Poison


def waves(messages: Mapping[int, Outcome | Settlement]) -> Iterator[list[int]]:
    """Indexes in waves, in which no change or service comes twice: the second one must see what the first has done."""
    last: dict[str, int] = {}
    found: dict[int, list[int]] = {}
    for index, message in messages.items():
        keys = f"change {message.change_id}", f"service {message.service_id}"
        wave = 1 + max(last.get(key, 0) for key in keys)
        last.update(dict.fromkeys(keys, wave))
        found.setdefault(wave, []).append(index)
    yield from found.values()


def opened_all(results: Sequence[ExecutionResult]) -> dict[int, Opened | Poison]:
    """The outcome of each sealed result by its index, or why it is none (outside the transaction: it takes time)."""
    found: dict[int, Opened | Poison] = {}
    for index, result in enumerate(results):
        if result.step is CommandStep.EXECUTE and result.verdict is ExecutionVerdict.SEALED:
            try:
                found[index] = opened(result)
            except Poison as poison:
                found[index] = poison
    return found


def persist(connection: Connection, outcomes: Mapping[int, Opened], split: Split | None = None) -> dict[int, Fact]:
    """The fact for each opened outcome, by its index."""
    facts: dict[int, Fact] = {}
    mark: int | None = None
    for wave in waves({index: sealed.outcome for index, sealed in outcomes.items()}):
        known = _known(connection, [outcomes[index].outcome for index in wave])
        writes: dict[str, tuple[int, Write]] = {}
        halves: dict[str, tuple[int, Write]] = {}
        for index in wave:
            try:
                verdict = judge_outcome(outcomes[index], known)
            except Poison as poison:
                facts[index] = poison
                continue
            if isinstance(verdict, Write):
                of_its_kind = halves if _waits(verdict, split) else writes
                of_its_kind[verdict.opened.outcome.change_id] = index, verdict
            else:
                facts[index] = verdict
        if writes:
            mark = mark or write.new_mark(connection)
            facts.update(_write(connection, writes, mark))
        if halves and split is not None:
            facts.update(_write_first(connection, halves, split))
    return facts


def _waits(one: Write, split: Split | None) -> bool:
    return split is not None and not one.after_missed and split.waits(one.opened.outcome.effective_from)


def _known(connection: Connection, outcomes: Sequence[Outcome]) -> Facts:
    known = gather.decisions(connection, {outcome.change_id for outcome in outcomes})
    parts.know(
        connection, [outcome.change_id for outcome in outcomes], [outcome.service_id for outcome in outcomes], known
    )
    replaced = [outcome for outcome in outcomes if replaces(outcome, known)]
    parts.take_back(connection, [outcome.change_id for outcome in replaced])
    for outcome in replaced:
        del known.waiting[outcome.change_id], known.waiting_services[outcome.service_id]
    since = min(outcome.effective_from for outcome in outcomes)
    gather.services(connection, {outcome.service_id for outcome in outcomes}, since, known)
    return known


def _write(connection: Connection, writes: Mapping[str, tuple[int, Write]], mark: int) -> dict[int, Fact]:
    def write_some(some: Sequence[Write]) -> None:
        write.write_outcomes(connection, some, mark)

    facts: dict[int, Fact] = {
        index: Persisted(mark_id=mark, deadline=one.opened.outcome.effective_from, after_missed=one.after_missed)
        for index, one in writes.values()
    }
    for refused, poison in write.bisect(connection, [one for _, one in writes.values()], write_some):
        facts[writes[refused.opened.outcome.change_id][0]] = poison
    return facts


def _write_first(connection: Connection, halves: Mapping[str, tuple[int, Write]], split: Split) -> dict[int, Fact]:
    def write_some(some: Sequence[Write]) -> None:
        parts.write_first(connection, some, split)

    facts: dict[int, Fact] = {index: Waiting() for index, _ in halves.values()}
    for refused, poison in write.bisect(connection, [one for _, one in halves.values()], write_some):
        facts[halves[refused.opened.outcome.change_id][0]] = poison
    return facts


def close(connection: Connection, settlements: Sequence[Settlement]) -> dict[int, Closed]:
    """The fact for each settlement, by its index."""
    facts: dict[int, Closed] = {}
    mark: int | None = None
    refused = {index: check_settlement(settlement) for index, settlement in enumerate(settlements)}
    facts.update({index: poison for index, poison in refused.items() if poison is not None})
    for wave in waves({index: settlements[index] for index in refused if index not in facts}):
        known = gather.decisions(connection, {settlements[index].change_id for index in wave})
        parts.know(connection, [settlements[index].change_id for index in wave], [], known)
        missed: dict[str, int] = {}
        updates: list[Settlement] = []
        for index in wave:
            match judge_close(settlements[index], known):
                case WriteMissed():
                    missed[settlements[index].change_id] = index
                case UpdateMissed(mark_id=mark_id):
                    updates.append(settlements[index])
                    facts[index] = Missed(mark_id=mark_id)
                case fact:
                    facts[index] = fact
        if missed:
            mark = mark or write.new_mark(connection)
            facts.update({index: Missed(mark_id=mark) for index in missed.values()})
            facts.update(_write_missed(connection, [settlements[index] for index in missed.values()], missed, mark))
        write.update_missed(connection, updates)
        lost = [settlements[index] for index in wave if isinstance(facts[index], Missed)]
        parts.take_back(connection, [one.change_id for one in lost if takes_back(one, known)])
    return facts


def _write_missed(
    connection: Connection, closed: Sequence[Settlement], indexes: Mapping[str, int], mark: int
) -> dict[int, Poison]:
    def write_some(some: Sequence[Settlement]) -> None:
        write.write_missed(connection, some, mark)

    return {indexes[refused.change_id]: poison for refused, poison in write.bisect(connection, closed, write_some)}


def is_late(fact: Persisted, stamps: Mapping[int, datetime]) -> bool:
    """Only the commit time decides whether the deadline was met."""
    return fact.after_missed or stamps[fact.mark_id] >= fact.deadline


def acknowledge(message: Message, fact: Persisted | Missed, stamps: Mapping[int, datetime]) -> Acknowledgement:
    """The answer to ``message``; of its own revision, so that the scheduler recognises it."""
    persisted = isinstance(fact, Persisted)
    return Acknowledgement(
        kind=AcknowledgementKind.PERSISTED if persisted else AcknowledgementKind.MISSED,
        change_id=message.change_id,
        revision=message.revision,
        account_id=message.account_id,
        service_id=message.service_id,
        committed_at=stamps[fact.mark_id],
        late=not isinstance(fact, Persisted) or is_late(fact, stamps),
    )
