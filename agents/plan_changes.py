"""The scheduler of plan changes: requests, results, acknowledgements and ticks in; commands, settlements, events out.

Everything is decided by :class:`streams.core.change_desk.Desk`; this module decodes, sends and reports what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, assert_never

from streams.codec import Codec
from streams.core.change import Effect, RaiseFinding, Rules, SendCommand, SendReply, SendSettlement
from streams.core.change_desk import Desk, rebuild
from streams.core.clock import NextDue
from streams.core.due import DueIndex
from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.hooks import HookRegistry
from streams.core.matrix import MatrixElement
from streams.core.messages import (
    Acknowledgement,
    ExecuteCommand,
    ExecutionResult,
    Reply,
    Settlement,
    ValidatedRequest,
)
from streams.kafka.chunks import Batch
from streams.kafka.runtime import Runtime

VALIDATED = "plan-change.validated"
OUTCOMES = "plan-change.outcomes"
ACKNOWLEDGEMENTS = "plan-change.acknowledgements"
TICKS = "clock.ticks"
REPLIES = "plan-change.replies"
COMMANDS = "plan-change.commands"
SETTLEMENTS = "plan-change.settlements"
FINDINGS = "events.findings"
DUE = "clock.due"

# The kind under which the catalogue keeps the matrix.
ELEMENT = "matrix_element"

# Commands in flight per partition. Fewer, and executors wait for the scheduler; many more, and a deadline that comes
# first has to wait behind work for later ones that was sent already.
WINDOW = 2_000

# Rows handled between two points of durability. More, and a crash repeats more; fewer, and each costs a round trip.
SLICE = 500

T = TypeVar("T")


class Catalogue(Protocol):
    """Topics that every worker reads whole."""

    def get(self, kind: str, id: str) -> Any: ...


class Ports(Protocol):
    """What this agent needs of the outside. Of hooks only their keys matter here: they run in the execution app."""

    @property
    def codec(self) -> Codec: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def hooks(self) -> HookRegistry: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the scheduler with the plan-changes app's ``runtime``."""
    changes = PlanChanges(ports)
    runtime.agent("requests", topics=[VALIDATED], handler=changes.requests, open=changes.open)
    runtime.agent("outcomes", topics=[OUTCOMES], handler=changes.outcomes)
    runtime.agent("acknowledgements", topics=[ACKNOWLEDGEMENTS], handler=changes.acknowledgements)
    runtime.agent("ticks", topics=[TICKS], handler=changes.ticks)


class PlanChanges:
    """The handlers. Each takes its records and then all work that is due, since every one of them may make room."""

    def __init__(self, ports: Ports) -> None:
        codec = ports.codec
        self._catalogue = ports.catalogue
        self._rules = Rules(hooks=ports.hooks)
        self._validated = codec.decoder(ValidatedRequest)
        self._result = codec.decoder(ExecutionResult)
        self._acknowledgement = codec.decoder(Acknowledgement)
        self._reply = codec.encoder(REPLIES, Reply)
        self._command = codec.encoder(COMMANDS, ExecuteCommand)
        self._settlement = codec.encoder(SETTLEMENTS, Settlement)
        self._finding = codec.encoder(FINDINGS, Finding)
        self._next_due = codec.encoder(DUE, NextDue)

    def open(self, batch: Batch) -> None:
        """Build the index of due work from the rows; in flight is what the rows say."""
        batch.memory["due"] = rebuild(batch.rows, WINDOW)

    def requests(self, batch: Batch) -> Iterator[None]:
        """Decide orders and cancels."""
        desk = self._desk(batch)
        for validated in _decoded(batch, self._validated, lambda one: one.request.service_id):
            self._act(batch, desk.request(validated))
        yield from self._due_work(batch, desk)

    def outcomes(self, batch: Batch) -> Iterator[None]:
        """Take results of commands."""
        desk = self._desk(batch)
        for result in _decoded(batch, self._result, lambda one: one.service_id):
            self._act(batch, desk.result(result))
        yield from self._due_work(batch, desk)

    def acknowledgements(self, batch: Batch) -> Iterator[None]:
        """Take commits of the billing store."""
        desk = self._desk(batch)
        for acknowledgement in _decoded(batch, self._acknowledgement, lambda one: one.service_id):
            self._act(batch, desk.acknowledge(acknowledgement))
        yield from self._due_work(batch, desk)

    def ticks(self, batch: Batch) -> Iterator[None]:
        """Time has passed; the runtime has read the ticks already, only what is due now matters."""
        yield from self._due_work(batch, self._desk(batch))

    def _due_work(self, batch: Batch, desk: Desk) -> Iterator[None]:
        for count, effects in enumerate(desk.due_work(), 1):
            self._act(batch, effects)
            if count % SLICE == 0:
                yield
                desk.rows = batch.rows
        self._report_next_due(batch)

    def _desk(self, batch: Batch) -> Desk:
        return Desk(batch.rows, _index(batch), self._rules, self._element, batch.now)

    def _element(self, key: str) -> MatrixElement | None:
        found = self._catalogue.get(ELEMENT, key)
        return found if isinstance(found, MatrixElement) else None

    def _report_next_due(self, batch: Batch) -> None:
        """Tell the clock when this partition wants the next tick, if that has changed."""
        if batch.now is None:
            return
        due = _index(batch).next_at(batch.now)
        if "reported" in batch.memory and batch.memory["reported"] == due:
            return
        batch.memory["reported"] = due
        report = NextDue(group=batch.app, partition=batch.partition, due=due)
        batch.emit(DUE, key=f"{batch.app}/{batch.partition}", value=self._next_due(report))

    def _act(self, batch: Batch, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendReply(reply=reply):
                    batch.emit(REPLIES, key=reply.account_id, value=self._reply(reply))
                case SendCommand(command=command):
                    batch.emit(COMMANDS, key=command.service_id, value=self._command(command))
                case SendSettlement(settlement=settlement):
                    batch.emit(SETTLEMENTS, key=settlement.service_id, value=self._settlement(settlement))
                case RaiseFinding(finding=finding):
                    batch.emit(FINDINGS, key=finding.key, value=self._finding(finding))
                case _:
                    assert_never(effect)


def _index(batch: Batch) -> DueIndex:
    index: DueIndex = batch.memory["due"]
    return index


def _decoded(batch: Batch, decode: Callable[[bytes | None], T], service_id: Callable[[T], str]) -> Iterator[T]:
    """The records of the chunk that can be read; the others become dead letters.

    A record under another key than its service's may be in another partition than the service's rows: deciding it there
    would give a service two changes at once.
    """
    for record in batch.records:
        try:
            value = decode(record.value)
            if record.key != service_id(value).encode():
                raise Poison("wrong_key", f"the key is {record.key!r}, it must be the service {service_id(value)!r}")
        except Poison as error:
            batch.dead_letter(record, error)
            continue
        yield value
