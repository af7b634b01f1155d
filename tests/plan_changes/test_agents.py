"""The agents of plan changes on real rows and real Avro: a night, its crashes, and what cannot be read."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from agents.plan_changes import scheduler
from streams.core.clock import NextDue
from streams.core.events import Finding
from streams.core.hooks import Abort, Adjust, FailurePolicy, Hook, Hookpoint, Patch, Proceed, Verdict, WorkflowContext
from streams.core.money import Fee
from streams.core.outcome import verify
from streams.core.plan_change.messages import (
    AcknowledgementKind,
    CommandStep,
    ExecuteCommand,
    ExecutionResult,
    ExecutionVerdict,
    Request,
    SettlementKind,
    ValidatedRequest,
)
from streams.core.plan_change.progress import OVERDUE
from streams.core.plan_change.rows import change_key, unpack_change
from tests.plan_changes.makers import (
    DEADLINE,
    NOON,
    START,
    a_cancel,
    a_command,
    a_request,
    acknowledgement,
    an_element,
    known,
)
from tests.plan_changes.plant import Plant, a_plan, a_service, an_account
from tests.support.batch import Outputs


def a_plant(*hooks: Hook, at_noon: bool = True) -> Plant:
    """A plant that knows account A1 with service S1."""
    plant = Plant(hooks=hooks)
    plant.knows(an_account(), a_service(), a_plan())
    if at_noon:
        plant.tick(NOON)
    return plant


def the_change(plant: Plant, service: str = "S1"):  # type: ignore[no-untyped-def]
    row = plant.changes.store.get(change_key(service))
    assert row is not None
    return unpack_change(row)


def kinds(plant: Plant, outputs: Outputs) -> list[str]:
    return [
        finding.type.removeprefix("rate_plan_change.") for finding in plant.read(outputs, "events.findings", Finding)
    ]


def result_of(plant: Plant, command: ExecuteCommand) -> ExecutionResult:
    value = plant.codec.encode("plan-change.commands", command)
    outputs = plant.execution.run(plant.executor.commands, "plan-change.commands", [(command.service_id, value)])
    [result] = plant.read(outputs, "plan-change.outcomes", ExecutionResult)
    return result


def test_a_night() -> None:
    """From the order to what the world sees, each stage by its own agent."""
    plant = a_plant()
    assert plant.replies(plant.request(a_request()))[0].accepted
    release = the_change(plant).release_at

    plant.tick(START)
    results = plant.execute(plant.tick(release))
    assert kinds(plant, results) == ["executed"]
    [result] = plant.read(plant.execution.sent, "plan-change.outcomes", ExecutionResult)
    assert result.sealed is not None
    assert verify(result.sealed)
    done = plant.acknowledge(acknowledgement(the_change(plant), AcknowledgementKind.PERSISTED, release))
    assert kinds(plant, done) == ["persisted", "completed"]
    assert plant.settlements(plant.tick(DEADLINE - timedelta(seconds=1))) == []
    [settlement] = plant.settlements(plant.tick(DEADLINE))
    assert settlement.kind is SettlementKind.RELEASE
    plant.acknowledge(acknowledgement(the_change(plant), AcknowledgementKind.RELEASED, DEADLINE))

    assert the_change(plant).effective_at == DEADLINE
    assert not the_change(plant).is_open


@pytest.mark.parametrize(
    ("account", "service", "reasons"),
    [
        ({}, {}, ()),
        ({"zone": "Mars/Olympus"}, {}, ("zone_unknown",)),
        ({}, {"account_id": "A2"}, ("service_of_another_account",)),
    ],
)
def test_requests_are_annotated(account: dict[str, str], service: dict[str, str], reasons: tuple[str, ...]) -> None:
    """What the account's rows say travels with the request."""
    plant = Plant()
    plant.knows(an_account(**account), a_service(**service), a_plan(change_id="C0"))
    plant.request(a_request())

    [validated] = plant.read(plant.events.sent, "plan-change.validated", ValidatedRequest)
    assert (validated.valid, validated.reasons) == (not reasons, reasons)
    assert (validated.rate_plan_id, validated.billing_day, validated.plan_change_id) == ("basic", 15, "C0")
    assert [term.option_id for term in validated.options_held] == ["sms"]


