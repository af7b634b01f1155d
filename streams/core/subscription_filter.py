"""Which events a subscription accepts. Pure, so that intake and the ledger's checker come to the same answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from streams.core.catalogue import matching
from streams.core.events import Event, Value, text
from streams.core.subscriptions import Subscription

#: Fields of the event itself that a filter may name; other names without a prefix are parameters (``service.name``).
FIELDS: Final = ("subject_kind", "subject_id", "account_id")
#: Maps that a filter may look into: ``current.state``.
MAPS: Final = ("facts", "previous", "current")
#: The audience of a subscription that takes both kinds.
EVERYONE: Final = "all"


def accepts(subscription: Subscription, event: Event) -> bool:
    """Whether ``event`` is for this subscription; False means that it is counted as filtered.

    Values are compared in the text form of :func:`streams.core.events.text`; what does not exist is ``null``.
    """
    if not subscription.active:
        return False
    if subscription.event_types and event.type not in exact_types(subscription.event_types):
        return False
    if subscription.audience not in (EVERYONE, event.audience):
        return False
    return all(text(_look_up(event, name)) in values for name, values in subscription.filter.items())


@lru_cache(maxsize=1024)
def exact_types(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The event types that patterns mean, each once: exact types, or groups as in ``service.*``."""
    return tuple(dict.fromkeys(event_type for pattern in patterns for event_type in matching(pattern)))


def _look_up(event: Event, name: str) -> Value:
    if name in FIELDS:
        own: Value = getattr(event, name)
        return own
    prefix, _, rest = name.partition(".")
    if prefix in MAPS:
        fields: dict[str, Value] | None = getattr(event, prefix)
        return (fields or {}).get(rest)
    return event.parameters.get(name)


def is_parameter(name: str) -> bool:
    """Whether a filter's name is a parameter, so that the event has to carry it."""
    return name not in FIELDS and name.partition(".")[0] not in MAPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a subscription wants to find in the events of its queue (an Ask of :mod:`streams.core.routing`)."""

    queue: str
    event_types: tuple[str, ...]
    parameters: tuple[str, ...]
    active: bool


def asked(subscription: Subscription) -> Asked:
    """The parameters that the message names, and those that the filter compares."""
    compared = [name for name in subscription.filter if is_parameter(name)]
    return Asked(
        queue=subscription.queue,
        event_types=exact_types(subscription.event_types),
        parameters=tuple(dict.fromkeys((*subscription.parameters, *compared))),
        active=subscription.active,
    )
