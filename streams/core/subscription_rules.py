"""What a subscription has to fulfil before it is saved; a problem names the field, the reason and the remedy."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from streams.core.catalogue import CATALOGUE, matching, nearest_types
from streams.core.email_rules import email_problems
from streams.core.events import Audience
from streams.core.filters import InvalidFilter, Language, variables
from streams.core.graph import GRAPH, Graph
from streams.core.parameters import check
from streams.core.routing import filter_problems
from streams.core.subscription_filter import EVERYONE, exact_types
from streams.core.subscriptions import Calculate, Email, Forward, Ordering, Subscription, Webhook

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
#: Longer ones are refused by proxies and servers, sometimes silently.
MAX_URL_LENGTH: Final = 2_048
#: More attempts or a longer wait would outlive the retention of dead letters and of results, which the ledger reads.
MAX_ATTEMPTS: Final = 20
MAX_DELAY_S: Final = 86_400
MAX_AGE_S: Final = 30 * 86_400
#: One subscription must not be able to open every socket of a worker.
MAX_CONCURRENCY: Final = 256
MAX_PER_SECOND: Final = 10_000
AUDIENCES: Final = (*Audience, EVERYONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the deployment has: the queues, the filter language, the parameters (``graph``); ``development`` admits http
    and any port. ``templates``: name → the parameters that it uses, ``calculations``: name → the kind of object; None
    where only the workers have them."""

    queues: Collection[str]
    development: bool
    language: Language
    graph: Graph = GRAPH
    templates: Mapping[str, Collection[str]] | None = None
    calculations: Mapping[str, str] | None = None


def problems(subscription: Subscription, known: Known, *, existing: Subscription | None = None) -> list[str]:
    """All problems, in the order of the fields; empty means that it can be saved."""
    return list(_problems(subscription, known, existing))


def _problems(wanted: Subscription, known: Known, existing: Subscription | None) -> Iterator[str]:
    if not _NAME.fullmatch(wanted.name):
        yield f"name {wanted.name!r}: use 1 to 63 lower-case letters, digits and hyphens, as in 'crm-webhook'"
    yield from _queue("queue", wanted.queue, known)
    if existing is not None and existing.queue != wanted.queue:
        yield (
            f"queue: {wanted.name!r} reads {existing.queue!r} and cannot move to {wanted.queue!r}, since its ledger "
            "belongs to one queue; apply a subscription with another name and deactivate this one"
        )
    for pattern in wanted.event_types:
        if not matching(pattern):
            near = nearest_types(pattern.removesuffix("*"))
            yield f"event_types: there is no event type {pattern!r}{near}; see `curfew events list`"
    yield from _names(wanted, known)
    if wanted.audience not in AUDIENCES:
        yield f"audience {wanted.audience!r}: use one of {', '.join(AUDIENCES)}"
    yield from _policy(wanted)
    given = (wanted.webhook, wanted.forward, wanted.email, wanted.calculation)
    actions = [action for action in given if action is not None]
    if len(actions) != 1:
        yield f"action: {len(actions)} given; use exactly one of [webhook], [forward], [email] and [calculation]"
    for action in actions:
        match action:
            case Webhook():
                yield from _webhook(action, known)
            case Forward():
                yield from _queue("forward.queue", action.queue, known)
                if action.queue == wanted.queue:
                    yield f"forward.queue: {action.queue!r} is the queue that it reads, a loop; name another one"
            case Email():
                yield from email_problems(action, wanted, known.templates, known.graph)
            case Calculate():
                yield from _calculation(action, wanted, known.calculations)


def _queue(field: str, name: str, known: Known) -> Iterator[str]:
    if name not in known.queues:
        yield (
            f"{field}: there is no queue {name!r}{_nearest(name, known.queues)}; known queues: "
            f"{', '.join(sorted(known.queues))} (make it with `curfew queues create {name}`)"
        )


def _calculation(action: Calculate, wanted: Subscription, known: Mapping[str, str] | None) -> Iterator[str]:
    if known is None:
        return
    kind = known.get(action.name)
    if kind is None:
        yield (
            f"calculation: there is no calculation {action.name!r}{_nearest(action.name, known)}; the setting "
            f"calculations declares {', '.join(sorted(known)) or 'none'}"
        )
        return
    types = exact_types(wanted.event_types)
    if not types:
        yield f"event_types: {action.name} calculates with events about a {kind}; name the types that it gets"
    for event_type in types:
        if CATALOGUE[event_type].kind != kind:
            other = CATALOGUE[event_type].kind
            yield f"event_types: {event_type} is about a {other}, {action.name} calculates with events about a {kind}"


