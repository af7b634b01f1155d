"""Data sources: named tables of somebody else's that extend the parameters of events.

A source is related to a kind of object: ``crm_segment`` on account gives ``crm_segment.tier`` wherever an account is in
reach. Rows of one that belongs to accounts lie in the account's partition; the others are read whole by every worker.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final

from streams.core.events import Value
from streams.core.filters import MAPS, OWN
from streams.core.graph import GRAPH, Graph, ObjectKind, Relation
from streams.core.parameters import Present
from streams.core.rows import Kind

#: Types that a field can have, as everywhere where people read them.
TYPES: Final = ("string", "long", "decimal", "boolean", "date", "instant")
#: Avro's decimals on our wire; more places would be cut off there, so they are refused here.
DECIMAL_PLACES: Final = 6
_LONG: Final = range(-(2**63), 2**63)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Format(StrEnum):
    """How the values of a source's own topic are written."""

    AVRO = "avro"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTopic:
    """A topic of somebody else's that feeds a source. ``key_in`` says where the row's key is: in the ``value``'s
    column, or it is the ``record``'s own key, as text; only then can a tombstone take a row away."""

    name: str
    format: Format = Format.AVRO
    key_in: str = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A table called ``name`` with typed ``fields`` (name → name of its type), related to ``object``.

    ``key`` is the field of the object that holds the key of its row, ``column`` the column of the table with that key.
    ``account`` names a column with the account's id, for objects of accounts that are many: their rows then lie with
    the account. ``personal`` are fields with personal data. Rows of another ``version`` do not fit and are not used.
    """

    name: str
    object: str
    fields: dict[str, str]
    about: str = ""
    key: str = "id"
    column: str = ""
    account: str | None = None
    personal: tuple[str, ...] = ()
    topic: SourceTopic | None = None
    version: int = 1

    @property
    def key_column(self) -> str:
        """The column with the row's key: ``account_id`` for the id of an account unless another one was named."""
        return self.column or (f"{self.object}_id" if self.key == "id" else self.key)

    @property
    def account_column(self) -> str | None:
        """The column with the account's id, if the rows lie with their account."""
        return self.key_column if self.object == Kind.ACCOUNT and self.key == "id" else self.account

    @property
    def local(self) -> bool:
        """Whether rows lie with their account; otherwise every worker reads all of them."""
        return self.account_column is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One row on its way; ``fields`` None removes it. Its key is the account's where it lies with one, else source and
    key."""

    source: str
    key: str
    account_id: str | None = None
    version: int
    fields: dict[str, Value] | None = None


class Unusable(Exception):
    """A row that does not fit its source; the text names the column."""


def fitting(sources: Iterable[DataSource], graph: Graph = GRAPH) -> dict[str, DataSource]:
    """By name those that fit into ``graph``: an older record may name an object that there is no more."""
    return {
        source.name: source
        for source in sources
        if source.object in graph and source.name not in graph and source.key in graph[source.object].fields
    }


def extended(sources: Iterable[DataSource], graph: Graph = GRAPH) -> Graph:
    """The graph with these sources behind their objects; one that does not fit is left out."""
    return graph.extended(
        (
            source.object,
            Relation(name=source.name, kind=source.name, field=source.key),
            ObjectKind(kind=source.name, about=source.about or "a data source", fields=source.fields),
        )
        for source in fitting(sources, graph).values()
    )


def succeed(existing: DataSource | None, wanted: DataSource) -> DataSource:
    """``wanted`` with its version: another one when rows that are there would not fit it, or come from elsewhere."""
    if existing is None:
        return wanted
    kept = {name: type_name for name, type_name in existing.fields.items() if name in wanted.fields}
    same = replace(
        existing, fields=wanted.fields, about=wanted.about, personal=wanted.personal, version=wanted.version
    ) == wanted and all(wanted.fields[name] == type_name for name, type_name in kept.items())
    return replace(wanted, version=existing.version if same else existing.version + 1)


def problems(source: DataSource, graph: Graph = GRAPH) -> list[str]:
    """Why it cannot be saved, in the order of its fields; empty when it can. ``graph`` is the one without sources."""
    return list(_problems(source, graph))


def _problems(source: DataSource, graph: Graph) -> Iterator[str]:
    if not _NAME.fullmatch(source.name):
        yield f"name {source.name!r}: use small letters, digits and underscores, as in crm_segment"
    taken = {*graph, *(relation.name for kind in graph.values() for relation in kind.relations)}
    if source.name in taken:
        yield f"name {source.name!r} is an object of the graph already; call it otherwise, as in {source.name}_extra"
    if source.name in MAPS or source.name in OWN:
        yield f"name {source.name!r} is a word of filters; call it otherwise, as in {source.name}_data"
    if source.object not in graph:
        near = _nearest(source.object, graph)
        yield f"object: {source.object!r} is no object of the graph{near}; there are {', '.join(graph)}"
        return
    fields = graph[source.object].fields
    if source.key not in fields:
        texts = [name for name, type_name in fields.items() if type_name == "string"]
        near = _nearest(source.key, fields)
        yield f"key: {source.object} has no field {source.key!r}{near}; its texts are {', '.join(texts)}"
    elif fields[source.key] != "string":
        yield f"key: {source.object}.{source.key} is a {fields[source.key]}; rows are found by texts, as by its id"
    yield from _field_problems(source)
    if source.account is not None and "account_id" not in fields:
        yield f"account: {source.object} belongs to no single account; leave it out, and every worker reads all rows"
    if source.topic is not None and source.topic.key_in not in ("value", "record"):
        yield f"topic.key_in: {source.topic.key_in!r}; use 'value' (column {source.key_column}) or 'record'"


def _field_problems(source: DataSource) -> Iterator[str]:
    if not source.fields:
        yield 'fields is empty; name at least one, as in fields = { tier = "string" }'
    for name, type_name in source.fields.items():
        if not _NAME.fullmatch(name):
            yield f"fields: {name!r}: use small letters, digits and underscores"
        if type_name not in TYPES:
            yield f"fields: {name} is a {type_name!r}{_nearest(type_name, TYPES)}; types are {', '.join(TYPES)}"
    for name in source.personal:
        if name not in source.fields:
            yield f"personal: there is no field {name!r}{_nearest(name, source.fields)}"


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


# -- rows ------------------------------------------------------------------------------------------------------------


def row_of(source: DataSource, columns: Mapping[str, Any], key: str | None = None) -> SourceRow:
    """A row of a record's columns (JSON, Avro or CSV values); ``key`` where the record's own key is the row's.

    A column that is not there is missing in events; other columns are left alone. Raises :class:`Unusable`.
    """
    key = _id(columns, source.key_column) if key is None else key
    account = source.account_column
    account_id = None if account is None else key if account == source.key_column else _id(columns, account)
    fields = {
        name: value_of(name, type_name, columns[name]) for name, type_name in source.fields.items() if name in columns
    }
    return SourceRow(source=source.name, key=key, account_id=account_id, version=source.version, fields=fields)


def _id(columns: Mapping[str, Any], column: str) -> str:
    found = columns.get(column)
    if isinstance(found, bool) or not isinstance(found, str | int) or found == "":
        what = "no such column" if column not in columns else f"{found!r} is no key"
        raise Unusable(f"{column}: {what}; every row needs one there")
    return str(found)


def value_of(name: str, type_name: str, given: Any) -> Value:
    """``given`` as this type; texts are read, numbers are never rounded. Raises :class:`Unusable`."""
    if given is None:
        return None
    try:
        return _READ[type_name](given)
    except (ValueError, TypeError, KeyError, InvalidOperation, OverflowError):
        raise Unusable(f"{name}: {given!r} is no {type_name}") from None


def _string(given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError
    return given


def _long(given: Any) -> int:
    if isinstance(given, bool) or not isinstance(given, int | str) or (found := int(given)) not in _LONG:
        raise ValueError
    return found


def _decimal(given: Any) -> Decimal:
    if isinstance(given, bool) or not isinstance(given, str | int | float | Decimal):
        raise TypeError
    found = Decimal(repr(given)) if isinstance(given, float) else Decimal(given)
    if not found.is_finite() or found != round(found, DECIMAL_PLACES):
        raise ValueError
    return found


def _boolean(given: Any) -> bool:
    return given if isinstance(given, bool) else {"true": True, "false": False}[given]


def _date(given: Any) -> date:
    if isinstance(given, datetime) or not isinstance(given, date | str):
        raise TypeError
    return given if isinstance(given, date) else date.fromisoformat(given)


def _instant(given: Any) -> datetime:
    found = datetime.fromisoformat(given) if isinstance(given, str) else given
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise ValueError
    found = found.astimezone(UTC)
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


_READ: Final[Mapping[str, Callable[[Any], Value]]] = {
    "string": _string, "long": _long, "decimal": _decimal, "boolean": _boolean, "date": _date, "instant": _instant,
}  # fmt: skip


def present(source: DataSource, row: SourceRow | None) -> Present | None:
    """What a worker may read of a stored row; None when there is no row, or one that does not fit any more."""
    if row is None or row.fields is None or row.version != source.version:
        return None
    return Present(fields=row.fields)
