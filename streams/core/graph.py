"""The object graph: which objects there are, which plain fields they have, and how one leads to another.

Only to-one relations are here. A relation to many (a bill run's accounts) has no single value, so it gives no
parameter: that is why ``service.name`` exists on a service's event and not on a bill run's.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, get_args, get_origin, get_type_hints

from streams.core.objects import (
    Account,
    BillRun,
    Credit,
    Invoice,
    Package,
    Payment,
    Product,
    RatePlan,
    Refund,
    Service,
    ServicePlan,
)
from streams.core.rows import Kind
from streams.core.usage.objects import Bucket, Contract, Sim

#: Names of the types that a plain field can have, as people and schemas know them.
TYPE_NAMES: Mapping[type, str] = {
    bool: "boolean",
    int: "long",
    str: "string",
    Decimal: "decimal",
    date: "date",
    datetime: "instant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """``field`` of the object holds the id of a ``kind``; ``name`` is how parameters call it.

    What an ``only_itself`` relation leads to is not followed further, since its name would be ambiguous: of which of
    two rate plans is it the product? ``row``: the kind of row in which the object is found by that id, if it is another
    (the SIM of a service is looked up by the service's id).
    """

    name: str
    kind: str
    field: str
    only_itself: bool = False
    row: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectKind:
    """A kind of object: its plain fields (name → type name), and its to-one relations, nearest in meaning first."""

    kind: str
    about: str
    fields: Mapping[str, str]
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """An object in reach: ``via`` are the relations to walk from the subject; empty for the subject itself."""

    name: str
    kind: str
    via: tuple[Relation, ...]


def plain_fields(cls: type[Any]) -> dict[str, str]:
    """Fields of a dataclass that are one plain value, optional or not, with the name of their type."""
    hints = get_type_hints(cls)
    found = {field.name: _type_name(hints[field.name]) for field in fields(cls)}
    return {name: type_name for name, type_name in found.items() if type_name is not None}


def plain(kind: str, subject: object) -> dict[str, Any]:
    """The plain fields of an object, as findings carry them."""
    names, read = _reader(kind)
    return dict(zip(names, read(subject), strict=True))


@cache
def _reader(kind: str) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    # An attrgetter reads all fields in one call; asking for each by name was the dearest line of an event.
    names = tuple(GRAPH[kind].fields)
    return names, attrgetter(*names)


def _type_name(hint: Any) -> str | None:
    if get_origin(hint) is types.UnionType:
        [hint] = [argument for argument in get_args(hint) if argument is not type(None)]
    return TYPE_NAMES.get(hint)


def _to(kind: Kind, field: str | None = None, name: str | None = None, *, only_itself: bool = False) -> Relation:
    return Relation(name=name or kind, kind=kind, field=field or f"{kind}_id", only_itself=only_itself)


_ACCOUNT = _to(Kind.ACCOUNT)

#: A rate plan change is no row of the events app: its fields are what its findings carry.
RATE_PLAN_CHANGE_FIELDS: Mapping[str, str] = {
    "id": "string",
    "account_id": "string",
    "service_id": "string",
    "element_key": "string",
    "from_rate_plan_id": "string",
    "to_rate_plan_id": "string",
    "from_product_id": "string",
    "to_product_id": "string",
    "effective_date": "date",
    "start_at": "instant",
    "deadline_at": "instant",
    "state": "string",
    "revision": "long",
    "silent": "boolean",
    "missed": "boolean",
    "reason": "string",
}

_KINDS = (
    ObjectKind(kind=Kind.ACCOUNT, about="an account", fields=plain_fields(Account)),
    ObjectKind(
        kind=Kind.SERVICE,
        about="a service",
        fields=plain_fields(Service),
        # service_plan before package: the product of a service is the one it is rated by
        relations=(
            _ACCOUNT,
            _to(Kind.SERVICE_PLAN, "id"),
            _to(Kind.PACKAGE),
            Relation(name=Kind.SIM, kind=Kind.SIM, field="id", row=Kind.SERVICE_SIM),
        ),
    ),
    ObjectKind(
        kind=Kind.SERVICE_PLAN,
        about="the rate plan, memberships and options of a service",
        fields=plain_fields(ServicePlan),
        relations=(_to(Kind.SERVICE), _ACCOUNT, _to(Kind.RATE_PLAN), _to(Kind.PRODUCT)),
    ),
    ObjectKind(
        kind=Kind.PACKAGE,
        about="a package",
        fields=plain_fields(Package),
        relations=(_ACCOUNT, _to(Kind.PRODUCT)),
    ),
    ObjectKind(
        kind=Kind.INVOICE,
        about="an invoice",
        fields=plain_fields(Invoice),
        relations=(_ACCOUNT, _to(Kind.BILL_RUN)),
    ),
    ObjectKind(
        kind=Kind.REFUND,
        about="a refund",
        fields=plain_fields(Refund),
        relations=(_ACCOUNT, _to(Kind.INVOICE)),
    ),
    ObjectKind(
        kind=Kind.CREDIT,
        about="a credit",
        fields=plain_fields(Credit),
        relations=(_ACCOUNT, _to(Kind.INVOICE)),
    ),
    ObjectKind(
        kind=Kind.PAYMENT,
        about="a payment",
        fields=plain_fields(Payment),
        relations=(_ACCOUNT, _to(Kind.INVOICE)),
    ),
    ObjectKind(
        kind=Kind.SIM,
        about="a SIM of a service",
        fields=plain_fields(Sim),
        relations=(_to(Kind.SERVICE), _ACCOUNT),
    ),
    ObjectKind(
        kind=Kind.BUCKET,
        about="a bucket of usage, of one service or pooled over an account; a pooled one reaches no single service",
        fields=plain_fields(Bucket),
        relations=(_to(Kind.SERVICE), _ACCOUNT),
    ),
    ObjectKind(
        kind=Kind.CONTRACT,
        about="a contract of an account",
        fields=plain_fields(Contract),
        relations=(_ACCOUNT,),
    ),
    ObjectKind(
        kind=Kind.BILL_RUN,
        about="a bill run; many accounts and services belong to one, so none of them is in reach",
        fields=plain_fields(BillRun),
    ),
    ObjectKind(kind=Kind.PRODUCT, about="a product of the catalogue", fields=plain_fields(Product)),
    ObjectKind(
        kind=Kind.RATE_PLAN,
        about="a rate plan of the catalogue",
        fields=plain_fields(RatePlan),
        relations=(_to(Kind.PRODUCT),),
    ),
    ObjectKind(
        kind=Kind.RATE_PLAN_CHANGE,
        about="a rate plan change of a service",
        fields=RATE_PLAN_CHANGE_FIELDS,
        relations=(
            _to(Kind.SERVICE),
            _ACCOUNT,
            _to(Kind.RATE_PLAN, "from_rate_plan_id", "from_rate_plan", only_itself=True),
            _to(Kind.RATE_PLAN, "to_rate_plan_id", "to_rate_plan", only_itself=True),
            _to(Kind.PRODUCT, "from_product_id", "from_product", only_itself=True),
            _to(Kind.PRODUCT, "to_product_id", "to_product", only_itself=True),
        ),
    ),
    ObjectKind(kind=Kind.SUBSCRIPTION, about="a subscription to a queue (`curfew subscriptions`)", fields={}),
)


class Graph(Mapping[str, ObjectKind]):
    """Kinds by name, and what each reaches. It never changes; :meth:`extended` gives another one."""

    def __init__(self, kinds: Iterable[ObjectKind]) -> None:
        self._kinds = {kind.kind: kind for kind in kinds}
        self._reach: dict[str, Mapping[str, Reached]] = {}

    __hash__ = object.__hash__  # it never changes, and one graph is not another

    def __getitem__(self, kind: str) -> ObjectKind:
        return self._kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def reach(self, kind: str) -> Mapping[str, Reached]:
        """Everything that an event about ``kind`` can speak of, by name, nearest first; the shortest way to a name
        wins. A kind that is not in the graph reaches nothing."""
        found = self._reach.get(kind)
        if found is None:
            found = self._reach[kind] = {reached.name: reached for reached in self._walk(kind)} if kind in self else {}
        return found

    def extended(self, added: Iterable[tuple[str, Relation, ObjectKind]]) -> Graph:
        """With more kinds, each behind a relation of a kind that is there: (that kind, the relation, the new kind)."""
        kinds = dict(self._kinds)
        for owner, relation, kind in added:
            kinds[kind.kind] = kind
            kinds[owner] = replace(kinds[owner], relations=(*kinds[owner].relations, relation))
        return Graph(kinds.values())

    def _walk(self, kind: str) -> Iterator[Reached]:
        level, seen = [Reached(name=kind, kind=kind, via=())], {kind}
        while level:
            yield from level
            further: list[Reached] = []
            for reached in level:
                if reached.via and reached.via[-1].only_itself:
                    continue
                for relation in self[reached.kind].relations:
                    if relation.name not in seen:
                        seen.add(relation.name)
                        further.append(Reached(name=relation.name, kind=relation.kind, via=(*reached.via, relation)))
            level = further


GRAPH = Graph(_KINDS)


def reach(kind: str) -> Mapping[str, Reached]:
    """What an event about ``kind`` reaches without anybody's data sources."""
    return GRAPH.reach(kind)
