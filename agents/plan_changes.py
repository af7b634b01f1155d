"""The scheduler of plan changes: requests, results, acknowledgements and ticks in; commands, settlements, events out.

Everything is decided by :class:`streams.core.change_desk.Desk`; this module decodes, sends and reports what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, assert_never

from agents import redo
from agents.due_report import DueReport
from agents.redo import Sent
from streams.codec import Codec
from streams.core.change import Effect, RaiseFinding, Rules, SendCommand, SendReply, SendSettlement
from streams.core.change_desk import Desk, rebuild
from streams.core.due import DueIndex
from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.hooks import HookRegistry
from streams.core.matrix import MatrixElement
from streams.core.messages import (
    Acknowledgement,
    Context,
    ExecuteCommand,
    ExecutionResult,
    Reply,
    Settlement,
    ValidatedRequest,
)
from streams.kafka.chunks import Batch
from streams.kafka.runtime import Runtime
from streams.kafka.store import Overlay

VALIDATED = "plan-change.validated"
CONTEXTS = "plan-change.contexts"
OUTCOMES = "plan-change.outcomes"
ACKNOWLEDGEMENTS = "plan-change.acknowledgements"
TICKS = "clock.ticks"
REPLIES = "plan-change.replies"
COMMANDS = "plan-change.commands"
SETTLEMENTS = "plan-change.settlements"
FINDINGS = "events.findings"
# The kind under which the catalogue keeps the matrix.
ELEMENT = "matrix_element"

# Commands in flight per partition, and releases. Fewer, and executors and persisters wait for the scheduler; many more,
# and a deadline that comes first has to wait behind work for later ones that was sent already.
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
    runtime.agent("contexts", topics=[CONTEXTS], handler=changes.contexts)
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
        self._context = codec.decoder(Context)
        self._result = codec.decoder(ExecutionResult)
        self._acknowledgement = codec.decoder(Acknowledgement)
        self._reply = codec.encoder(REPLIES, Reply)
        self._command = codec.encoder(COMMANDS, ExecuteCommand)
        self._settlement = codec.encoder(SETTLEMENTS, Settlement)
        self._finding = codec.encoder(FINDINGS, Finding)
        self._due_report = DueReport(codec)

    def open(self, batch: Batch) -> None:
        """Build the index of due work from the rows; in flight is what the rows say."""
        redo.open_redo(batch)
        batch.memory["due"] = rebuild(batch.rows, WINDOW)

    def requests(self, batch: Batch) -> Iterator[None]:
        """Decide orders and cancels. Decided again, an order would find its own change open, and a request that waits
        would wait twice."""
        staged, desk = self._desk(batch)
        requests = _decoded(batch, self._validated, lambda one: one.request.service_id)
        yield from self._carry_out(batch, staged, map(desk.request, requests), once=True)
        yield from self._due_work(batch, staged, desk)

    def contexts(self, batch: Batch) -> Iterator[None]:
        """Let pending changes follow their accounts and services."""
        staged, desk = self._desk(batch)
        contexts = list(_decoded(batch, self._context, lambda one: one.service_id or one.account_id))
        yield from self._carry_out(batch, staged, desk.context(contexts))
        yield from self._due_work(batch, staged, desk)

    def outcomes(self, batch: Batch) -> Iterator[None]:
        """Take results of commands."""
        staged, desk = self._desk(batch)
        results = _decoded(batch, self._result, lambda one: one.service_id)
        yield from self._carry_out(batch, staged, map(desk.result, results))
        yield from self._due_work(batch, staged, desk)

    def acknowledgements(self, batch: Batch) -> Iterator[None]:
        """Take commits of the billing store."""
        staged, desk = self._desk(batch)
        acknowledgements = _decoded(batch, self._acknowledgement, lambda one: one.service_id)
        yield from self._carry_out(batch, staged, map(desk.acknowledge, acknowledgements))
        yield from self._due_work(batch, staged, desk)

    def ticks(self, batch: Batch) -> Iterator[None]:
        """Time has passed; the runtime has read the ticks already, only what is due now matters."""
        yield from self._due_work(batch, *self._desk(batch))

    def _due_work(self, batch: Batch, staged: Overlay, desk: Desk) -> Iterator[None]:
        yield from self._carry_out(batch, staged, desk.due_work())
        if batch.now is not None:
            self._due_report.tell(batch, _index(batch).next_at(batch.now))

    def _carry_out(
        self, batch: Batch, staged: Overlay, decisions: Iterable[list[Effect]], *, once: bool = False
    ) -> Iterator[None]:
        """Put the rows and send the effects of each decision, in order, in slices.

        Answers to requests wait until the decision is durable, with all that it sends and all of its rows: told before,
        and lost with a crash, a cancel that was accepted could be decided again at a later time, and be too late
        (ADR 3). ``once``: all of these decisions are like that, not only those with an answer.
        """
        yield from redo.finish(batch)
        held: list[Sent] | None = [] if once else None
        for count, effects in enumerate(decisions, 1):
            sent = [self._record(effect) for effect in effects]
            # What follows an answer is held too: the next point of durability is for both of their rows.
            if held is None and any(isinstance(effect, SendReply) for effect in effects):
                held = []
            if held is None:
                redo.put(batch, staged)
                redo.tell(batch, sent)
            else:
                held += sent
            if count % SLICE == 0:
                if held is None:
                    yield
                else:
                    yield from redo.carry_out(batch, staged, held)
                    held = [] if once else None
        if held is None:
            redo.put(batch, staged)
        else:
            yield from redo.carry_out(batch, staged, held)

    def _desk(self, batch: Batch) -> tuple[Overlay, Desk]:
        """A desk, and where it puts rows: they go into the batch when it is known what has to be in front of them."""
        staged = Overlay(batch.rows)
        return staged, Desk(staged, _index(batch), self._rules, self._element, batch.now)

    def _element(self, key: str) -> MatrixElement | None:
        found = self._catalogue.get(ELEMENT, key)
        return found if isinstance(found, MatrixElement) else None

    def _record(self, effect: Effect) -> Sent:
        match effect:
            case SendReply(reply=reply):
                return REPLIES, reply.account_id, self._reply(reply)
            case SendCommand(command=command):
                return COMMANDS, command.service_id, self._command(command)
            case SendSettlement(settlement=settlement):
                return SETTLEMENTS, settlement.service_id, self._settlement(settlement)
            case RaiseFinding(finding=finding):
                return FINDINGS, finding.key, self._finding(finding)
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
