"""Subscriptions: who wants which events of one queue, and what is to be done with them.

A subscription is data on the compacted topic ``config.subscriptions``. It names secrets, it never holds them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from streams.core import ids

#: Standard Webhooks' own schedule: seconds to wait before attempt 1, 2, 3 … each counted from the failure before it.
#: Ten attempts over 75 hours let a receiver be down over a weekend without losing an event.
DEFAULT_SCHEDULE: Final = (0, 5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
#: A paused or disabled subscription keeps its units this long (7 days); without a bound its rows would grow for ever.
DEFAULT_MAX_AGE_S: Final = 7 * 86_400
#: Open requests per endpoint. Few receivers handle more at once, and one slow endpoint must not take every socket.
DEFAULT_MAX_CONCURRENCY: Final = 16


#: Nothing but failures for so long disables the endpoint (5 days): longer than a holiday weekend.
DEFAULT_DISABLE_AFTER_S: Final = 5 * 86_400


class Ordering(StrEnum):
    """Whether events of one key (account, or subject without an account) wait for each other."""

    IN_ORDER = "in-order"
    UNORDERED = "unordered"


class OnExhausted(StrEnum):
    """What happens to the later events of a key when one of them has used up its attempts (``in-order`` only)."""

    PARK = "park"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """POST to ``url``, signed with the secret that ``secret_ref`` names (``env:NAME`` or ``file:PATH``).

    During a rotation the receiver verifies with either secret: what is sent until ``previous_until`` carries a
    signature of ``previous_secret_ref`` too. ``allow_networks`` (CIDR) admits private addresses on purpose,
    ``allow_ports`` others than 443.
    """

    url: str
    secret_ref: str
    previous_secret_ref: str | None = None
    previous_until: datetime | None = None
    allow_networks: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Send the record on, unchanged, to another queue."""

    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """A message to every address in ``to`` and in the parameters that ``to_parameters`` names, each on its own.

    A parameter holds one address, or several with commas. ``template`` names files in the directory that the worker's
    settings declare; ``subject`` is a line in which ``{invoice.number}`` stands for a parameter.
    """

    subject: str
    to: tuple[str, ...] = ()
    to_parameters: tuple[str, ...] = ()
    template: str = "event"
    reply_to: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculate:
    """Give the event to the calculation of this name, which the worker's settings declare."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One subscription; exactly one of ``webhook``, ``forward``, ``email`` and ``calculation`` is set.

    ``id`` never changes and is part of every delivery's identity; ``version`` counts the changes of the rest.
    ``event_types`` are exact types or groups (``service.*``), empty means all; ``filter`` is an expression over the
    event (see :mod:`streams.core.filters`); ``audience`` is customer, internal or all; ``parameters`` empty means all
    parameters. An inactive subscription accepts nothing; a paused one accepts and waits. Both keep what is pending
    until ``max_age_s``. Over all workers, at most ``max_per_second`` requests begin in a second, evenly spaced, and
    ``max_concurrency`` are open at once.
    """

    name: str
    id: str
    version: int
    created_at: datetime
    queue: str
    active: bool = True
    paused: bool = False
    event_types: tuple[str, ...] = ()
    filter: str = ""
    audience: str = "all"
    parameters: tuple[str, ...] = ()
    ordering: Ordering = Ordering.IN_ORDER
    schedule_s: tuple[int, ...] = DEFAULT_SCHEDULE
    max_age_s: int = DEFAULT_MAX_AGE_S
    on_exhausted: OnExhausted = OnExhausted.PARK
    max_concurrency: int = DEFAULT_MAX_CONCURRENCY
    max_per_second: int | None = None
    disable_after_s: int = DEFAULT_DISABLE_AFTER_S
    webhook: Webhook | None = None
    forward: Forward | None = None
    email: Email | None = None
    calculation: Calculate | None = None

    @property
    def max_attempts(self) -> int:
        return len(self.schedule_s)

    @property
    def answers(self) -> bool:
        """Whether somebody outside answers an attempt: forwards and calculations are done here."""
        return self.forward is None and self.calculation is None

    @property
    def deliverable(self) -> bool:
        """Whether attempts may be made now, as far as the configuration says."""
        return self.active and not self.paused


def subscription_id(name: str, created_at: datetime) -> str:
    """The immutable id: of a name and the instant of its first apply, so that a name used again is another one."""
    return ids.derive("subscription", name, ids.instant_text(created_at))


def kept(existing: Subscription, wanted: Subscription, said: Collection[str]) -> Subscription:
    """``wanted``, as a file has it, with what commands have changed since and the file does not speak of.

    ``said``: the fields that the file names. A pause stays where the file does not say ``paused``. A rotated secret
    stays where the file still has the former one, and the overlap of both where it has the present one: applying a
    file again must not start what a person has stopped, nor sign with a secret that may be known to others.
    """
    if "paused" not in said:
        wanted = replace(wanted, paused=existing.paused)
    ours, theirs = existing.webhook, wanted.webhook
    if ours is None or theirs is None or theirs.previous_secret_ref is not None or ours.previous_secret_ref is None:
        return wanted
    if theirs.secret_ref not in (ours.secret_ref, ours.previous_secret_ref):
        return wanted
    rotated = replace(
        theirs,
        secret_ref=ours.secret_ref,
        previous_secret_ref=ours.previous_secret_ref,
        previous_until=ours.previous_until,
    )
    return replace(wanted, webhook=rotated)


def succeed(existing: Subscription | None, wanted: Subscription) -> Subscription:
    """``wanted`` as the next version of ``existing`` (same id and creation); ``existing`` itself if nothing differs.

    ``wanted``'s own id, version and created_at count only when there is no ``existing``.
    """
    if existing is None:
        return replace(wanted, id=subscription_id(wanted.name, wanted.created_at), version=1)
    same = replace(wanted, id=existing.id, version=existing.version, created_at=existing.created_at)
    return existing if same == existing else replace(same, version=existing.version + 1)
