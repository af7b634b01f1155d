"""What would break if the data sources were others: routes and subscriptions that ask for their parameters."""

from __future__ import annotations

from collections.abc import Mapping

from agents.config_records import read_records
from streams.codec import Codec
from streams.core.routing import Route
from streams.core.routing import problems as route_problems
from streams.core.sources import DataSource, extended
from streams.core.subscription_rules import Known
from streams.core.subscription_rules import problems as subscription_problems
from streams.core.subscriptions import Subscription
from streams.filters import CelLanguage
from streams.settings import Settings


def dependents(settings: Settings, codec: Codec, sources: Mapping[str, DataSource]) -> list[str]:
    """Why live routes and subscriptions could not be saved any more with these data sources."""
    graph, language = extended(sources.values()), CelLanguage()
    found = [
        f"route {name}: {problem}"
        for name, route in read_records(settings, codec, "config.routes", Route).items()
        for problem in route_problems(route, None, language, graph)
    ]
    for name, one in read_records(settings, codec, "config.subscriptions", Subscription).items():
        queues = {one.queue} | ({one.forward.queue} if one.forward is not None else set())
        known = Known(queues=queues, development=True, language=language, graph=graph)
        found += [f"subscription {name}: {problem}" for problem in subscription_problems(one, known, existing=one)]
    return sorted(found)
