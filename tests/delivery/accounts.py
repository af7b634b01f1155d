"""What must be true of a receiver's own log, whatever was killed, stopped or moved meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

#: One line of the log of `curfew receive`.
Line = Mapping[str, Any]


def accepted(received: Sequence[Line]) -> set[str]:
    """Ids of the webhooks that got a 2xx."""
    return {line["webhook_id"] for line in received if 200 <= line["status"] < 300}


def attempts(received: Sequence[Line]) -> dict[str, list[int]]:
    """Webhook-id → numbers of its attempts, in the order of their arrival."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for line in received:
        found[line["webhook_id"]].append(line["attempt"])
    return dict(found)


def check(received: Sequence[Line], policy: int) -> None:
    """Of one subscription: all signed, no attempt twice and none above the policy, one id for each event, and in each
    key no event before an earlier one has been accepted for the first time."""
    assert all(line["verified"] for line in received)
    for webhook_id, numbers in attempts(received).items():
        assert len(numbers) == len(set(numbers)), f"{webhook_id} has an attempt twice: {numbers}"
        assert max(numbers) <= policy, f"{webhook_id} has more attempts than the policy: {numbers}"
    ids: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    for line in received:
        ids[line["key"], line["sequence"]].add(line["webhook_id"])
    assert [event for event, found in ids.items() if len(found) > 1] == []
    for key, sequences in order(received).items():
        assert sequences == sorted(sequences), f"{key} out of order: {sequences}"


def order(received: Sequence[Line]) -> dict[str, list[int]]:
    """Key → sequences in the order in which they were accepted first."""
    found: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for line in received:
        if 200 <= line["status"] < 300:
            found[line["key"]].setdefault(line["sequence"])
    return {key: list(sequences) for key, sequences in found.items()}


def complete(received: Sequence[Line], numbers: Collection[int], accounts: int) -> bool:
    """Whether every event of :meth:`tests.delivery.deployment.Deployment.produce` was accepted, in the exact order."""
    wanted: defaultdict[str, list[int]] = defaultdict(list)
    for number in numbers:
        wanted[f"A{number % accounts}"].append(number)
    return order(received) == dict(wanted)