def test_a_request_for_nobody_is_answered_too() -> None:
    """The service's partition replies, so that the caller does not wait for ever."""
    plant = Plant()
    plant.tick(NOON)

    [reply] = plant.replies(plant.request(a_request()))

    assert not reply.accepted
    assert set(reply.reasons) >= {"account_unknown", "service_unknown"}


def test_before_the_first_tick_requests_wait_in_their_order() -> None:
    """Without business time nothing can be decided, and a cancel must not overtake its order."""
    plant = a_plant(at_noon=False)
    assert plant.replies(plant.request(a_request(), a_cancel())) == []
    plant.changes.reopen()

    answered = plant.tick(NOON)

    assert [(reply.request_id, reply.accepted) for reply in plant.replies(answered)] == [("R1", True), ("C1", True)]


def test_a_request_again_gets_the_same_reply() -> None:
    """Also after its change went on, and also when the first reply was lost in a crash."""
    plant = a_plant()
    [first] = plant.replies(plant.request(a_request()))
    plant.tick(START)

    [again] = plant.replies(plant.request(a_request(requested_at=START)))
    [conflict] = plant.replies(plant.request(a_request(silent=True)))

    assert again == first
    assert conflict.reasons == ("request_id_conflict",)


def _validated(plant: Plant, request: Request) -> list[tuple[str | None, bytes | None]]:
    """What the account's partition makes of ``request``, as input of the service's."""
    value = plant.codec.encode("plan-change.requests", request)
    outputs = plant.events.run(plant.orders.requests, "plan-change.requests", [(request.account_id, value)])
    return [(output.key if isinstance(output.key, str) else None, output.value) for output in outputs]


@pytest.mark.parametrize("told", [0, 1, 2])
def test_an_answer_that_may_have_been_told_stands(told: int) -> None:
    """A cancel is decided before the start, and the process dies while it tells so. The start passes before the request
    comes again: decided anew it would be too late, and the world would have heard both."""
    plant = a_plant()
    plant.request(a_request())
    cancel = plant.changes.chunk("plan-change.validated", _validated(plant, a_cancel()))

    lost = plant.changes.replay(plant.scheduler.requests, cancel, crash_after_outputs=told, crash_in_slice=2)
    passed = plant.tick(START + timedelta(hours=1))
    again = plant.changes.replay(plant.scheduler.requests, cancel)

    assert len(lost) == told
    assert {reply.accepted for reply in plant.replies(lost + passed + again)} == {True}
    assert kinds(plant, passed) == ["cancelled"]
    assert the_change(plant).state == "cancelled"
    assert [key for key, _ in plant.changes.store.scan(b"redo/")] == []


def test_what_is_decided_behind_an_answer_is_told_after_a_crash_too() -> None:
    """One chunk: the ORDER hook of S1 agrees, so its request is answered, and the outcome of S2 is sealed. Both are
    durable at once, so both have to be told by whoever comes after."""
    order_hook = Hook(name="o", key="RATEPLAN.CHANGE.ORDER.hooked", call=lambda context: Proceed())
    plant = Plant(hooks=(order_hook,), elements=(an_element(), an_element("hooked")))
    plant.knows(an_account(), a_service(), a_plan())
    plant.knows(an_account(), a_service(id="S2"), a_plan(service_id="S2"))
    plant.tick(NOON)
    plant.request(a_request("R2", service_id="S2"))
    parked = plant.request(a_request(element_key="hooked"))
    started = plant.tick(START + timedelta(hours=3))
    commands = plant.read(parked + started, "plan-change.commands", ExecuteCommand)
    once = {command.service_id: command for command in commands}  # one is overdue by now, and comes again
    results = [result_of(plant, command) for command in once.values()]
    assert [(one.service_id, one.step) for one in results] == [("S1", CommandStep.ORDER), ("S2", CommandStep.EXECUTE)]
    topic = "plan-change.outcomes"
    chunk = plant.changes.chunk(topic, [(one.service_id, plant.codec.encode(topic, one)) for one in results])

    lost = plant.changes.replay(plant.scheduler.outcomes, chunk, crash_after_outputs=0, crash_in_slice=2)
    again = plant.changes.replay(plant.scheduler.outcomes, chunk)

    assert lost == []
    assert kinds(plant, again).count("executed") == 1
    assert [reply.service_id for reply in plant.replies(again)] == ["S1"]


