"""The Kafka key that a typed record has to have, by what the manifest says of its topic."""

from __future__ import annotations

import re
from typing import Any

from streams.core.errors import Misconfigured
from streams.kafka.manifest import Topic

_WORD = re.compile(r"(?<!^)(?=[A-Z])")


def key_of(topic: Topic, record: object) -> str:
    """The key of ``record`` in ``topic``: the manifest's ``account_id`` is a field of it, or the id of an account.

    A change is keyed by what it changes. Raises Misconfigured where the record has no such field, or an empty one.
    """
    key = getattr(getattr(record, "subject", record), _field(topic), None)
    if not isinstance(key, str) or not key:
        raise Misconfigured(
            f"{topic.name} is keyed by {topic.key}, and this {type(record).__name__} has {key!r} there: give it one"
        )
    return key


def key_in(topic: Topic, value: Any) -> str | None:
    """As :func:`key_of` for a value as JSON; None where the value does not say."""
    subject = (value.get("current") or value.get("previous")) if _changes(topic) and isinstance(value, dict) else value
    key = subject.get(_field(topic)) if isinstance(subject, dict) else None
    return key if isinstance(key, str) and key else None


def _field(topic: Topic) -> str:
    """The field with the key: an account's own ``account_id`` is its ``id``."""
    object_name = _last(topic).removesuffix("Change")
    return "id" if topic.key == f"{_WORD.sub('_', object_name).lower()}_id" else topic.key


def _changes(topic: Topic) -> bool:
    return _last(topic).endswith("Change")


def _last(topic: Topic) -> str:
    return (topic.value or "").rpartition(".")[2]
