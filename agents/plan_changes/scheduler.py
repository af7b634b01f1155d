"""The scheduler of plan changes: requests, results, acknowledgements and ticks in; commands, settlements, events out.

Everything is decided by :class:`streams.core.plan_change.desk.Desk`; this module decodes, sends and says what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar, assert_never

from agents import redo
from agents.due_report import DueReport
from agents.redo import Sent
from streams.codec import Codec
from streams.core.errors import Poison
from streams.core.events import Finding
from streams.core.hooks import HookRegistry
from streams.core.plan_change.desk import Desk, rebuild
from streams.core.plan_change.due import DueIndex
from streams.core.plan_change.machine import Effect, RaiseFinding, Rules, SendCommand, SendReply, SendSettlement
from streams.core.plan_change.matrix import MatrixElement
from streams.core.plan_change.messages import (
    Acknowledgement,
    Context,
    ExecuteCommand,
    ExecutionResult,
    Reply,
    Settlement,
    ValidatedRequest,
)
from streams.core.plan_change.rows import trace_key
from streams.kafka.chunks import Batch, Record
from streams.kafka.runtime import Runtime
from streams.kafka.store import Overlay
from streams.topics import (
    ACKNOWLEDGEMENTS,
    COMMANDS,
    FINDINGS,
    OUTCOMES,
    PLAN_CONTEXTS,
    REPLIES,
    SETTLEMENTS,
    TICKS,
    VALIDATED,
)

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
    runtime.agent("contexts", topics=[PLAN_CONTEXTS], handler=changes.contexts)
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
        decided = _decided(batch, staged, desk, requests, desk.request, lambda one: f"decide {one.request.kind}")
        yield from self._carry_out(batch, staged, decided, once=True)
        yield from self._due_work(batch, staged, desk)

    def contexts(self, batch: Batch) -> Iterator[None]:
        """Let pending changes follow their accounts and services."""
        staged, desk = self._desk(batch)
        decoded = _decoded(batch, self._context, lambda one: one.service_id or one.account_id)
        decided = desk.context([context for _, context in decoded])
        yield from self._carry_out(batch, staged, ((None, effects) for effects in decided))
        yield from self._due_work(batch, staged, desk)

    def outcomes(self, batch: Batch) -> Iterator[None]:
        """Take results of commands."""
        staged, desk = self._desk(batch)
        results = _decoded(batch, self._result, lambda one: one.service_id)
        decided = _decided(batch, staged, desk, results, desk.result, lambda one: f"take result of {one.step}")
        yield from self._carry_out(batch, staged, decided)
        yield from self._due_work(batch, staged, desk)

    def acknowledgements(self, batch: Batch) -> Iterator[None]:
        """Take commits of the billing store."""
        staged, desk = self._desk(batch)
        acknowledgements = _decoded(batch, self._acknowledgement, lambda one: one.service_id)
        decided = _decided(batch, staged, desk, acknowledgements, desk.acknowledge, lambda one: "take acknowledgement")
        yield from self._carry_out(batch, staged, decided)
        yield from self._due_work(batch, staged, desk)

    def ticks(self, batch: Batch) -> Iterator[None]:
        """Time has passed; the runtime has read the ticks already, only what is due now matters."""
        yield from self._due_work(batch, *self._desk(batch))

    def _due_work(self, batch: Batch, staged: Overlay, desk: Desk) -> Iterator[None]:
        due = ((_begun(batch, staged, effects), effects) for effects in desk.due_work())
        yield from self._carry_out(batch, staged, due)
        if batch.now is not None:
            self._due_report.tell(batch, _index(batch).next_at(batch.now))

    def _carry_out(
        self, batch: Batch, staged: Overlay, decisions: Iterable[tuple[str | None, list[Effect]]], *, once: bool = False
    ) -> Iterator[None]:
        """Put the rows and send the effects of each decision, in order, in slices.

        Answers to requests wait until the decision is durable, with all that it sends and all of its rows: told before,
        and lost with a crash, a cancel that was accepted could be decided again at a later time, and be too late
        (ADR 3). ``once``: all of these decisions are like that, not only those with an answer.
        """
        yield from redo.finish(batch)
        held: list[Sent] | None = [] if once else None
        for count, (trace, effects) in enumerate(decisions, 1):
            sent = [self._record(effect)._replace(trace=trace) for effect in effects]
            if trace is not None and batch.tracer.on:
                _remember(staged, trace, effects)
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
                return Sent(REPLIES, reply.account_id, self._reply(reply))
            case SendCommand(command=command):
                return Sent(COMMANDS, command.service_id, self._command(command))
            case SendSettlement(settlement=settlement):
                return Sent(SETTLEMENTS, settlement.service_id, self._settlement(settlement))
            case RaiseFinding(finding=finding):
                return Sent(FINDINGS, finding.key, self._finding(finding))
            case _:
                assert_never(effect)


def _index(batch: Batch) -> DueIndex:
    index: DueIndex = batch.memory["due"]
    return index


def _decided(
    batch: Batch,
    staged: Overlay,
    desk: Desk,
    decoded: Iterable[tuple[Record, T]],
    decide: Callable[[T], list[Effect]],
    name: Callable[[T], str],
) -> Iterator[tuple[str | None, list[Effect]]]:
    """Each decision, with the trace to which what comes of it belongs: it goes on at once, so that of the record.

    A record that makes something that cannot be kept (a row that is too large) becomes a dead letter, and nothing of
    its decision is left; the others of the chunk go on.
    """
    for record, value in decoded:
        service_id = (record.key or b"").decode()
        own = desk.rows = Overlay(staged)
        try:
            about = {"curfew.service_id": service_id}
            with batch.tracer.span(name(value), parent=batch.trace_of(record), attributes=about) as trace:
                effects = decide(value)
        except Poison as error:
            desk.rows = staged
            desk.undone(service_id)
            batch.dead_letter(record, error)
            continue
        desk.rows = staged
        for key, row in own.writes.items():
            if row is None:
                staged.delete(key)
            else:
                staged.put(key, row)
        yield trace, effects


def _begun(batch: Batch, staged: Overlay, effects: list[Effect]) -> str | None:
    """The trace of what has become due: a new one, linked to the request that it has waited for since."""
    if not batch.tracer.on:
        return None
    for effect in effects:
        match effect:
            case SendCommand(command=ExecuteCommand() as message):
                name = f"begin {message.step}"
            case SendSettlement(settlement=Settlement() as message):
                name = f"begin {message.kind}"
            case _:
                continue
        asked = staged.get(trace_key(message.service_id))
        about = {"curfew.change_id": message.change_id, "curfew.service_id": message.service_id}
        with batch.tracer.span(name, links=[] if asked is None else [asked.decode()], attributes=about) as trace:
            return trace
    return None


def _remember(staged: Overlay, trace: str, effects: list[Effect]) -> None:
    """Until it is due: a request that is refused changes nothing."""
    for effect in effects:
        if isinstance(effect, SendReply) and effect.reply.accepted:
            staged.put(trace_key(effect.reply.service_id), trace.encode())


def _decoded(
    batch: Batch, decode: Callable[[bytes | None], T], service_id: Callable[[T], str]
) -> Iterator[tuple[Record, T]]:
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
        yield record, value
