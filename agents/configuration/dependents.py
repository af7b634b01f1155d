"""What would break if the data sources were others: routes and subscriptions that ask for their parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from agents.configuration.records import read_records
from streams.codec import Codec
from streams.core.routing import Route
from streams.core.routing import problems as route_problems
from streams.core.sources import DataSource, extended
from streams.core.subscription_rules import Known
from streams.core.subscription_rules import problems as subscription_problems
from streams.core.subscriptions import Subscription
from streams.filters import CelLanguage
from streams.settings import Settings
from streams.topics import ROUTES, SUBSCRIPTIONS

Sources = Mapping[str, DataSource]


def dependents(settings: Settings, codec: Codec, before: Sources, after: Sources) -> tuple[list[str], list[str]]:
    """Why live routes and subscriptions could not be saved any more ``after`` a change of data sources, and why some
    could not be already: those are no reason to refuse the change."""
    routes = read_records(settings, codec, ROUTES, Route)
    subscriptions = read_records(settings, codec, SUBSCRIPTIONS, Subscription)
    return told_apart(before, after, routes, subscriptions)


def told_apart(
    before: Sources, after: Sources, routes: Mapping[str, Route], subscriptions: Mapping[str, Subscription]
) -> tuple[list[str], list[str]]:
    """What a change of data sources breaks, and what was broken before it.

    By the number of problems of each route or subscription: their texts name what is near, which the change changes.
    """
    had = Counter(_whose(one) for one in problems(before, routes, subscriptions))
    found = problems(after, routes, subscriptions)
    has = Counter(_whose(one) for one in found)
    worse = {whose for whose in has if has[whose] > had[whose]}
    return [one for one in found if _whose(one) in worse], [one for one in found if _whose(one) not in worse]


def _whose(problem: str) -> str:
    return problem.partition(":")[0]


def problems(sources: Sources, routes: Mapping[str, Route], subscriptions: Mapping[str, Subscription]) -> list[str]:
    """Why these could not be saved with these data sources."""
    graph, language = extended(sources.values()), CelLanguage()
    found = [
        f"route {name}: {problem}"
        for name, route in routes.items()
        for problem in route_problems(route, None, language, graph)
    ]
    for name, one in subscriptions.items():
        queues = {one.queue} | ({one.forward.queue} if one.forward is not None else set())
        known = Known(queues=queues, development=True, language=language, graph=graph)
        found += [f"subscription {name}: {problem}" for problem in subscription_problems(one, known, existing=one)]
    return sorted(found)
