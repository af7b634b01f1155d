"""The change machine under everything that a cluster can do to it, against the invariants of a plan change.

Hypothesis plays the world: it orders, cancels, lets time jump, delivers results and acknowledgements late, twice and in
any order, and crashes the scheduler between its outputs and its rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from streams.core.catalogue import CATALOGUE
from streams.core.events import Audience, Finding
from streams.core.plan_change.desk import Desk, rebuild
from streams.core.plan_change.due import Window
from streams.core.plan_change.machine import Change, Effect, RaiseFinding, SendCommand, SendReply, SendSettlement, State
from streams.core.plan_change.matrix import DateRule, LatePolicy, MatrixElement, MissedPolicy
from streams.core.plan_change.messages import (
    Acknowledgement,
    AcknowledgementKind,
    CommandStep,
    ExecuteCommand,
    ExecutionResult,
    ExecutionVerdict,
    Reply,
    RequestKind,
    Resolution,
    Settlement,
    SettlementKind,
    ValidatedRequest,
)
from streams.core.plan_change.rows import CHANGE, OPEN, PAST, change_key, unpack_change, unpack_owner
from streams.kafka.store import MemoryStore, Overlay
from tests.plan_changes.makers import NOON, a_cancel, a_request, an_element, executed, hooked, known

SERVICES = ("S1", "S2")
ZONES = {"S1": "America/Sao_Paulo", "S2": "America/Havana"}  # midnight of 2018-11-04 is missing there, and comes twice
HUNTING = "CURFEW_MANY_EXAMPLES" in os.environ
WINDOW = 1  # so small that commands have to wait for each other

ELEMENTS = {
    element.key: element
    for element in (
        an_element("late", missed_policy=MissedPolicy.FINISH_LATE),
        an_element("roll", missed_policy=MissedPolicy.ROLL, late_policy=LatePolicy.ROLL, lead_hours=2),
        an_element("hold", missed_policy=MissedPolicy.HOLD),
        an_element("hooked", missed_policy=MissedPolicy.ROLL, lead_hours=1),
        an_element("given", date_rule=DateRule.DATE_GIVEN, allow_without_cancel=False),
        an_element("past", date_rule=DateRule.DATE_GIVEN, late_policy=LatePolicy.RETROACTIVE),
    )
}
RULES = hooked(
    "RATEPLAN.CHANGE.ORDER.hooked",
    "RATEPLAN.CHANGE.START.hooked",
    "RATEPLAN.CHANGE.POST.hooked",
    "RATEPLAN.CHANGE.POST.hold",
)

# What may follow what, read off the states that events carry.
ALLOWED = {
    ("pending", "started"),
    ("pending", "cancelled"),
    ("pending", "superseded"),
    ("pending", "failed"),  # a START hook said no
    ("pending", "held"),
    ("started", "executed"),
    ("started", "failed"),
    ("started", "held"),
    ("executed", "persisted"),
    ("executed", "held"),
    ("failed", "held"),
    ("failed", "abandoned"),
    ("held", "abandoned"),
    ("pending", "pending"),  # rescheduled, by the policy or by a person
    ("failed", "pending"),
    ("held", "pending"),
    ("held", "persisted"),  # late, after the store had been asked for it in vain
    ("abandoned", "persisted"),  # the store had it before it heard that it was given up
    ("persisted", "completed"),
    ("persisted", "failed"),  # post work that needs a person; the change itself is true
}


class World(RuleBasedStateMachine):
    """Two services, one partition, one scheduler; executor and billing store are played by rules."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.store = MemoryStore()
        self.index = rebuild(Overlay(self.store), WINDOW)
        self.requests: list[ValidatedRequest] = []
        self.commands: list[ExecuteCommand] = []
        self.results: list[ExecutionResult] = []
        self.settlements: list[Settlement] = []
        self.acknowledgements: list[Acknowledgement] = []
        self.answers: dict[str, Reply] = {}
        self.findings: dict[str, Finding] = {}
        self.outcomes: dict[tuple[str, int], datetime] = {}  # the billing store's unique key: persisted …
        self.missed: dict[tuple[str, int], bool] = {}  # … or missed, and whether a late outcome is taken
        self.released: dict[str, datetime] = {}
        self.done_commands: dict[str, ExecutionResult] = {}

    @initialize(hours=st.integers(min_value=0, max_value=24), keys=st.tuples(*[st.sampled_from([*ELEMENTS])] * 2))
    def begin(self, hours: int, keys: tuple[str, str]) -> None:
        """Begin at any hour around the night, with an order of each service."""
        self.now = NOON + timedelta(hours=hours)
        for service, key in zip(SERVICES, keys, strict=True):
            self._order(service, key, silent=False, revision=None, days=1, crash=False)

    # -- what people do ---------------------------------------------------------------------------------------------

    @rule(
        service=st.sampled_from(SERVICES),
        key=st.sampled_from([*ELEMENTS, *ELEMENTS, "unknown"]),
        silent=st.booleans(),
        expected=st.sampled_from(["right", "right", "none", "wrong"]),
        days=st.integers(min_value=-1, max_value=3),
        crash=st.booleans(),
    )
    def order(self, service: str, key: str, silent: bool, expected: str, days: int, crash: bool) -> None:
        """Order a change; with the expected revision it may supersede."""
        current = self._change(service)
        right = current.revision if current is not None and current.is_open else None
        revision = {"none": None, "wrong": 99, "right": right}[expected]
        self._order(service, key, silent=silent, revision=revision, days=days, crash=crash)

    def _order(self, service: str, key: str, *, silent: bool, revision: int | None, days: int, crash: bool) -> None:
        current = self._change(service)
        given = (self.now + timedelta(days=days)).date() if key in ("given", "past") else None
        request = a_request(
            f"R{len(self.requests)}",
            service_id=service,
            element_key=key,
            silent=silent,
            expected_revision=revision,
            effective_date=given,
            requested_at=self.now,
        )
        made = current.change_id if current is not None and current.effective_at is not None else None
        validated = known(request, zone=ZONES[service], plan_change_id=made)
        self.requests.append(validated)
        self._do(lambda desk: desk.request(validated), crash)
        self._check_supersede(current, validated)

    def _check_supersede(self, before: Change | None, validated: ValidatedRequest) -> None:
        after = self._change(validated.request.service_id)
        if before is None or not before.is_open or after is None or after.change_id == before.change_id:
            return
        assert validated.request.expected_revision == before.revision
        assert self.now < before.start_at
        assert after.revision > before.revision

    @precondition(lambda self: any(change.is_open for change in self._changes()))
    @rule(service=st.sampled_from(SERVICES), crash=st.booleans(), wrong=st.booleans())
    def cancel(self, service: str, crash: bool, wrong: bool) -> None:
        """A cancel is accepted if and only if the clock is before the start instant of the open change."""
        current = self._change(service)
        waits = self.store.get(f"parked/{service}".encode()) is not None
        request = a_cancel(f"R{len(self.requests)}", service_id=service, expected_revision=99 if wrong else None)
        validated = known(request, zone=ZONES[service])
        self.requests.append(validated)
        effects = self._do(lambda desk: desk.request(validated), crash)
        if waits:  # it stays behind the order that waits for its hooks
            assert effects == []
            return
        [reply] = [effect.reply for effect in effects if isinstance(effect, SendReply)]
        assert reply.accepted == (current is not None and current.is_open and not wrong and self.now < current.start_at)

    @precondition(lambda self: any(change.state in (State.FAILED, State.HELD) for change in self._changes()))
    @rule(
        service=st.sampled_from(SERVICES),
        resolution=st.sampled_from([None, *Resolution]),
        crash=st.booleans(),
    )
    def repair(self, service: str, resolution: Resolution | None, crash: bool) -> None:
        """A person retries or resolves; accepted for a change that waits for a person, and for no other."""
        current = self._change(service)
        waits = self.store.get(f"parked/{service}".encode()) is not None
        kind = RequestKind.RETRY if resolution is None else RequestKind.RESOLVE
        request = a_request(
            f"R{len(self.requests)}", service_id=service, kind=kind, element_key=None, resolution=resolution
        )
        validated = known(request, zone=ZONES[service])
        self.requests.append(validated)
        effects = self._do(lambda desk: desk.request(validated), crash)
        if waits:
            assert effects == []
            return
        [reply] = [effect.reply for effect in effects if isinstance(effect, SendReply)]
        if reply.accepted:
            assert current is not None
            assert current.state in (State.FAILED, State.HELD)
            assert resolution is None or current.persisted_at is None
        else:
            assert self._change(service) == current

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), crash=st.booleans())
    def repeat_request(self, data: st.DataObject, crash: bool) -> None:
        """The same request again gets the same answer and changes nothing."""
        validated = data.draw(st.sampled_from(self.requests))
        rows = self._rows()
        later = replace(validated, request=replace(validated.request, requested_at=self.now + timedelta(hours=1)))
        effects = self._do(lambda desk: desk.request(later), crash)
        told = [effect.reply for effect in effects if isinstance(effect, SendReply)]
        assert told == [self.answers[key] for key in [validated.request.request_id] if key in self.answers]
        assert self._rows() == rows

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def reuse_request_id(self, data: st.DataObject) -> None:
        """Other content under a known request id is a conflict and changes nothing."""
        validated = data.draw(st.sampled_from(self.requests))
        rows = self._rows()
        other = replace(validated, request=replace(validated.request, channel="somewhere else"))
        [effect] = self._desk().request(other)
        assert isinstance(effect, SendReply)
        assert effect.reply.reasons == ("request_id_conflict",)
        assert self._rows() == rows

    # -- what time does ---------------------------------------------------------------------------------------------

    @rule(minutes=st.one_of(st.integers(0, 240), st.integers(0, 60 * 30)), crash=st.booleans())
    def time_passes(self, minutes: int, crash: bool) -> None:
        """A tick, after a second or after a day of outage."""
        self._tick(self.now + timedelta(minutes=minutes), crash)

    @rule(crash=st.booleans())
    def next_due_instant(self, crash: bool) -> None:
        """The virtual clock goes where something is due."""
        self._tick(self.index.next_at(self.now) or self.now, crash)

    def _tick(self, now: datetime, crash: bool) -> None:
        self.now = now
        self._do(lambda desk: [effect for effects in desk.due_work() for effect in effects], crash)
        assert self.index.in_flight(Window.EXECUTE) <= WINDOW

    # -- what executor and billing store do ------------------------------------------------------------------------

    @precondition(lambda self: self.commands)
    @rule(data=st.data(), verdict=st.sampled_from(["agree", "agree", "agree", "abort", "retry"]))
    def execute(self, data: st.DataObject, verdict: str) -> None:
        """Any command that was ever sent, in any order; a repeated one gets its recorded result."""
        command = data.draw(st.sampled_from(self.commands))
        result = self.done_commands.get(command.command_id)
        if result is None:
            result = executed(command, self.now)
            if verdict == "abort":
                result = replace(result, verdict=ExecutionVerdict.ABORTED, reason="no", sealed=None)
            elif verdict == "retry":
                failed = ExecutionVerdict.FAILED
                result = replace(result, verdict=failed, reason="hook_failed:x", retryable=True, sealed=None)
            self.done_commands[command.command_id] = result
        self.results.append(result)

    @rule(crash=st.booleans())
    def executor_works(self, crash: bool) -> None:
        """Every command that waits is executed, and its result delivered."""
        for command in self.commands:
            if command.command_id not in self.done_commands:
                result = self.done_commands[command.command_id] = executed(command, self.now)
                self.results.append(result)
                self._do(lambda desk, result=result: desk.result(result), crash)  # type: ignore[misc]

    @rule(crash=st.booleans())
    def store_works(self, crash: bool) -> None:
        """Everything that was sent to the billing store is committed, and acknowledged."""
        before = len(self.acknowledgements)
        for result in self.results:
            self._persist(result)
        for settlement in self.settlements:
            self._settle(settlement)
        for ack in self.acknowledgements[before:]:
            self._do(lambda desk, ack=ack: desk.acknowledge(ack), crash)  # type: ignore[misc]

    @precondition(lambda self: self.results)
    @rule(data=st.data(), crash=st.booleans())
    def deliver_result(self, data: st.DataObject, crash: bool) -> None:
        """A result reaches the scheduler, perhaps not for the first time."""
        result = data.draw(st.sampled_from(self.results))
        self._do(lambda desk: desk.result(result), crash)

    @precondition(lambda self: self.results)
    @rule(data=st.data())
    def persist(self, data: st.DataObject) -> None:
        """An outcome reaches the billing store, perhaps not for the first time."""
        self._persist(data.draw(st.sampled_from(self.results)))

    def _persist(self, result: ExecutionResult) -> None:
        if result.sealed is None:
            return
        outcome = result.sealed.outcome
        key = outcome.change_id, outcome.revision
        if key not in self.outcomes:
            if self.missed.get(key) is False:
                return
            self.outcomes[key] = self.now
        at = self.outcomes[key]
        self._acknowledge(AcknowledgementKind.PERSISTED, result, at, late=at >= outcome.effective_from)

    @precondition(lambda self: self.settlements)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """A settlement reaches the billing store, perhaps not for the first time."""
        self._settle(data.draw(st.sampled_from(self.settlements)))

    def _settle(self, settlement: Settlement) -> None:
        key = settlement.change_id, settlement.revision
        if settlement.kind is SettlementKind.RELEASE:
            assert key in self.outcomes, "only what is persisted may be released"
            at = self.released.setdefault(settlement.change_id, self.now)
            self._acknowledge(AcknowledgementKind.RELEASED, settlement, at, late=False)
        elif key in self.outcomes:
            at = self.outcomes[key]
            self._acknowledge(AcknowledgementKind.PERSISTED, settlement, at, late=at >= settlement.deadline_at)
        else:
            self.missed.setdefault(key, settlement.accept_late)
            self._acknowledge(AcknowledgementKind.MISSED, settlement, self.now, late=False)

    def _acknowledge(
        self, kind: AcknowledgementKind, of: ExecutionResult | Settlement, at: datetime, *, late: bool
    ) -> None:
        ack = Acknowledgement(
            kind=kind,
            change_id=of.change_id,
            revision=of.revision,
            account_id=of.account_id,
            service_id=of.service_id,
            committed_at=at,
            late=late,
        )
        if ack not in self.acknowledgements:
            self.acknowledgements.append(ack)

    @precondition(lambda self: self.acknowledgements)
    @rule(data=st.data(), crash=st.booleans())
    def deliver_acknowledgement(self, data: st.DataObject, crash: bool) -> None:
        """An acknowledgement reaches the scheduler, perhaps not for the first time, perhaps before the result."""
        acknowledgement = data.draw(st.sampled_from(self.acknowledgements))
        self._do(lambda desk: desk.acknowledge(acknowledgement), crash)

    # -- how the scheduler is run -----------------------------------------------------------------------------------

    def _do(self, decide: Callable[[Desk], list[Effect]], crash: bool) -> list[Effect]:
        """One chunk: decide, outputs, rows. A crash leaves outputs and loses rows; then all is decided again."""
        if crash:
            lost = decide(self._desk())
            self._send(lost)
            self.index = rebuild(Overlay(self.store), WINDOW)
        desk = self._desk()
        effects = decide(desk)
        if crash:
            assert _ids(effects) == _ids(lost), "a decision made again must be the same"
        self._send(effects)
        assert isinstance(desk.rows, Overlay)
        self.store.write(desk.rows.writes.items(), None)
        return effects

    def _desk(self) -> Desk:
        return Desk(Overlay(self.store), self.index, RULES, _element, self.now)

    def _send(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendReply(reply=reply):
                    known_answer = self.answers.setdefault(reply.request_id, reply)
                    assert known_answer == reply, "one request, one answer"
                case SendCommand(command=command):
                    self._check_command(command)
                    if command not in self.commands:
                        self.commands.append(command)
                case SendSettlement(settlement=settlement):
                    assert self.now >= settlement.deadline_at
                    self.settlements.append(settlement)
                case RaiseFinding(finding=finding):
                    self._check_finding(finding)

    def _check_command(self, command: ExecuteCommand) -> None:
        if command.step is CommandStep.ORDER:
            return
        lead = timedelta(hours=ELEMENTS[command.element_key].lead_hours)
        assert self.now >= command.effective_from - lead, "nothing runs before its start"
        cancelled = {
            finding.subject_id
            for finding in self.findings.values()
            if finding.type in ("rate_plan_change.cancelled", "rate_plan_change.superseded")
        }
        assert command.change_id not in cancelled, "nothing runs after an accepted cancel"

    def _check_finding(self, finding: Finding) -> None:
        known = CATALOGUE[finding.type].facts
        assert {name for name in finding.facts if not name.startswith("detail_")} <= set(known), (
            "filters can ask for it"
        )
        before = self.findings.setdefault(finding.event_id, finding)
        assert before == finding, "one event id, one event"
        if finding.facts.get("silent"):
            assert finding.audience is Audience.INTERNAL
        if finding.type.endswith((".missed", ".rerate_requested")):  # facts, and no states
            return
        if finding.previous is not None and finding.current is not None:
            assert (finding.previous["state"], finding.current["state"]) in ALLOWED

    def _change(self, service: str) -> Change | None:
        found = self.store.get(change_key(service))
        return None if found is None else unpack_change(found)

    def _rows(self) -> list[tuple[bytes, bytes]]:
        return list(self.store.scan(b""))

    def _changes(self) -> list[Change]:
        kept = [*self.store.scan(CHANGE.encode()), *self.store.scan(PAST.encode())]
        return [unpack_change(value) for _, value in kept]

    # -- what must always hold --------------------------------------------------------------------------------------

    @invariant()
    def one_persisted_outcome_per_change(self) -> None:
        """At most one outcome of a change is ever persisted."""
        changes = [change_id for change_id, _ in self.outcomes]
        assert len(changes) == len(set(changes))

    @invariant()
    def the_row_agrees_with_the_billing_store(self) -> None:
        """What the scheduler takes for persisted, missed or effective is what the store has committed."""
        for change in self._changes():
            key = change.change_id, change.revision
            if change.persisted_at is not None:
                assert self.outcomes[key] == change.persisted_at
                assert change.missed or change.persisted_at < change.deadline_at or _is_retroactive(change)
            if change.closed and not _is_retroactive(change):
                # A person who lets a missed change be finished gives it another revision.
                assert any(change_id == change.change_id for change_id, _ in self.missed)
            if change.effective_at is not None:
                assert change.deadline_at <= self.released[change.change_id] <= self.now

    @invariant()
    def the_index_knows_all_work(self) -> None:
        """An index built from the rows finds nothing due earlier than the one that was kept."""
        fresh = rebuild(Overlay(self.store), WINDOW)
        kept, wanted = self.index.next_at(self.now), fresh.next_at(self.now)
        assert self.index.in_flight(Window.EXECUTE) == fresh.in_flight(Window.EXECUTE)
        # The rows do not say which releases were sent again and have lost their place.
        assert self.index.in_flight(Window.RELEASE) <= fresh.in_flight(Window.RELEASE)
        if wanted is not None:
            assert kept is not None
            assert kept <= wanted

    @invariant()
    def open_changes_have_a_row_that_says_so(self) -> None:
        """And no other has one: news of an account reads these rows only."""
        latest = [unpack_change(value) for _, value in self.store.scan(CHANGE.encode())]
        said = [unpack_owner(value) for _, value in self.store.scan(OPEN.encode())]
        wanted = [(one.account_id, one.service_id) for one in latest if one.is_open]
        assert sorted((one.account_id, one.service_id) for one in said) == sorted(wanted)

    def teardown(self) -> None:
        """Let everything come to its end: each accepted order is in one final state, or waits for a person."""
        for _ in range(60):
            self._tick(self.index.next_at(self.now) or self.now, crash=False)
            for command in list(self.commands):
                if command.command_id not in self.done_commands:
                    self.done_commands[command.command_id] = executed(command, self.now)
                    self.results.append(self.done_commands[command.command_id])
            for result in list(self.results):
                self._persist(result)
                self._do(lambda desk, result=result: desk.result(result), crash=False)  # type: ignore[misc]
            for settlement in list(self.settlements):
                self._settle(settlement)
            for ack in list(self.acknowledgements):
                self._do(lambda desk, ack=ack: desk.acknowledge(ack), crash=False)  # type: ignore[misc]
        for change in self._changes():
            assert change.state in _ENDS, f"{change.state} is no end"
            if change.state is State.COMPLETED:
                assert change.effective_at is not None
        accepted = {reply.change_id for reply in self.answers.values() if reply.accepted}
        assert accepted <= {change.change_id for change in self._changes()}
        assert {validated.request.request_id for validated in self.requests} == set(self.answers)


_ENDS = {State.COMPLETED, State.CANCELLED, State.SUPERSEDED, State.ABANDONED, State.HELD, State.FAILED}


def _is_retroactive(change: Change) -> bool:
    """It was ordered after its date, by an element that allows it: there is no deadline that it could miss."""
    return change.element.late_policy is LatePolicy.RETROACTIVE and change.finish_late


def _element(key: str) -> MatrixElement | None:
    return ELEMENTS.get(key)


def _ids(effects: list[Effect]) -> list[Any]:
    """What tells whether two decisions are the same to the world. Which of the changes that wait for a place in a
    window gets it is not: hints that are no longer true may tip it, and an index that was built again has none."""
    found: list[Any] = []
    for effect in effects:
        match effect:
            case SendCommand(command=ExecuteCommand(step=CommandStep.EXECUTE)):
                found.append("a place to execute")
            case SendSettlement(settlement=Settlement(kind=SettlementKind.RELEASE)):
                found.append("a place to release")
            case SendCommand(command=command):
                found.append(command.command_id)
            case RaiseFinding(finding=finding):
                found.append(finding.event_id)
            case SendReply(reply=reply):
                found.append(reply)
            case SendSettlement(settlement=settlement):
                found.append((settlement.kind, settlement.change_id, settlement.revision))
    return sorted(found, key=repr)


TestWorld = World.TestCase
TestWorld.settings = settings(
    # Hunting mutants takes more of them, and does not take the time to make what it finds small.
    max_examples=600 if HUNTING else 150,
    phases=[Phase.generate] if HUNTING else list(Phase),
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
