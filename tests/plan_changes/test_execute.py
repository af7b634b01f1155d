"""Core logic, its invariants and the seal."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.hooks import Patch
from streams.core.money import Fee, fits, money_text, totals
from streams.core.objects import Membership, OptionTerm
from streams.core.outcome import Outcome, Release, Task, TaskKind, seal, verify
from streams.core.plan_change.execute import adjust_draft, adjust_outcome, conclude, draft_of, violations
from streams.core.plan_change.messages import ExecuteCommand, ExecutionResult
from tests.plan_changes.makers import DEADLINE, LONG_AGO, a_command, executed

OPTIONS = st.lists(st.sampled_from(["sms", "roaming", "tv", "data"]), unique=True, max_size=4).map(tuple)
PATCHES = st.builds(Patch, options_added=OPTIONS, options_removed=OPTIONS, to_rate_plan_id=st.sampled_from([None, "x"]))


def outcome_of(command: ExecuteCommand) -> Outcome:
    return conclude(command, draft_of(command))


def held(*options: str) -> tuple[OptionTerm, ...]:
    return tuple(OptionTerm(option_id=option, valid_from=LONG_AGO, valid_to=None) for option in options)


def test_core_logic() -> None:
    """The new membership begins where the old one ends; options are created and ended at the same instant."""
    outcome = outcome_of(a_command(options=("tv",)))

    assert outcome.memberships == (Membership(rate_plan_id="plus", valid_from=DEADLINE, valid_to=None),)
    assert [(term.option_id, term.valid_from) for term in outcome.options_created] == [
        ("roaming", DEADLINE),
        ("tv", DEADLINE),
    ]
    assert outcome.options_ended == ("sms",)
    assert totals(outcome.fees) == {"EUR": Decimal("5.00")}


def test_an_option_that_is_held_is_not_created_again() -> None:
    """And one that is not held is not ended."""
    outcome = outcome_of(a_command(options_held=held("roaming")))

    assert outcome.options_created == ()
    assert outcome.options_ended == ()


def test_an_option_that_ends_before_the_deadline_is_not_held() -> None:
    """It is created anew."""
    over = OptionTerm(option_id="roaming", valid_from=LONG_AGO, valid_to=DEADLINE)

    outcome = outcome_of(a_command(options_held=(over,)))

    assert [term.option_id for term in outcome.options_created] == ["roaming"]
    assert violations(a_command(options_held=(over,)), outcome) == ()


def test_without_apply_fees_nothing_is_charged() -> None:
    """Neither the element's fees nor those of hooks, at PRIOR or at AFTER."""
    command = a_command(apply_fees=False)
    patch = Patch(fees=(Fee(code="x", amount=Decimal(1), currency="EUR"),))

    outcome = adjust_outcome(command, conclude(command, adjust_draft(draft_of(command), patch)), patch)

    assert outcome.fees == ()


def test_a_silent_change_has_no_communication() -> None:
    """Provisioning stays: the network must know, the customer need not."""
    command = a_command(silent=True)
    tasks = tuple(Task(kind=kind, name=kind.value, release=Release.EFFECTIVE, details={}) for kind in TaskKind)

    outcome = adjust_outcome(command, outcome_of(command), Patch(tasks=tasks))

    assert [task.kind for task in outcome.tasks] == [TaskKind.PROVISIONING]


