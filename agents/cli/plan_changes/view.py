"""What the workers know about one service, and what time it is for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from agents.cli.plan_changes import rows
from agents.cli.plan_changes.options import now as machine_time
from streams.topics import MATRIX_ELEMENTS

if TYPE_CHECKING:
    from streams.codec import Codec
    from streams.core.plan_change.eligibility import Known
    from streams.core.plan_change.matrix import MatrixElement
    from streams.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Settings, codec and business time of one command; ``now`` is the machine's time where no clock has ticked."""

    settings: Settings
    codec: Codec
    now: datetime

    def matrix(self) -> Mapping[str, MatrixElement]:
        """The change matrix as it is now, by key."""
        from agents.configuration.records import read_records
        from streams.core.plan_change.matrix import MatrixElement

        return read_records(self.settings, self.codec, MATRIX_ELEMENTS, MatrixElement)

    def known(self, service_id: str, account_id: str) -> Known:
        """The rows of the account's partition."""
        from streams.codec.rows import object_row_decoder
        from streams.core.objects import Account, Service, ServicePlan
        from streams.core.plan_change.eligibility import Known
        from streams.core.rows import Kind, object_key

        account, service, plan = (
            object_key(Kind.ACCOUNT, account_id),
            object_key(Kind.SERVICE, service_id),
            object_key(Kind.SERVICE_PLAN, service_id),
        )
        found = rows.read_rows(rows.OBJECTS, account_id, [account, service, plan])
        return Known(
            account=object_row_decoder(Account)(found[account]) if account in found else None,
            service=object_row_decoder(Service)(found[service]) if service in found else None,
            plan=object_row_decoder(ServicePlan)(found[plan]) if plan in found else None,
        )


def account_of(service_id: str) -> str | None:
    """The account to which the service belongs as the events workers know it: an account's partition has only its own
    services, so all partitions are read."""
    from streams.codec.rows import object_row_decoder
    from streams.core.objects import Service
    from streams.core.rows import Kind, object_key

    key = object_key(Kind.SERVICE, service_id)
    found = rows.read_rows(rows.OBJECTS, None, [key])
    service = object_row_decoder(Service)(found[key]).current if key in found else None
    return None if service is None else service.account_id


def account_exists(account_id: str) -> bool:
    """Whether the events workers know the account."""
    from streams.core.rows import Kind, object_key

    return bool(rows.read_rows(rows.OBJECTS, account_id, [object_key(Kind.ACCOUNT, account_id)]))


def look() -> View:
    """The present view."""
    from agents.business_time import last_tick
    from streams.codec import Codec, Registry
    from streams.kafka.admin import answering
    from streams.kafka.scan import Scanner
    from streams.settings import Settings

    settings = Settings()
    codec = Codec(Registry(settings.schema_registry_url))
    with Scanner(answering(settings.kafka())) as scanner:
        tick = last_tick(scanner, codec)
    return View(settings=settings, codec=codec, now=machine_time() if tick is None else tick.now)
