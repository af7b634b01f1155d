"""The live status of one subscription, read from the rows of the workers, whether they run or not."""

from __future__ import annotations

import time
from typing import Final

from streams.core.delivery import made, units
from streams.core.delivery.endpoint import Health
from streams.core.delivery.status import Status, status
from streams.core.delivery.units import Disabled, Unit
from streams.core.subscriptions import Subscription
from streams.kafka import changelog
from streams.kafka.admin import answering
from streams.kafka.scan import Scanner
from streams.settings import Settings

DELIVERY: Final = "delivery-store-changelog"
DISPATCH: Final = "dispatch-store-changelog"


def read_status(settings: Settings, subscription: Subscription) -> Status:
    """As the topics have it now. Raises Transient when Kafka does not answer."""
    id = subscription.id.encode()
    endpoint, lanes = units.endpoint_key(subscription.id), units.lane_key(subscription.id, "")
    with Scanner(answering(settings.kafka())) as scanner:
        rows = changelog.rows(
            scanner, DELIVERY, (units.UNIT, endpoint, lanes), lambda key, value: _ours(key, value, id)
        )
        health = changelog.rows(scanner, DISPATCH, (made.endpoint_key(subscription.id),))
    found = [units.decode(value, Unit) for (_, key), value in rows.items() if key.startswith(units.UNIT)]
    gone = [units.decode(value, Disabled) for (_, key), value in rows.items() if key == endpoint]
    healths: list[Health] = [made.decode_health(value) for value in health.values()]
    return status(
        subscription,
        open_units=[unit for unit in found if unit.subscription_id == subscription.id],
        parked_keys=sum(key.startswith(lanes) for _, key in rows),
        gone=max(gone, key=lambda one: (one.version, one.at_ms), default=None),
        health=max(healths, key=lambda one: one.version, default=None),
        now_ms=int(time.time() * 1000),
    )


def _ours(key: bytes, value: bytes, subscription_id: bytes) -> bool:
    """Units of others, with their events, would be most of the memory. A unit's row holds the id as it is."""
    return not key.startswith(units.UNIT) or subscription_id in value