def test_nothing_is_told_before_it_is_durable() -> None:
    """The process dies before the decision is in the changelog: nobody has heard of it, so it may be decided anew."""
    plant = a_plant()
    plant.request(a_request())
    cancel = plant.changes.chunk("plan-change.validated", _validated(plant, a_cancel()))

    lost = plant.changes.replay(plant.scheduler.requests, cancel, crash_after_outputs=9)
    plant.tick(START)
    again = plant.changes.replay(plant.scheduler.requests, cancel)

    assert lost == []
    assert [reply.reasons for reply in plant.replies(again)] == [("too_late",)]


def test_a_crash_after_outputs_repeats_them_with_the_same_ids() -> None:
    """The commands of a tick are out, the rows are lost: the same commands come again, and one execution counts."""
    plant = a_plant()
    services = [f"S{number}" for number in range(20)]
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))
    plant.changes.now = START + timedelta(hours=3)
    tick = plant.changes.chunk("clock.ticks", [(None, b"")])

    lost = plant.changes.replay(plant.scheduler.ticks, tick, crash_after_outputs=13)
    outputs = plant.changes.replay(plant.scheduler.ticks, tick)

    commands = plant.read(outputs, "plan-change.commands", ExecuteCommand)
    assert sorted(command.service_id for command in commands) == sorted(services)
    ids = {finding.event_id for finding in plant.read(outputs, "events.findings", Finding)}
    assert {finding.event_id for finding in plant.read(lost, "events.findings", Finding)} <= ids
    plant.execute(lost + outputs)
    assert Counter(kinds(plant, plant.sent))["executed"] == len(services)


def test_the_window_bounds_what_is_in_flight_and_results_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices go on when results arrive, not only at ticks; a restart knows what is in flight from the rows."""
    monkeypatch.setattr(scheduler, "WINDOW", 3)
    plant = a_plant()
    plant.changes.reopen()
    services = [f"S{number}" for number in range(10)]
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))

    outputs = plant.tick(START + timedelta(hours=3))
    assert len(plant.read(outputs, "plan-change.commands", ExecuteCommand)) == 3
    plant.changes.reopen()
    assert plant.read(plant.tick(START + timedelta(hours=3)), "plan-change.commands", ExecuteCommand) == []
    rounds = 0
    while outputs := plant.execute(outputs):
        rounds += 1

    assert rounds == 4
    assert Counter(kinds(plant, plant.sent))["executed"] == 10


def _persisted(plant: Plant, *services: str) -> None:
    """Changes of these services, up to the commit of their outcomes in the billing store."""
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    outputs = plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))
    outputs = plant.tick(START + timedelta(hours=3))
    while outputs := plant.execute(outputs):
        pass
    at = START + timedelta(hours=4)
    plant.acknowledge(*(acknowledgement(the_change(plant, one), AcknowledgementKind.PERSISTED, at) for one in services))


def test_releases_of_a_midnight_wait_for_room_and_acknowledgements_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent all at once they would be overdue before the persister comes to them, and be sent again; after a restart
    the rows say which are out."""
    monkeypatch.setattr(scheduler, "WINDOW", 3)
    plant = a_plant()
    plant.changes.reopen()
    services = [f"S{number}" for number in range(10)]
    _persisted(plant, *services)

    out, rounds = plant.settlements(plant.tick(DEADLINE)), 0
    plant.changes.reopen()
    assert plant.settlements(plant.tick(DEADLINE)) == []
    while out:
        assert len(out) <= 3
        answers = [
            acknowledgement(the_change(plant, one.service_id), AcknowledgementKind.RELEASED, DEADLINE) for one in out
        ]
        out, rounds = plant.settlements(plant.acknowledge(*answers)), rounds + 1

    assert rounds == 4
    assert all(the_change(plant, one).effective_at == DEADLINE for one in services)


