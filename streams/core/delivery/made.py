"""The rows of the dispatch worker.

================================  ================================================================================
``made/<2 hex>/<attempt id>``     an attempt that was begun, and its result when there is one (:class:`Made`)
``endpoint/<subscription id>``    how its endpoint fares (:class:`streams.core.delivery.endpoint.Health`)
================================  ================================================================================

The row of an attempt is durable before its request leaves. So a worker that finds a row without a result knows that
another one died over it: the attempt counts, and the receiver never sees one number twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from streams.core.delivery.endpoint import Health

MADE: Final = b"made/"
ENDPOINT: Final = b"endpoint/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """``result`` is the record that was written to the results, to be written again for an attempt that is asked for
    twice."""

    at_ms: int
    result: bytes | None = None
    delivered: bool = False


def made_key(attempt_id: str) -> bytes:
    """In 256 buckets, so that old ones can be swept a bucket at a time."""
    return b"%s%s/%s" % (MADE, attempt_id[:2].encode(), attempt_id.encode())


def endpoint_key(subscription_id: str) -> bytes:
    return ENDPOINT + subscription_id.encode()


encode = msgspec.msgpack.Encoder().encode
decode_made = msgspec.msgpack.Decoder(Made).decode
decode_health = msgspec.msgpack.Decoder(Health).decode
