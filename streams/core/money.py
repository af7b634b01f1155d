"""Money: a Decimal with a currency, at most six places, never a float."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

# Places of the wire's and the store's decimal(38,6). A seventh place would be cut in silence on the way to the store.
PLACES = 6
# Digits before the point that decimal(38,6) can hold; more would make the codec refuse the whole record.
WHOLE_DIGITS = 32


def money_text(amount: Decimal) -> str:
    """One spelling per amount: ``10``, ``10.0`` and ``1E+1`` are all ``10``."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def fits(amount: Decimal) -> bool:
    """True if ``amount`` is finite and the wire and the store keep every digit of it."""
    if not amount.is_finite():
        return False
    text = money_text(amount.copy_abs())  # abs() would round to the context precision of 28 digits
    whole, _, fraction = text.partition(".")
    return len(fraction) <= PLACES and len(whole) <= WHOLE_DIGITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    """A one-off charge: ``code`` selects the price element, ``amount`` in major units of ``currency`` (ISO 4217)."""

    code: str
    amount: Decimal
    currency: str


def totals(fees: Iterable[Fee]) -> dict[str, Decimal]:
    """Sum per currency; amounts of different currencies are never added."""
    sums: dict[str, Decimal] = {}
    for fee in fees:
        sums[fee.currency] = sums.get(fee.currency, Decimal(0)) + fee.amount
    return sums
