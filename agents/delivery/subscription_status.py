"""The live status of subscriptions, read from the rows of the workers, whether they run or not."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
    return read_statuses(settings, [subscription])[subscription.id]


def read_statuses(settings: Settings, subscriptions: Sequence[Subscription]) -> dict[str, Status]:
    """Of each by its id; the topics are read once. Raises Transient when Kafka does not answer."""
    only = subscriptions[0].id.encode() if len(subscriptions) == 1 else b""
    with Scanner(answering(settings.kafka())) as scanner:
        rows = changelog.rows(
            scanner,
            DELIVERY,
            (units.UNIT, units.ENDPOINT, units.LANE),
            lambda key, value: _ours(key, value, only),
            _slim,
        )
        health = changelog.rows(scanner, DISPATCH, (made.ENDPOINT,))
    return statuses(subscriptions, rows, health, int(time.time() * 1000))


def statuses(
    subscriptions: Iterable[Subscription], rows: changelog.Rows, health: changelog.Rows, now_ms: int
) -> dict[str, Status]:
    """From the rows of the delivery and the dispatch worker. Pure."""
    found: dict[str, list[Unit]] = defaultdict(list)
    gone: dict[bytes, list[Disabled]] = defaultdict(list)
    healths: dict[bytes, list[Health]] = defaultdict(list)
    parked: Counter[bytes] = Counter()
    for (_, key), value in rows.items():
        if key.startswith(units.UNIT):
            unit = units.decode(value, Unit)
            found[unit.subscription_id].append(unit)
        elif key.startswith(units.ENDPOINT):
            gone[key].append(units.decode(value, Disabled))
        else:
            parked[key.removeprefix(units.LANE).partition(b"/")[0]] += 1
    for (_, key), value in health.items():
        healths[key].append(made.decode_health(value))
    return {
        one.id: status(
            one,
            open_units=found[one.id],
            parked_keys=parked[one.id.encode()],
            gone=max(gone[units.endpoint_key(one.id)], key=lambda row: (row.version, row.at_ms), default=None),
            health=max(healths[made.endpoint_key(one.id)], key=lambda row: row.version, default=None),
            now_ms=now_ms,
        )
        for one in subscriptions
    }


def _ours(key: bytes, value: bytes, subscription_id: bytes) -> bool:
    """A unit's row holds the id as it is."""
    return not key.startswith(units.UNIT) or subscription_id in value


def _slim(key: bytes, value: bytes) -> bytes:
    """The events of units would be most of the memory, and no status shows them."""
    if not key.startswith(units.UNIT):
        return value
    return units.encode(replace(units.decode(value, Unit), key=None, value=b"", headers=()))
