"""``docs/events.md`` from the catalogue: every event type, its object, facts, parameters. ``make docs`` writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streams.core.catalogue import CATALOGUE, EventType
from streams.core.facts import fact_type
from streams.core.graph import GRAPH
from streams.core.parameters import available

HEAD = """\
# Events

<!-- Written by `make docs` from streams/core/catalogue.py and streams/core/graph.py; do not edit. -->

`curfew events list` and `curfew events show TYPE` print the same, with the parameters of your own
[data sources](data-sources.md). Every event is an Avro record `curfew.events.Event` with CloudEvents headers
([asyncapi.yaml](asyncapi.yaml)). A type is raised *always*, *when registered* (`curfew events register`), or *not yet*.
A route takes events for the audience *customer* unless it says `audience = "internal"` or `"all"`. A subscription takes
those of both audiences that reach its queue, unless it says `audience = "customer"` or `"internal"`.
"""


def page() -> str:
    """The whole page, ending with one new line."""
    return HEAD + "\n".join(_sections()) + "\n"


def raised(known: EventType) -> str:
    """When a type is raised, in words."""
    if not known.raised:
        return "not yet"
    return "when registered" if known.registered else "always"


def _sections() -> Iterator[str]:
    for kind in dict.fromkeys(known.kind for known in CATALOGUE.values()):
        types = [known for known in CATALOGUE.values() if known.kind == kind]
        yield f"\n## {kind}\n"
        if kind in GRAPH:
            yield f"About {GRAPH[kind].about}.\n"
        yield from _table(
            ("type", "audience", "raised", "when"),
            ((f"`{one.type}`", one.audience, raised(one), one.about) for one in types),
        )
        for facts, having in _by_facts(types):
            yield f"\nFacts of {', '.join(f'`{one.type}`' for one in having)}:\n"
            rows = ((f"`facts.{name}`", fact_type(having[0], name), about) for name, about in facts)
            yield from _table(("fact", "type", "meaning"), rows)
        parameters = available(kind)
        if not parameters:
            yield "\nNo parameters: these objects do not reach Curfew yet."
            continue
        usual = dict.fromkeys(name for one in types for name in one.defaults)
        yield "\nParameters; those in **bold** are there unasked in at least one of the types:\n"
        yield from _table(
            ("object", "parameters"),
            (
                (f"`{prefix}`", ", ".join(_parameter(name, parameters[name], name in usual) for name in names))
                for prefix, names in _by_object(parameters).items()
            ),
        )


def _by_facts(types: Iterable[EventType]) -> list[tuple[tuple[tuple[str, str], ...], list[EventType]]]:
    """Types with the same facts together."""
    found: dict[tuple[tuple[str, str], ...], list[EventType]] = {}
    for one in types:
        if one.facts:
            found.setdefault(tuple(one.facts.items()), []).append(one)
    return list(found.items())


def _parameter(name: str, type_name: str, usual: bool) -> str:
    return f"**`{name}`** {type_name}" if usual else f"`{name}` {type_name}"


def _by_object(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(name.partition(".")[0], []).append(name)
    return found


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    headings = list(headings)
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"
