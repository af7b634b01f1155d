"""A file of subscriptions: ``[[subscription]]`` tables in TOML, read strictly, checked before any is saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from agents.configuration.tables import no_strangers, read_tables, refuse
from agents.field_problems import field_problem
from streams.core.errors import Misconfigured
from streams.core.subscription_rules import Known, problems
from streams.core.subscriptions import Calculate, Email, Forward, Subscription, Webhook, kept, succeed

#: What the person does not write: identity and version are derived when a subscription is saved.
_DERIVED: Final = ("id", "version", "created_at")
_FIELDS: Final = tuple(field.name for field in fields(Subscription) if field.name not in _DERIVED)
_ACTIONS: Final = {"webhook": Webhook, "forward": Forward, "email": Email, "calculation": Calculate}


def read_subscriptions(
    path: Path,
    known: Known,
    existing: Mapping[str, Subscription],
    now: datetime,
    secret_problem: Callable[[str], str | None],
) -> dict[str, Subscription]:
    """The subscriptions of a file by name, each as the next version of the existing one (the same if nothing differs),
    with the pause and the rotated secret that the file does not speak of.

    ``secret_problem`` says why a reference cannot be used, or None. Raises :class:`Misconfigured` with every problem of
    the file.
    """
    found: list[str] = []
    wanted: dict[str, Subscription] = {}
    for number, table in enumerate(read_tables(path, "subscription", "subscriptions", Decimal), 1):
        name = table.get("name", f"number {number}")
        try:
            subscription = _subscription(table, now)
        except Misconfigured as error:
            found.append(f"subscription {name}: {error}")
            continue
        if subscription.name in wanted:
            found.append(f"subscription {name}: the name is used twice; the last one would silently win")
        before = existing.get(subscription.name)
        if before is not None:
            subscription = kept(before, subscription, table.keys())
        wrong = problems(subscription, known, existing=before)
        if subscription.webhook is not None:
            references = (subscription.webhook.secret_ref, subscription.webhook.previous_secret_ref)
            wrong += [problem for one in references if one is not None and (problem := secret_problem(one)) is not None]
        found.extend(f"subscription {name}: {problem}" for problem in dict.fromkeys(wrong))
        wanted[subscription.name] = succeed(before, subscription)
    refuse(path, found)
    return wanted


def _subscription(table: dict[str, Any], now: datetime) -> Subscription:
    no_strangers(table, _FIELDS, str)
    for name, cls in _ACTIONS.items():
        if isinstance(table.get(name), dict):
            no_strangers(table[name], tuple(field.name for field in fields(cls)), f"{name}.{{}}".format)
    try:
        return msgspec.convert({**table, "id": "", "version": 0, "created_at": now}, Subscription)
    except msgspec.ValidationError as error:
        raise Misconfigured(field_problem(error, Subscription)) from error
