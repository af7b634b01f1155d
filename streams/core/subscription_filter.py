"""Which events a subscription accepts. Pure, so that intake and the ledger's checker come to the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from streams.core.catalogue import matching
from streams.core.events import Event
from streams.core.filters import Condition, Language, Unfit
from streams.core.subscriptions import Subscription

#: The audience of a subscription that takes both kinds.
EVERYONE: Final = "all"


class Acceptance:
    """Which events subscriptions accept; filters are compiled once."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._conditions: dict[str, Condition] = {}

    def accepts(self, subscription: Subscription, event: Event) -> bool:
        """Whether ``event`` is for this subscription; False means that it is counted as filtered."""
        try:
            return self.decide(subscription, event)
        except Unfit:
            return False

    def decide(self, subscription: Subscription, event: Event) -> bool:
        """As :meth:`accepts`, but raises Unfit where the filter has no answer for this event."""
        if not subscription.active:
            return False
        if subscription.event_types and event.type not in exact_types(subscription.event_types):
            return False
        if subscription.audience not in (EVERYONE, event.audience):
            return False
        return not subscription.filter or self._condition(subscription.filter)(event, event.parameters)

    def compared(self, subscription: Subscription) -> tuple[str, ...]:
        """The parameters that the filter looks at."""
        return self._condition(subscription.filter).parameters if subscription.filter else ()

    def _condition(self, expression: str) -> Condition:
        found = self._conditions.get(expression)
        if found is None:
            found = self._conditions[expression] = Condition(self._language.compile(expression))
        return found


@lru_cache(maxsize=1024)
def exact_types(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The event types that patterns mean, each once: exact types, or groups as in ``service.*``."""
    return tuple(dict.fromkeys(event_type for pattern in patterns for event_type in matching(pattern)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a subscription wants to find in the events of its queue (an Ask of :mod:`streams.core.routing`)."""

    queue: str
    event_types: tuple[str, ...]
    parameters: tuple[str, ...]
    active: bool


def asked(subscription: Subscription, acceptance: Acceptance) -> Asked:
    """The parameters that the message names, those that hold addresses, and those that the filter compares."""
    addresses = subscription.email.to_parameters if subscription.email is not None else ()
    return Asked(
        queue=subscription.queue,
        event_types=exact_types(subscription.event_types),
        parameters=tuple(dict.fromkeys((*subscription.parameters, *addresses, *acceptance.compared(subscription)))),
        active=subscription.active,
    )
