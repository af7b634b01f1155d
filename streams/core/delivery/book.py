"""The subscriptions as the delivery and dispatch workers look them up."""

from __future__ import annotations

from collections.abc import Iterable

from streams.core.subscription_filter import Acceptance
from streams.core.subscriptions import Subscription


class Book:
    """The live subscriptions by id and by queue, and what they accept."""

    def __init__(self, subscriptions: Iterable[Subscription], acceptance: Acceptance) -> None:
        self.acceptance = acceptance
        self.by_id: dict[str, Subscription] = {one.id: one for one in subscriptions}
        self.by_queue: dict[str, list[Subscription]] = {}
        for one in self.by_id.values():
            self.by_queue.setdefault(one.queue, []).append(one)
