"""Reason codes in words."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import agents.steps
from agents.cli.plan_changes.reasons import EXPLANATIONS, explain, in_words
from streams.core import (
    change_context,
    change_desk,
    change_orders,
    change_progress,
    change_repairs,
    eligibility,
    execute,
)

#: Texts of these modules that look like codes and are none: names of fields, events and facts.
NO_CODES = {
    "requested_at", "sent_at", "retry_at", "send_again", "failed_in", "rerate_from", "rerate_to", "rerate_requested",
    "wrong_key", "hook_failed:", "hook_timeout:", "request_id", "superseded_by", "account_revision",
    "service_revision",
}  # fmt: skip


DECIDING = (
    agents.steps, change_context, change_desk, change_orders, change_progress, change_repairs, eligibility, execute,
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
    assert EXPLANATIONS.keys() - codes() <= {"hook_failed", "hook_timeout", "invariant", "too_late"}


def test_codes_with_a_detail_are_explained_by_their_head_and_their_parts() -> None:
    """The hook's name stays in the code; broken invariants are named."""
    assert explain("hook_timeout:crm") == EXPLANATIONS["hook_timeout"]
    found = explain("invariant:membership_gap,fee_negative") or ""
    assert EXPLANATIONS["membership_gap"] in found
    assert EXPLANATIONS["fee_negative"] in found


def test_unknown_codes_pass_through() -> None:
    """Hooks have codes of their own."""
    assert explain("unpaid_bill") is None
    assert in_words(["unpaid_bill", None, "too_late", "too_late"]) == [f"too_late: {EXPLANATIONS['too_late']}"]
