"""What an e-mail subscription has to fulfil before it is saved: addresses, subject, template, and their parameters."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping

from streams.core.catalogue import CATALOGUE
from streams.core.delivery.recipients import is_address
from streams.core.email_subject import names
from streams.core.graph import Graph
from streams.core.parameters import check
from streams.core.subscription_filter import exact_types
from streams.core.subscriptions import Email, Subscription


def email_problems(
    email: Email, wanted: Subscription, templates: Mapping[str, Collection[str]] | None, graph: Graph
) -> Iterator[str]:
    """All problems, each with field, reason and remedy. ``templates`` is None where they cannot be looked at."""
    if not email.to and not email.to_parameters:
        yield "email: nobody would get it; give to (addresses) or to_parameters (as in account.email)"
    for address in (*email.to, *([] if email.reply_to is None else [email.reply_to])):
        if not is_address(address):
            yield f"email: {address!r} is no address; write it as name@example.com, without a display name"
    if not email.subject.strip() or not email.subject.isprintable():
        yield "email.subject: give one line of text; {invoice.number} in it stands for a parameter"
    for event_type in exact_types(wanted.event_types):
        yield from (f"email.to_parameters: {problem}" for problem in check(event_type, email.to_parameters, graph))
    yield from _used("email.subject", names(email.subject), email, wanted, graph)
    if templates is None:
        return
    if email.template not in templates:
        near = difflib.get_close_matches(email.template, list(templates), n=1)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        yield (
            f"email.template: there is no template {email.template!r}{meant}; there are {', '.join(sorted(templates))} "
            "(the setting email_templates names their directory)"
        )
        return
    yield from _used(f"template {email.template}", templates[email.template], email, wanted, graph)


def _used(where: str, used: Collection[str], email: Email, wanted: Subscription, graph: Graph) -> Iterator[str]:
    """A name has to exist in every type that is subscribed to, and be asked for unless the event has it anyway."""
    for name in sorted(used):
        base, _, field = name.partition(".")
        if not field:
            yield f"{where}: {base!r} is nothing that a message can show; a parameter is written <object>.<field>"
            continue
        types = exact_types(wanted.event_types) or tuple(one for one in CATALOGUE if not check(one, (name,), graph))
        if not types:
            yield f"{where}: no event has {name!r}; see `curfew events show TYPE`"
        for event_type in types:
            refused = check(event_type, (name,), graph)
            yield from (f"{where}: {problem}" for problem in refused)
            if not refused and not _there(name, event_type, email, wanted):
                yield f"{where}: {name} is not asked for; add it to parameters of the subscription"
                break


def _there(name: str, event_type: str, email: Email, wanted: Subscription) -> bool:
    if name in wanted.parameters or name in email.to_parameters:
        return True
    return not wanted.parameters and name in CATALOGUE[event_type].defaults