def test_a_release_that_is_not_answered_is_sent_again_and_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else lost answers, or one that never comes, would fill the window for ever."""
    monkeypatch.setattr(scheduler, "WINDOW", 1)
    plant = a_plant()
    plant.changes.reopen()
    _persisted(plant, "S1", "S2", "S3")

    [first] = plant.settlements(plant.tick(DEADLINE))
    assert plant.settlements(plant.tick(DEADLINE + OVERDUE / 2)) == []
    then = [one.service_id for one in plant.settlements(plant.tick(DEADLINE + OVERDUE))]
    last = [one.service_id for one in plant.settlements(plant.tick(DEADLINE + OVERDUE * 2))]

    assert then[0] == first.service_id
    assert len(then) == 2
    assert sorted(last) == ["S1", "S2", "S3"]


def test_an_executor_that_is_gone_holds_no_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands fill their window, not the one of the releases."""
    monkeypatch.setattr(scheduler, "WINDOW", 1)
    plant = a_plant()
    plant.changes.reopen()
    services = ["S1", "S2", "S3"]
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))
    [first] = plant.read(plant.tick(START + timedelta(hours=3)), "plan-change.commands", ExecuteCommand)
    value = plant.codec.encode("plan-change.outcomes", result_of(plant, first))
    plant.changes.run(plant.scheduler.outcomes, "plan-change.outcomes", [(first.service_id, value)])
    at = START + timedelta(hours=4)
    plant.acknowledge(acknowledgement(the_change(plant, first.service_id), AcknowledgementKind.PERSISTED, at))
    assert sorted(the_change(plant, one).awaiting or "" for one in services) == ["", "", "execute"]

    out = {(one.service_id, one.kind) for one in plant.settlements(plant.tick(DEADLINE))}

    assert (first.service_id, SettlementKind.RELEASE) in out


def test_slices_of_a_tick_are_durable_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in the third slice repeats only that one."""
    monkeypatch.setattr(scheduler, "SLICE", 4)
    plant = a_plant()
    services = [f"S{number}" for number in range(10)]
    for service in services:
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.request(*(a_request(f"R-{service}", service_id=service) for service in services))

    plant.changes.now = START
    tick = plant.changes.chunk("clock.ticks", [(None, b"")])

    before = plant.changes.replay(plant.scheduler.ticks, tick, crash_after_outputs=1, crash_in_slice=3)
    after = plant.changes.replay(plant.scheduler.ticks, tick)

    assert len(kinds(plant, before)) == 4 + 4 + 1
    assert len(kinds(plant, after)) == 2
    assert all(the_change(plant, service).state == "started" for service in services)


def test_the_next_due_instant_is_reported_when_it_changes() -> None:
    """The virtual clock goes there; a tick that changes nothing reports nothing."""
    plant = a_plant()

    ordered = plant.read(plant.request(a_request()), "clock.due", NextDue)
    again = plant.read(plant.tick(NOON + timedelta(hours=1)), "clock.due", NextDue)

    assert ordered == [NextDue(group="plan-changes", partition=0, due=START)]
    assert again == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("S1", b"not avro"), ("S1", None), ("S2", "validated")],
    ids=["not avro", "no value", "wrong key"],
)
def test_a_bad_record_becomes_a_dead_letter_and_the_others_go_on(key: str, value: bytes | str | None) -> None:
    """One by one, not chunk by chunk."""
    plant = a_plant()
    topic = "plan-change.validated"
    good = plant.codec.encode(topic, known(a_request()))

    outputs = plant.changes.run(
        plant.scheduler.requests, topic, [(key, good if isinstance(value, str) else value), ("S1", good)]
    )

    assert [output.topic for output in outputs].count("dead-letters.plan-changes") == 1
    assert [reply.accepted for reply in plant.replies(outputs)] == [True]


# -- execution ------------------------------------------------------------------------------------------------------


def fee_hook(context: WorkflowContext) -> Verdict:
    return Adjust(patch=Patch(fees=(Fee(code="hook", amount=Decimal("1.5"), currency="EUR"),)))


def test_prior_and_after_hooks_alter_the_outcome() -> None:
    """A fee at PRIOR, an option removed at AFTER, for this element only; notes go from hook to hook."""

    def note(context: WorkflowContext) -> Verdict:
        context.notes["seen"] = "yes"
        return Proceed()

    def remove(context: WorkflowContext) -> Verdict:
        assert context.outcome is not None
        return Adjust(patch=Patch(options_removed=("roaming",))) if context.notes["seen"] == "yes" else Proceed()

    plant = a_plant(
        Hook(name="fee", key=Hookpoint.PRIOR, call=fee_hook),
        Hook(name="note", key=Hookpoint.AFTER, call=note),
        Hook(name="remove", key="RATEPLAN.CHANGE.AFTER.basic-to-plus", call=remove),
        Hook(name="other", key="RATEPLAN.CHANGE.PRIOR.gold", call=lambda context: Abort(reason="never")),
    )

    result = result_of(plant, a_command())

    assert result.sealed is not None
    assert [fee.code for fee in result.sealed.outcome.fees] == ["change", "hook"]
    assert result.sealed.outcome.options_created == ()


def _raise(context: WorkflowContext) -> Verdict:
    raise RuntimeError("the CRM is down")


@pytest.mark.parametrize(
    ("policy", "verdict", "reason", "retryable"),
    [
        (FailurePolicy.ABORT, ExecutionVerdict.FAILED, "hook_failed:broken", False),
        (FailurePolicy.RETRY, ExecutionVerdict.FAILED, "hook_failed:broken", True),
        (FailurePolicy.SKIP, ExecutionVerdict.SEALED, None, False),
    ],
)
def test_a_broken_hook_follows_its_policy(
    policy: FailurePolicy, verdict: ExecutionVerdict, reason: str | None, retryable: bool
) -> None:
    """The reason names the hook."""
    plant = a_plant(Hook(name="broken", key=Hookpoint.PRIOR, call=_raise, on_failure=policy))

    result = result_of(plant, a_command())

    assert (result.verdict, result.reason, result.retryable) == (verdict, reason, retryable)


def test_a_hook_that_sleeps_does_not_hold_up_the_others() -> None:
    """Its change times out; the other commands of the chunk are executed side by side with it, and recorded before."""
    released = threading.Event()

    def sleep(context: WorkflowContext) -> Verdict:
        if context.command.service_id == "S1":
            released.wait(60)
        return Proceed()

    plant = a_plant(Hook(name="sleepy", key=Hookpoint.PRIOR, call=sleep, budget_seconds=2.0))
    topic = "plan-change.commands"
    commands = [a_command(service_id=f"S{number}", command_id=str(number)) for number in range(1, 6)]

    outputs = plant.execution.run(
        plant.executor.commands, topic, [(one.service_id, plant.codec.encode(topic, one)) for one in commands]
    )
    released.set()

    results = plant.read(outputs, "plan-change.outcomes", ExecutionResult)
    assert [result.service_id for result in results] == ["S2", "S3", "S4", "S5", "S1"]
    assert results[-1].reason == "hook_timeout:sleepy"
    assert {result.verdict for result in results[:-1]} == {ExecutionVerdict.SEALED}


def test_an_abort_is_final() -> None:
    """With the hook's own reason."""
    plant = a_plant(Hook(name="no", key=Hookpoint.PRIOR, call=lambda context: Abort(reason="unpaid_bill")))

    result = result_of(plant, a_command())

    assert (result.verdict, result.reason, result.sealed) == (ExecutionVerdict.ABORTED, "unpaid_bill", None)


