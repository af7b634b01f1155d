"""Subjects of e-mails: a line in which ``{invoice.number}`` stands for a parameter, ``{event.type}`` for the event's.

They come with the subscription, from a topic, so they are no templates: names in braces are replaced, nothing is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from streams.core.events import Event, Value, text

_NAMES: Final = re.compile(r"\{([^{}]*)\}")
#: What a subject may say of the event besides its parameters.
EVENT_FIELDS: Final = ("event.type", "event.subject_id", "event.account_id")


def names(line: str) -> tuple[str, ...]:
    """The names in braces, without those of the event itself."""
    return tuple(name for name in _NAMES.findall(line) if name not in EVENT_FIELDS)


def subject(line: str, event: Event, parameters: Mapping[str, Value]) -> str:
    """The subject for ``event``; what is not known is an empty place."""
    own: dict[str, Value] = dict(zip(EVENT_FIELDS, (event.type, event.subject_id, event.account_id), strict=True))
    known = {**parameters, **own}

    def value(found: re.Match[str]) -> str:
        held = known.get(found[1])
        return "" if held is None else text(held)

    return _NAMES.sub(value, line)
