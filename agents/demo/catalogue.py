"""What the demo's company sells, and which rate plan may become which."""

from __future__ import annotations

from decimal import Decimal

from streams.core.money import Fee
from streams.core.objects import Product, RatePlan
from streams.core.plan_change.matrix import DateRule, LatePolicy, MatrixElement, MissedPolicy

CURRENCY = "EUR"

PRODUCTS = (
    Product(id="iot", name="IoT Connect"),
    Product(id="mobile", name="Mobile"),
    Product(id="mobile-family", name="Mobile Family"),
    Product(id="fibre", name="Fibre Internet"),
)

_PLANS = {
    "iot": ("iot-100kb IoT 100 kB", "iot-1mb IoT 1 MB", "iot-10mb IoT 10 MB pooled"),
    "mobile": ("mobile-s Mobile S", "mobile-m Mobile M", "mobile-l Mobile L unlimited"),
    "mobile-family": ("family-m Family M", "family-l Family L"),
    "fibre": ("fibre-100 Fibre 100", "fibre-500 Fibre 500", "fibre-1000 Fibre 1000"),
}
RATE_PLANS = tuple(
    RatePlan(id=line.split(" ", 1)[0], product_id=product, name=line.split(" ", 1)[1])
    for product, lines in _PLANS.items()
    for line in lines
)
PRODUCT_OF = {plan.id: plan.product_id for plan in RATE_PLANS}

#: Options that services on a rate plan hold at the beginning.
HELD = {"mobile-m": ("voicemail",), "mobile-l": ("voicemail", "roaming-eu"), "fibre-500": ("router-rental",)}


def _element(
    key: str,
    plans: tuple[str, str],
    rule: DateRule,
    lead_hours: int,
    *,
    channels: tuple[str, ...] = ("self-care", "agent"),
    fee: str | None = None,
    added: tuple[str, ...] = (),
    removed: tuple[str, ...] = (),
    allow_without_cancel: bool = True,
) -> MatrixElement:
    before, after = plans
    return MatrixElement(
        key=key,
        from_product_id=PRODUCT_OF[before],
        from_rate_plan_id=before,
        to_product_id=PRODUCT_OF[after],
        to_rate_plan_id=after,
        date_rule=rule,
        lead_hours=lead_hours,
        channels=channels,
        fees=() if fee is None else (Fee(code=f"change-{key}", amount=Decimal(fee), currency=CURRENCY),),
        late_policy=LatePolicy.REFUSE,
        missed_policy=MissedPolicy.FINISH_LATE,
        allow_without_cancel=allow_without_cancel,
        options_added=added,
        options_removed=removed,
    )


_TOMORROW, _GIVEN, _BILL_DAY = DateRule.TOMORROW, DateRule.DATE_GIVEN, DateRule.NEXT_BILL_DAY

ELEMENTS = (
    _element("iot-upgrade", ("iot-100kb", "iot-1mb"), _GIVEN, 8, channels=("agent", "bulk")),
    _element("iot-pool", ("iot-1mb", "iot-10mb"), _GIVEN, 6, channels=("agent", "bulk"), fee="4.90"),
    _element("iot-downgrade", ("iot-10mb", "iot-1mb"), _TOMORROW, 6, channels=("agent", "bulk")),
    _element("mobile-s-to-m", ("mobile-s", "mobile-m"), _TOMORROW, 4, added=("voicemail",)),
    _element("mobile-m-to-l", ("mobile-m", "mobile-l"), _TOMORROW, 6, fee="9.99", added=("roaming-eu",)),
    _element("mobile-l-to-s", ("mobile-l", "mobile-s"), _GIVEN, 8, removed=("voicemail", "roaming-eu")),
    _element("mobile-to-family", ("mobile-m", "family-m"), _TOMORROW, 8, fee="19.00", added=("shared-data",)),
    _element("family-m-to-l", ("family-m", "family-l"), _TOMORROW, 5),
    _element("fibre-100-to-500", ("fibre-100", "fibre-500"), _TOMORROW, 8, fee="25", added=("router-rental",)),
    _element("fibre-500-to-1000", ("fibre-500", "fibre-1000"), _BILL_DAY, 6, fee="49.5"),
    _element("fibre-downgrade", ("fibre-1000", "fibre-100"), _GIVEN, 6, channels=("agent",), fee="15"),
    # Too late to be cancelled means too late to be ordered.
    _element("mobile-s-to-l", ("mobile-s", "mobile-l"), _TOMORROW, 12, allow_without_cancel=False),
)