@pytest.mark.parametrize(
    "patch",
    [
        Patch(memberships=()),
        Patch(fees=(Fee(code="x", amount=0.1, currency="EUR"),)),  # type: ignore[arg-type]
        Patch(options_added=(7,)),  # type: ignore[arg-type]
    ],
    ids=["no memberships", "a float", "a number as option"],
)
def test_a_patch_that_breaks_an_invariant_fails_its_change_only(patch: Patch) -> None:
    """Nothing of it is sealed, and the worker goes on."""
    plant = a_plant(Hook(name="bad", key=Hookpoint.AFTER, call=lambda context: Adjust(patch=patch)))

    result = result_of(plant, a_command())

    assert result.verdict is ExecutionVerdict.FAILED
    assert (result.reason or "").startswith("invariant:")


def test_a_command_again_gets_the_recorded_result_without_calling_hooks() -> None:
    """A replay re-emits the same seal; another attempt is another command and calls them again."""
    calls: list[str] = []

    def count(context: WorkflowContext) -> Verdict:
        calls.append(context.command.command_id)
        return fee_hook(context)

    plant = a_plant(Hook(name="count", key=Hookpoint.PRIOR, call=count))
    command = a_command()

    first, again = result_of(plant, command), result_of(plant, replace(command, sent_at=DEADLINE))
    result_of(plant, a_command(command_id="attempt-2", attempt=2))

    assert again == first
    assert calls == [command.command_id, "attempt-2"]


