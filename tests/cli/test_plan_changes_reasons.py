"""Reason codes in words."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import agents.plan_changes.steps
from agents.plan_changes.reasons import EXPLANATIONS, explain, in_words, why
from agents.reconcile.letters import Letter
from streams.core.plan_change import context, desk, eligibility, execute, orders, progress, repairs
from streams.core.plan_change.machine import State
from tests.plan_changes.makers import pending

#: Texts of these modules that look like codes and are none: names of fields, events and facts.
NO_CODES = {
    "requested_at", "sent_at", "retry_at", "send_again", "failed_in", "rerate_from", "rerate_to", "rerate_requested",
    "wrong_key", "hook_failed:", "hook_timeout:", "request_id", "superseded_by", "account_revision",
    "service_revision",
}  # fmt: skip


DECIDING = (
    agents.plan_changes.steps, context, desk, orders, progress, repairs,
    eligibility, execute,
)  # fmt: skip


def codes() -> set[str]:
    """Every text like ``too_late`` in the modules that decide."""
    found = set()
    for module in DECIDING:
        tree = ast.parse(Path(module.__file__ or "").read_text())
        found |= {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    return {code for code in found if re.fullmatch(r"[a-z]+(_[a-z]+)+", code)} - NO_CODES


def test_every_code_of_the_core_is_explained() -> None:
    """A new code without words would leave an operator with a riddle."""
    assert codes() - EXPLANATIONS.keys() == set()


def test_no_words_for_codes_that_are_gone() -> None:
    """The table is about what the code says now; hooks and invariants have a prefix."""
    assert EXPLANATIONS.keys() - codes() <= {
        "hook_failed", "hook_timeout", "invariant", "too_late", "deadline_missed",
    }  # fmt: skip


def test_codes_with_a_detail_are_explained_by_their_head_and_their_parts() -> None:
    """The hook's name stays in the code; broken invariants are named."""
    assert explain("hook_timeout:crm") == EXPLANATIONS["hook_timeout"]
    found = explain("invariant:membership_gap,fee_negative") or ""
    assert EXPLANATIONS["membership_gap"] in found
    assert EXPLANATIONS["fee_negative"] in found


def test_an_open_change_that_waits_for_a_person_is_named_with_what_ends_it() -> None:
    """It can be neither cancelled nor superseded, so that is not what the words advise."""
    for code in ("open_change", "too_late", "too_late_to_supersede"):
        [held], [failed], [waits] = (in_words([code], state) for state in ("held", "failed", "pending"))

        assert "is held" in held
        assert "curfew plan-changes resolve" in held
        assert "curfew plan-changes retry" in failed
        assert waits == f"{code}: {EXPLANATIONS[code]}"
    assert in_words(["channel_not_allowed"], "held") == in_words(["channel_not_allowed"])


def test_a_held_change_that_was_refused_by_the_store_has_both_reasons() -> None:
    """The scheduler knows only that nothing came; the dead letter knows why."""
    held = replace(pending(), state=State.HELD, reason="not_persisted", missed=True)
    letter = Letter(
        change_id=held.change_id, revision=1, service_id="S1", hash="h", deadline=held.deadline_at,
        reason="bad_seal", message="bad_seal: it differs", place="dead-letters.persistence[2]@17",
    )  # fmt: skip

    code, words = why(held, letter)

    assert code == "not_persisted"
    assert words == (
        f"{EXPLANATIONS['not_persisted']}; the billing store refused the outcome: bad_seal: it differs; it lies in "
        "dead-letters.persistence[2]@17"
    )
    assert why(replace(held, state=State.PERSISTED, persisted_at=held.deadline_at, reason=None), letter) == (None, None)


def test_unknown_codes_pass_through() -> None:
    """Hooks have codes of their own."""
    assert explain("unpaid_bill") is None
    assert in_words(["unpaid_bill", None, "too_late", "too_late"]) == [f"too_late: {EXPLANATIONS['too_late']}"]
