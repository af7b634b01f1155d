"""Every detector: when it raises, and when it does not."""

from __future__ import annotations

from typing import Any

import pytest

from streams.core.catalogue import CATALOGUE
from streams.core.detectors import DETECTORS, KINDS, detect
from streams.core.events import Audience, Finding
from streams.core.ids import event_id
from streams.core.objects import AccountChange, Op
from streams.core.rows import Kind
from tests.core.billing import (
    ACCOUNT,
    AT,
    BILL_RUN,
    INVOICE,
    PACKAGE,
    PLAN,
    SERVICE,
    created,
    deleted,
    updated,
)


def found(change: Any, before: Any = None, registered: tuple[str, ...] = ()) -> list[Finding]:
    return detect(KINDS[type(change)], change, before, registered)


def types(change: Any, before: Any = None, registered: tuple[str, ...] = ()) -> list[str]:
    return [finding.type for finding in found(change, before, registered)]


RAISED = [
    (updated(SERVICE, state="Suspended"), ["service.state_transitioned"]),
    (updated(SERVICE, state="a state of their own"), ["service.state_transitioned"]),
    (updated(ACCOUNT, status="Suspended"), ["account.status_changed"]),
    (updated(ACCOUNT, status="Cancelled"), ["account.status_changed", "account.cancelled"]),
    (updated(INVOICE, state="Posted"), ["invoice.posted"]),
    (updated(PACKAGE, state="Cancelled"), ["package.cancelled"]),
    (updated(BILL_RUN, state="Started"), ["bill_run.started"]),
    (updated(BILL_RUN, state="Completed"), ["bill_run.completed"]),
    (updated(PLAN, rate_plan_id="plus", change_id="C1"), ["rate_plan_change.effective"]),
]


@pytest.mark.parametrize(("change", "expected"), RAISED, ids=lambda value: str(value) if type(value) is list else "")
def test_a_transition_raises_its_events(change: Any, expected: list[str]) -> None:
    """Each detector raises its event for the change that it is about."""
    assert types(change) == expected


NOT_RAISED = [
    updated(SERVICE, name="another name"),
    created(SERVICE),
    deleted(SERVICE),
    updated(ACCOUNT, email="other@aurora.example"),
    created(ACCOUNT),
    deleted(ACCOUNT),
    updated(INVOICE, balance=INVOICE.amount),
    created(INVOICE),
    updated(PACKAGE, state="Suspended"),
    created(BILL_RUN),
    updated(PLAN, product_id="other"),
    created(PLAN),
]


@pytest.mark.parametrize("change", NOT_RAISED, ids=lambda change: f"{type(change).__name__}-{change.op}")
def test_a_change_of_something_else_raises_nothing(change: Any) -> None:
    """An update of another field, a creation and a deletion are no transitions."""
    assert types(change, change.previous) == []


def test_an_invoice_that_is_created_posted_is_posted() -> None:
    """A bill run may make invoices in their final state; nobody would hear of them otherwise."""
    posted = updated(INVOICE, state="Posted").current

    [finding] = found(created(posted))

    assert finding.type == "invoice.posted"
    assert finding.facts == {"from": None, "to": "Posted"}


def test_a_posted_invoice_is_posted_once() -> None:
    """A later change of a posted invoice is not another posting."""
    posted = updated(INVOICE, state="Posted").current

    assert types(updated(posted, 3, balance=INVOICE.amount - 10)) == []


def test_a_transition_carries_from_and_to_and_both_states() -> None:
    """A finding says what it was, what it is, whose it is, and in which order."""
    [finding] = found(updated(SERVICE, 7, state="Suspended"))

    assert finding.facts == {"from": "Active", "to": "Suspended"}
    assert (finding.previous or {})["state"] == "Active"
    assert (finding.current or {})["state"] == "Suspended"
    assert (finding.subject_kind, finding.subject_id, finding.account_id) == ("service", "S1", "A1")
    assert (finding.sequence, finding.occurred_at) == (7, AT)
    assert finding.event_id == event_id("service.state_transitioned", "service", "S1", 7)


def test_a_completion_after_its_start_is_not_marked() -> None:
    """The store has seen the run started; the counts of the run travel with its completion."""
    started = updated(BILL_RUN, state="Started").current

    [finding] = found(updated(started, 3, state="Completed", accounts=2, invoices=5), before=started)

    assert finding.facts == {"start_missing": False, "accounts": 2, "invoices": 5}


