"""The body of a webhook: ``{"type", "timestamp", "data"}`` as compact JSON, money as strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from streams.core.errors import Poison
from streams.core.events import Event, Value, plain
from streams.core.ids import instant_text
from streams.core.subscriptions import Subscription

#: Standard Webhooks advises payloads below 20 kB: receivers reject larger ones, each in its own way.
MAX_BODY_BYTES: Final = 20_000

_encode: Final = msgspec.json.Encoder().encode


def render(event: Event, subscription: Subscription) -> bytes:
    """The bytes that are signed and sent; the same for every attempt of one version of the subscription.

    Raises :class:`Poison` (``too_large``) above :data:`MAX_BODY_BYTES`.
    """
    wanted = subscription.parameters
    parameters = {name: value for name, value in event.parameters.items() if not wanted or name in wanted}
    data: dict[str, Any] = {
        "event_id": event.event_id,
        "subject": {"kind": event.subject_kind, "id": event.subject_id},
        "account_id": event.account_id,
        "sequence": event.sequence,
        "previous": _plain(event.previous),
        "current": _plain(event.current),
        "facts": _plain(event.facts),
        "parameters": _plain(parameters),
        "missing": [name for name in event.missing if name in parameters],
    }
    message = {"type": event.type, "timestamp": instant_text(event.occurred_at), "data": data}
    body = _encode(message)
    if len(body) > MAX_BODY_BYTES:
        raise Poison("too_large", f"the body has {len(body)} bytes, at most {MAX_BODY_BYTES}: name fewer parameters")
    return body


def _plain(fields: Mapping[str, Value] | None) -> dict[str, Any] | None:
    if fields is None:
        return None
    # most values are texts, which stay what they are
    return {name: value if type(value) is str else plain(value) for name, value in fields.items()}
