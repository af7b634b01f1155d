"""Who gets an event of a subscription: one receiver, or for e-mail every address on its own.

Pure, so that intake and the ledger's checker come to the same units.
"""

from __future__ import annotations

import re
from typing import Final

from streams.core import ids
from streams.core.events import Event
from streams.core.subscriptions import Subscription

#: What mail servers deliver to: a local part and a host name in ASCII. No quoting, comments or control characters, of
#: which header injection is made.
_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def is_address(text: str) -> bool:
    """Whether ``text`` is an address that a message can be sent to."""
    return _ADDRESS.fullmatch(text) is not None


def recipients(subscription: Subscription, event: Event) -> tuple[str, ...]:
    """The addresses of an e-mail, each once, whatever its case; ("",) where there is one receiver, or no address."""
    email = subscription.email
    if email is None:
        return ("",)
    found = list(email.to)
    for name in email.to_parameters:
        value = event.parameters.get(name)
        if isinstance(value, str):
            found += [address.strip(" \t") for address in value.split(",")]
    unique: dict[str, str] = {}
    for address in filter(None, found):
        unique.setdefault(address.casefold(), address)
    return tuple(unique.values()) or ("",)


def unit_ids(subscription: Subscription, event: Event) -> dict[str, str]:
    """Recipient → id of its unit."""
    return {one: ids.unit_id(event.event_id, subscription.id, one) for one in recipients(subscription, event)}


def refusal(subscription: Subscription, recipient: str) -> tuple[str, str] | None:
    """(reason, detail) why nothing can ever be sent to ``recipient``, or None."""
    if subscription.email is None or is_address(recipient):
        return None
    if not recipient:
        names = ", ".join(subscription.email.to_parameters)
        return "no_recipient", f"no address in {names or 'to'}"
    return "bad_address", "the recipient is no address, or one with characters that are not allowed"