def test_an_after_hook_may_put_a_promotion_in_between() -> None:
    """Memberships may be several, as long as they leave no gap."""
    command = a_command()
    later = DEADLINE + timedelta(days=30)
    plan = (
        Membership(rate_plan_id="plus", valid_from=DEADLINE, valid_to=later),
        Membership(rate_plan_id="basic", valid_from=later, valid_to=None),
    )

    assert violations(command, adjust_outcome(command, outcome_of(command), Patch(memberships=plan))) == ()


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("memberships", "expected"),
    [
        ([(timedelta(0), timedelta(days=30)), (timedelta(days=31), None)], "membership_gap"),
        ([(timedelta(0), timedelta(days=30)), (timedelta(days=29), None)], "membership_overlap"),
        ([(MINUTE, None)], "membership_gap"),
        ([(-MINUTE, None)], "membership_overlap"),
        ([(timedelta(0), timedelta(days=30))], "membership_gap"),
        ([(timedelta(0), None), (timedelta(days=1), None)], "membership_overlap"),
        ([(timedelta(0), timedelta(0)), (timedelta(0), None)], "membership_empty"),
        ([], "membership_gap"),
    ],
)
def test_memberships_that_break_an_invariant(
    memberships: list[tuple[timedelta, timedelta | None]], expected: str
) -> None:
    """A gap rates nothing, an overlap rates twice."""
    command = a_command()
    plan = tuple(
        Membership(rate_plan_id="plus", valid_from=DEADLINE + begin, valid_to=None if end is None else DEADLINE + end)
        for begin, end in memberships
    )

    assert expected in violations(command, replace(outcome_of(command), memberships=plan))


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        (Membership(rate_plan_id="basic", valid_from=LONG_AGO, valid_to=DEADLINE - MINUTE), "membership_gap"),
        (Membership(rate_plan_id="basic", valid_from=DEADLINE + MINUTE, valid_to=None), "membership_overlap"),
    ],
)
def test_old_memberships_must_reach_the_deadline(old: Membership, expected: str) -> None:
    """What is there before is a part of the invariant."""
    command = a_command(memberships=(old,))

    assert expected in violations(command, outcome_of(command))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"options_created": held("sms"), "options_ended": ()}, "option_duplicate"),
        ({"options_created": held("tv", "tv")}, "option_duplicate"),
        ({"options_ended": ("tv",)}, "option_ended_not_held"),
        ({"options_ended": ("sms", "sms")}, "option_ended_not_held"),
        ({"fees": (Fee(code="a", amount=Decimal("-1"), currency="EUR"),)}, "fee_negative"),
        ({"fees": (Fee(code="a", amount=Decimal("0.0000001"), currency="EUR"),)}, "fee_amount_unrepresentable"),
        ({"fees": (Fee(code="a", amount=Decimal("NaN"), currency="EUR"),)}, "fee_amount_unrepresentable"),
        (
            {"fees": tuple(Fee(code="a", amount=Decimal(1), currency=currency) for currency in ("EUR", "USD"))},
            "fee_currencies_differ",
        ),
        ({"to_rate_plan_id": "gold"}, "membership_of_another_plan"),
    ],
)
def test_an_outcome_that_breaks_an_invariant(changed: dict[str, object], expected: str) -> None:
    """Each is named, so that a person knows which hook to look at."""
    command = a_command()

    assert expected in violations(command, replace(outcome_of(command), **changed))  # type: ignore[arg-type]


@given(held_options=OPTIONS, chosen=OPTIONS, prior=PATCHES, after=PATCHES)
def test_no_sequence_of_patches_breaks_an_invariant(
    held_options: tuple[str, ...], chosen: tuple[str, ...], prior: Patch, after: Patch
) -> None:
    """Whatever options are held, chosen, added and removed, none is there twice and none ends that is not there."""
    command = a_command(options_held=held(*held_options), options=chosen)

    outcome = adjust_outcome(command, conclude(command, adjust_draft(draft_of(command), prior)), after)

    assert violations(command, outcome) == ()


def test_the_seal_survives_the_wire() -> None:
    """Avro pads decimals and cuts instants to milliseconds; the hash must not notice, and notice everything else."""
    schemas = LocalSchemas()
    codec = Codec(LocalIds(schemas), schemas)
    result = executed(a_command(fees=(Fee(code="a", amount=Decimal("1E+1"), currency="EUR"),)))
    sent = codec.decode(codec.encode("plan-change.outcomes", result), ExecutionResult)
    assert sent.sealed is not None

    assert str(sent.sealed.outcome.fees[0].amount) == "10.000000"
    assert verify(sent.sealed)
    assert not verify(replace(sent.sealed, outcome=replace(sent.sealed.outcome, revision=2)))


def test_the_seal_is_the_same_for_ever() -> None:
    """A pinned hash: a change of the canonical text would make every stored outcome look forged."""
    assert seal(outcome_of(a_command())).hash == PINNED


PINNED = "942539876bf2b85b0a8870a53a55330ad1ef68ddded5f1bfeac0e6463224fe1f"


@pytest.mark.parametrize(("amount", "text"), [("10", "10"), ("10.50", "10.5"), ("1E+2", "100"), ("-0.00", "0")])
def test_one_text_per_amount(amount: str, text: str) -> None:
    """Equal amounts have equal texts."""
    assert money_text(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("9" * 32 + ".999999", True), ("1" + "0" * 32, False), ("0.0000001", False), ("Infinity", False)],
)
def test_what_fits_the_wire(amount: str, expected: bool) -> None:
    """decimal(38,6), also where Python's default context would round to 28 digits."""
    assert fits(Decimal(amount)) is expected