@pytest.mark.parametrize(
    ("verdict", "reply", "state"),
    [(Proceed(), (True, ()), "pending"), (Abort(reason="blocklisted"), (False, ("blocklisted",)), None)],
)
def test_order_hooks_decide_before_the_order_does(
    verdict: Verdict, reply: tuple[bool, tuple[str, ...]], state: str | None
) -> None:
    """The reply waits for them, and so does a cancel that came behind the order."""
    plant = a_plant(Hook(name="order", key=Hookpoint.ORDER, call=lambda context: verdict))
    asked = plant.request(a_request(), a_cancel(expected_revision=99))
    assert plant.replies(asked) == []
    [command] = plant.read(asked, "plan-change.commands", ExecuteCommand)
    assert command.step is CommandStep.ORDER

    answered = plant.execute(asked)

    order, cancel = plant.replies(answered)
    assert (order.accepted, order.reasons) == reply
    assert cancel.reasons == (("revision_mismatch",) if order.accepted else ("no_open_change",))
    assert order.state == state


ORDER_HOOK = Hook(name="order", key=Hookpoint.ORDER, call=lambda context: Proceed())


def test_more_requests_than_may_wait_are_refused() -> None:
    """The executor is down and the caller tries new ids: those that wait are one row, which must not grow too large."""
    plant = a_plant(ORDER_HOOK)
    ids = [f"R{number}" for number in range(103)]

    asked = plant.request(*(a_request(id) for id in ids))

    turned_away = {reply.request_id: reply for reply in plant.replies(asked)}
    assert [*turned_away] == ids[100:]
    assert {reply.reasons for reply in turned_away.values()} == {("too_many_waiting",)}
    assert kinds(plant, asked) == ["rejected"] * 3
    assert plant.replies(plant.request(a_request(ids[-1], requested_at=START))) == [turned_away[ids[-1]]]

    answered = plant.replies(plant.execute(asked))

    assert [(reply.request_id, reply.reasons) for reply in answered] == [
        ("R0", ()),
        *((id, ("open_change",)) for id in ids[1:100]),
    ]


@pytest.mark.parametrize("at_noon", [True, False])
def test_requests_that_wait_may_be_only_so_large(at_noon: bool) -> None:
    """Few large ones fill the row as well, also before there is a business time; and each comes to its answer."""
    plant = a_plant(ORDER_HOOK, at_noon=at_noon)
    requests = [a_request(f"R{number}", options=("x" * 200_000,)) for number in range(5)]

    asked = plant.request(*requests)
    asked += plant.tick(NOON)
    while found := plant.execute(asked):
        asked = found

    reasons = {reply.request_id: reply.reasons for reply in plant.replies(plant.sent)}
    assert reasons["R0"] == ()
    assert set(reasons) == {request.request_id for request in requests}
    assert reasons["R4"] == ("too_many_waiting",)
    assert not any(output.topic.startswith("dead-letters") for output in plant.sent)


def test_a_request_too_large_to_be_kept_is_refused() -> None:
    """As command, as change and as one that waits it would be in rows with much else."""
    plant = a_plant()
    request = a_request(options=tuple(f"{number:06}" for number in range(40_000)))
    topic = "plan-change.validated"
    value = plant.codec.encode(topic, known(request))

    [reply] = plant.replies(plant.changes.run(plant.scheduler.requests, topic, [("S1", value)]))

    assert reply.reasons == ("request_too_large",)


def test_a_change_too_large_for_a_row_stops_nobody() -> None:
    """Its request becomes a dead letter, without a trace in the rows; those before and behind it are decided."""
    large = an_element("large", options_added=("x" * 1_000_000,))
    plant = Plant(elements=(an_element(), large))
    for service in ("S1", "S2", "S3"):
        plant.knows(an_account(), a_service(id=service), a_plan(service_id=service))
    plant.tick(NOON)

    outputs = plant.request(
        a_request("R1"),
        a_request("R2", service_id="S2", element_key="large"),
        a_request("R3", service_id="S3"),
    )

    letters = [output for output in outputs if output.topic == "dead-letters.plan-changes"]
    assert [letter.key for letter in letters] == [b"S2"]
    assert ("curfew-reason", b"too_large") in [*(letters[0].headers or ())]
    assert [(reply.service_id, reply.accepted) for reply in plant.replies(outputs)] == [("S1", True), ("S3", True)]
    assert [key for key, _ in plant.changes.store.scan(b"") if b"S2" in key] == []
    assert plant.replies(plant.request(a_request("R4", service_id="S2")))[0].accepted
