"""Standard Webhooks 1.0.0, symmetric signatures: ``v1,`` + base64(HMAC-SHA256(key, "{id}.{timestamp}.{body}")).

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
#: How far the receiver's clock and ours may differ; older requests could be recordings that someone plays again.
TOLERANCE_S: Final = 300


def message_id(unit_id: str) -> str:
    """``webhook-id`` of a unit: the same on every retry and replay, so that receivers can drop repeats."""
    return f"msg_{unit_id}"


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature; ``timestamp`` is the attempt's Unix time in seconds."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def headers(keys: Iterable[bytes], message_id: str, at: datetime, body: bytes) -> dict[str, str]:
    """The three headers; several keys (a rotation) give several signatures, separated by a space."""
    timestamp = int(at.timestamp())
    return {
        ID: message_id,
        TIMESTAMP: str(timestamp),
        SIGNATURE: " ".join(sign(key, message_id, timestamp, body) for key in keys),
    }


def verify(keys: Iterable[bytes], received: Mapping[str, str], body: bytes, now: datetime) -> bool:
    """Whether a request is from someone who has one of ``keys``, and not older than :data:`TOLERANCE_S`."""
    identity, timestamp, signatures = (received.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not timestamp.isdigit() or abs(now.timestamp() - int(timestamp)) > TOLERANCE_S:
        return False
    expected = [sign(key, identity, int(timestamp), body) for key in keys]
    return any(
        hmac.compare_digest(one, signature) for one in expected for signature in signatures.split(" ") if signature
    )