@pytest.mark.parametrize("before", [None, BILL_RUN], ids=["never seen", "only scheduled"])
def test_a_completion_without_its_start_is_raised_and_marked(before: Any) -> None:
    """Whatever the record itself says about its past: nobody has been told that the run had started."""
    started = updated(BILL_RUN, state="Started").current

    [finding] = found(updated(started, 3, state="Completed"), before=before)

    assert finding.type == "bill_run.completed"
    assert finding.facts["start_missing"] is True


def test_a_bill_run_belongs_to_no_account() -> None:
    """It spans many accounts, so its event is keyed by the run."""
    [finding] = found(updated(BILL_RUN, state="Started"))

    assert finding.account_id is None
    assert finding.key == "R1"


def test_an_effective_change_names_both_plans_and_the_change() -> None:
    """The subject is the rate plan change, not the service's plan."""
    [finding] = found(updated(PLAN, rate_plan_id="plus", change_id="C1"))

    assert (finding.subject_kind, finding.subject_id) == ("rate_plan_change", "C1")
    assert finding.facts["from_rate_plan_id"] == "basic"
    assert finding.facts["to_rate_plan_id"] == "plus"
    assert finding.audience is Audience.CUSTOMER


def test_a_silent_change_becomes_effective_internally() -> None:
    """No customer message for a silent change; operators still see it."""
    [finding] = found(updated(PLAN, rate_plan_id="plus", change_id="C1", silent=True))

    assert finding.audience is Audience.INTERNAL


def test_a_change_becomes_effective_once_whatever_the_revision() -> None:
    """The persister may have to publish a plan again under another revision: the event stays the same one."""
    [first] = found(updated(PLAN, 2, rate_plan_id="plus", change_id="C1"))
    [again] = found(updated(PLAN, 3, rate_plan_id="plus", change_id="C1"))

    assert first.event_id == again.event_id


def test_a_later_correction_of_the_plan_is_not_effective_again() -> None:
    """The change id stays on the plan; only its arrival is an event."""
    effective = updated(PLAN, rate_plan_id="plus", change_id="C1").current

    assert types(updated(effective, 3, product_id="other")) == []


def test_object_changes_are_raised_only_if_registered() -> None:
    """Create, update and delete of objects are many; they are off until somebody wants them."""
    change = updated(SERVICE, name="another name")

    assert types(change) == []
    assert types(change, registered=("service.updated",)) == ["service.updated"]
    assert types(change, registered=("service.created", "account.updated")) == []


def test_a_registered_deletion_carries_what_was_there() -> None:
    """A deleted object has no current state; its last one is the event's previous."""
    [finding] = found(deleted(SERVICE), registered=("service.deleted",))

    assert finding.current is None
    assert (finding.previous or {})["name"] == SERVICE.name


def test_whatever_is_raised_is_in_the_catalogue() -> None:
    """Every type that a detector raises is listed as raised, about the object that it is raised for."""
    for change, expected in RAISED:
        for type in expected:
            assert CATALOGUE[type].raised
        assert all(CATALOGUE[finding.type].kind == finding.subject_kind for finding in found(change))
        assert all(set(finding.facts) == set(CATALOGUE[finding.type].facts) for finding in found(change))


def test_every_kind_with_changes_has_detectors() -> None:
    """A kind that is forgotten in the registry would raise nothing, in silence."""
    assert set(DETECTORS) == set(KINDS.values())
    assert Kind.BILL_RUN in DETECTORS


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"op": Op.CREATED, "previous": ACCOUNT, "current": ACCOUNT}, "created"),
        ({"op": Op.UPDATED, "previous": None, "current": ACCOUNT}, "updated"),
        ({"op": Op.DELETED, "previous": ACCOUNT, "current": ACCOUNT}, "deleted"),
        ({"op": Op.CREATED, "previous": None, "current": ACCOUNT, "revision": 0}, "revision 0"),
    ],
)
def test_a_change_that_contradicts_itself_cannot_be_built(fields: dict[str, Any], reason: str) -> None:
    """Built valid or not at all: no detector has to ask whether a created object has a past."""
    everything: dict[str, Any] = {"revision": 1, "occurred_at": AT, "source": "test"} | fields

    with pytest.raises(ValueError, match=reason):
        AccountChange(**everything)