def _names(wanted: Subscription, known: Known) -> Iterator[str]:
    """Parameters and filter: every name has to exist in every type that is subscribed to, or in any if all are."""
    types = exact_types(wanted.event_types)
    for event_type in types:
        yield from (f"parameters: {problem}" for problem in check(event_type, wanted.parameters, known.graph))
        yield from filter_problems(wanted.filter, event_type, known.language, known.graph)
    if types:
        return
    for name in wanted.parameters:
        if all(check(event_type, (name,), known.graph) for event_type in CATALOGUE):
            yield f"parameters: no event has {name!r}; a parameter is written <object>.<field>"
    try:
        if wanted.filter:
            known.language.check(wanted.filter, _all_variables(known.graph))
    except InvalidFilter as error:
        yield f"filter: {error}"


def _all_variables(graph: Graph) -> dict[str, str]:
    """What any event has; a name that has different types in different events cannot be checked, so it is ``any``."""
    found: dict[str, str] = {}
    for event_type in CATALOGUE:
        for name, type_name in variables(event_type, graph).items():
            found[name] = type_name if found.get(name, type_name) == type_name else "any"
    return found


def _policy(wanted: Subscription) -> Iterator[str]:
    if not 1 <= len(wanted.schedule_s) <= MAX_ATTEMPTS:
        yield f"schedule_s: {len(wanted.schedule_s)} attempts; give 1 to {MAX_ATTEMPTS}"
    for delay in wanted.schedule_s:
        if not 0 <= delay <= MAX_DELAY_S:
            yield f"schedule_s: {delay} s; a delay is 0 to {MAX_DELAY_S} s"
    if not 1 <= wanted.max_age_s <= MAX_AGE_S:
        yield f"max_age_s: {wanted.max_age_s}; give 1 to {MAX_AGE_S} s"
    if not 1 <= wanted.max_concurrency <= MAX_CONCURRENCY:
        yield f"max_concurrency: {wanted.max_concurrency}; give 1 to {MAX_CONCURRENCY}"
    if wanted.max_per_second is not None and not 1 <= wanted.max_per_second <= MAX_PER_SECOND:
        yield f"max_per_second: {wanted.max_per_second}; give 1 to {MAX_PER_SECOND}, or leave it out"
    if not 1 <= wanted.disable_after_s <= MAX_AGE_S:
        yield f"disable_after_s: {wanted.disable_after_s}; give 1 to {MAX_AGE_S} s"
    if wanted.ordering not in tuple(Ordering):
        yield f"ordering {wanted.ordering!r}: use one of {', '.join(Ordering)}"


def _webhook(webhook: Webhook, known: Known) -> Iterator[str]:
    for problem in url_problems(webhook.url, development=known.development, allow_ports=webhook.allow_ports):
        yield f"webhook.url: {problem}"
    for field, reference in (("secret_ref", webhook.secret_ref), ("previous_secret_ref", webhook.previous_secret_ref)):
        if reference is not None and not reference.startswith(("env:", "file:")):
            yield f"webhook.{field}: a reference is env:NAME or file:PATH, never the secret itself"
    if (webhook.previous_secret_ref is None) != (webhook.previous_until is None):
        yield "webhook: previous_secret_ref and previous_until belong together; give both or none"
    for network in webhook.allow_networks:
        try:
            parsed = ipaddress.ip_network(network)
        except ValueError as error:
            yield f"webhook.allow_networks: {network!r} is no network ({error}); write it as 10.20.0.0/16"
            continue
        if parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified or parsed.prefixlen == 0:
            yield f"webhook.allow_networks: {network} cannot be allowed; name the private range of your own receivers"


def url_problems(url: str, *, development: bool, allow_ports: Collection[int] = ()) -> list[str]:
    """Why ``url`` may not be called; what its name resolves to is checked when the socket is opened."""
    if len(url) > MAX_URL_LENGTH:
        return [f"{len(url)} characters; at most {MAX_URL_LENGTH}"]
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return ["contains spaces, backslashes, control or non-ASCII characters; write it percent-encoded"]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return [f"is no URL ({error})"]
    return list(_part_problems(parts, port, development, allow_ports))


def _part_problems(
    parts: SplitResult, port: int | None, development: bool, allow_ports: Collection[int]
) -> Iterator[str]:
    if parts.scheme not in ("https", "http"):
        yield f"the scheme {parts.scheme!r} is not supported; use https"
    if parts.scheme == "http" and not development:
        yield "http would show the events to everybody on the way; use https"
    if not parts.hostname:
        yield "has no host"
    if parts.username is not None or parts.password is not None:
        yield "holds credentials, which would end in logs; leave them out, deliveries are signed"
    if parts.fragment:
        yield "has a fragment, which is never sent; leave it out"
    if port not in (None, 443) and port not in allow_ports and not development:
        yield f"port {port} is not 443; add it to allow_ports if it is meant"


def _nearest(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=2)
    return f" (did you mean {' or '.join(repr(one) for one in near)}?)" if near else ""
