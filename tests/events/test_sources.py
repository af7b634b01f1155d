"""Data sources: what may be declared, how rows are read, and how they become parameters of the very next event."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.configuration.dependents import told_apart
from agents.configuration.sources import read_rows_file, read_sources
from agents.sources.rows import ROWS
from streams.core.errors import Misconfigured
from streams.core.graph import GRAPH
from streams.core.objects import Product
from streams.core.parameters import available, check
from streams.core.routing import Route
from streams.core.rows import source_key
from streams.core.sources import DataSource, SourceRow, SourceTopic, Unusable, extended, problems, row_of, succeed
from tests.core.billing import ACCOUNT, PLAN, SERVICE, created, updated
from tests.events.works import Works, topic_of

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SEGMENT = DataSource(name="crm_segment", object="account", fields={"tier": "string", "score": "decimal"})
DEVICE = DataSource(name="device", object="service", fields={"model": "string"}, account="account_id")
MARGIN = DataSource(name="margin", object="product", fields={"percent": "long"})
ASKS = Route(
    name="all",
    event_types=("service.*",),
    queues=("operations",),
    parameters=("crm_segment.tier", "crm_segment.score", "device.model", "margin.percent"),
)


def segment(tier: str | None, **changed: Any) -> SourceRow:
    """The row of account A1; without a tier the record that removes it."""
    fields = None if tier is None else {"tier": tier, "score": Decimal("7.5")}
    given: dict[str, Any] = {"source": "crm_segment", "key": "A1", "account_id": "A1", "version": 1, "fields": fields}
    return SourceRow(**given | changed)


class Line:
    """A worker that knows an account with a service, and suspends and reactivates it for an event each time."""

    def __init__(self, *routes: Route) -> None:
        self.works = Works(*(routes or (ASKS,)))
        for subject in (ACCOUNT, SERVICE, PLAN):
            self.works.feed(topic_of(created(subject)), [created(subject)])
        self.service, self.revision = SERVICE, 1

    def declare(self, *sources: DataSource) -> None:
        for source in sources:
            self.works.catalogue.put("source", source.name, source)

    def event(self) -> Any:
        self.revision += 1
        state = "Suspended" if self.service.state == "Active" else "Active"
        change = updated(self.service, self.revision, state=state)
        self.service = change.current
        [event] = self.works.feed("billing.service", [change])
        return event


def test_a_source_that_is_added_while_running_enriches_the_next_event() -> None:
    """Before it is declared its parameters do not exist, before its row comes they are missing, then they are there."""
    line = Line()

    before = line.event()
    line.declare(SEGMENT)
    missing = line.event()
    line.works.feed(ROWS, [segment("gold")])
    there = line.event()

    assert "crm_segment.tier" not in before.parameters
    assert (missing.parameters["crm_segment.tier"], "crm_segment.tier" in missing.missing) == (None, True)
    assert there.parameters["crm_segment.tier"] == "gold"
    assert there.parameters["crm_segment.score"] == Decimal("7.5")
    assert "crm_segment.tier" not in there.missing


def test_a_source_may_belong_to_services_of_an_account_or_to_nobody() -> None:
    """Rows of services lie with their account; rows of products are read whole by every worker."""
    line = Line()
    line.declare(DEVICE, MARGIN)
    line.works.catalogue.put("product", "fibre", Product(id="fibre", name="Fibre"))
    row = SourceRow(source="device", key="S1", account_id="A1", version=1, fields={"model": "X1"})
    line.works.feed(ROWS, [row])
    product_row = SourceRow(source="margin", key="fibre", version=1, fields={"percent": 12})
    line.works.catalogue.put("source_row", "margin/fibre", product_row)

    event = line.event()

    assert (event.parameters["device.model"], event.parameters["margin.percent"]) == ("X1", 12)


def test_a_value_is_a_snapshot_and_a_filter_sees_it() -> None:
    """The event keeps the tier it was raised with; a route for gold takes no silver."""
    gold = replace(ASKS, filter='crm_segment.tier == "gold"')
    line = Line(gold)
    line.declare(SEGMENT)
    line.works.feed(ROWS, [segment("gold")])
    event = line.event()
    line.works.feed(ROWS, [segment("silver")])

    with pytest.raises(ValueError, match="not enough values"):
        line.event()
    assert event.parameters["crm_segment.tier"] == "gold"
    assert line.works.counts["unrouted service.state_transitioned"] == 1


def test_a_chunk_that_is_done_again_never_shows_an_older_row() -> None:
    """The offset in front of a stored row is its guard."""
    line = Line()
    line.declare(SEGMENT)
    line.works.feed(ROWS, [segment("silver"), segment("gold")])
    line.works.offsets[ROWS] = 0

    line.works.feed(ROWS, [segment("silver")])

    assert line.event().parameters["crm_segment.tier"] == "gold"


def test_a_removed_row_is_missing_and_leaves_no_values() -> None:
    """Only its offset and key stay, as a guard against replays."""
    line = Line()
    line.declare(SEGMENT)
    line.works.feed(ROWS, [segment("gold"), segment(None)])

    event = line.event()

    assert "crm_segment.tier" in event.missing
    assert b"gold" not in (line.works.store.get(source_key("crm_segment", "A1")) or b"")


def test_rows_of_another_version_are_not_used() -> None:
    """After a field has changed its type, an old value would be of the wrong one."""
    line = Line()
    line.declare(replace(SEGMENT, version=2))
    line.works.feed(ROWS, [segment("gold")])

    assert "crm_segment.tier" in line.event().missing


def test_a_row_with_the_key_of_somebody_else_is_put_aside() -> None:
    """It would lie where nobody looks for it."""
    works = Works(ASKS)

    works.feed(ROWS, [segment("gold")], key="A2")

    [dead] = works.dead()
    assert dict(dead.headers or ())["curfew-reason"] == b"wrong_key"


def test_parameters_of_a_source_are_in_reach_where_its_object_is() -> None:
    """On a service by way of its account; never on a bill run, and the refusal says what there is."""
    graph = extended([SEGMENT])

    assert available("service", graph)["crm_segment.tier"] == "string"
    assert check("service.state_transitioned", ["crm_segment.tier"], graph) == []
    assert "crm_segment.tier" not in available("service", GRAPH)
    assert "its object is a bill run" in check("bill_run.completed", ["crm_segment.tier"], graph)[0]
    [refusal] = check("service.state_transitioned", ["crm_segment.teir"], graph)
    assert "crm_segment has no field teir; it has tier, score" in refusal


REFUSED = [
    ({"name": "account"}, "name 'account' is an object of the graph already"),
    ({"name": "to_rate_plan"}, "is an object of the graph already"),
    ({"name": "facts"}, "is a word of filters"),
    ({"name": "CRM"}, "use small letters"),
    ({"object": "acount"}, "'acount' is no object of the graph (did you mean account or"),
    ({"key": "currencies"}, "account has no field 'currencies' (did you mean currency?)"),
    ({"key": "billing_day"}, "account.billing_day is a long"),
    ({"fields": {}}, "fields is empty"),
    ({"fields": {"tier": "text"}}, "tier is a 'text'"),
    ({"fields": {"Tier": "string"}}, "'Tier': use small letters"),
    ({"personal": ("teir",)}, "there is no field 'teir' (did you mean tier?)"),
    ({"object": "product", "account": "account_id"}, "product belongs to no single account"),
    ({"topic": SourceTopic(name="x", key_in="header")}, "use 'value' (column account_id) or 'record'"),
]


@pytest.mark.parametrize(("changed", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_what_is_not_related_or_clashes_is_refused(changed: dict[str, Any], words: str) -> None:
    """One problem each, with what would be right."""
    [problem] = problems(replace(SEGMENT, **changed))

    assert words in problem


def test_a_route_that_was_broken_before_does_not_hold_up_another_source() -> None:
    """It is told apart from what the change itself would break."""
    stale = replace(ASKS, name="stale", parameters=("long_gone.tier",))
    both = replace(ASKS, name="both", parameters=("long_gone.tier", "crm_segment.tier"))
    asks = replace(ASKS, name="asks", parameters=("crm_segment.tier",))
    before = {"crm_segment": SEGMENT}
    routes = {"stale": stale, "asks": asks, "both": both}

    added = told_apart(before, before | {"device": DEVICE}, routes, {})
    removed = told_apart(before, {}, routes, {})

    assert added[0] == []
    assert {one.partition(":")[0] for one in added[1]} == {"route both", "route stale"}
    assert {one.partition(":")[0] for one in removed[0]} == {"route asks", "route both"}


def test_a_new_version_only_where_old_rows_would_not_fit() -> None:
    """Another type or another feed; not another field or a flag."""
    assert succeed(None, SEGMENT).version == 1
    assert succeed(SEGMENT, replace(SEGMENT, fields={**SEGMENT.fields, "since": "date"})).version == 1
    assert succeed(SEGMENT, replace(SEGMENT, personal=("tier",), about="x")).version == 1
    assert succeed(SEGMENT, replace(SEGMENT, fields={"tier": "long"})).version == 2
    assert succeed(SEGMENT, replace(SEGMENT, topic=SourceTopic(name="x"))).version == 2
    assert succeed(replace(SEGMENT, version=3), SEGMENT).version == 3


ALL_TYPES = DataSource(
    name="x",
    object="account",
    fields={"s": "string", "l": "long", "d": "decimal", "b": "boolean", "day": "date", "at": "instant"},
)


@pytest.mark.parametrize(
    "columns",
    [
        {"s": "a", "l": "5", "d": "1.50", "b": "true", "day": "2018-11-04", "at": "2018-11-04T00:00:00-02:00"},
        {
            "s": "a", "l": 5, "d": Decimal("1.5"), "b": True, "day": date(2018, 11, 4),
            "at": datetime(2018, 11, 4, 2, tzinfo=UTC),
        },
        {"s": "a", "l": 5, "d": 1.5, "b": True, "day": "2018-11-04", "at": "2018-11-04T02:00:00Z"},
    ],
    ids=["csv", "avro", "json"],
)  # fmt: skip
def test_the_types_of_a_row_are_the_declared_ones_wherever_it_comes_from(columns: dict[str, Any]) -> None:
    """Texts, Avro's and JSON's values."""
    row = row_of(ALL_TYPES, {"account_id": "A1", "other": 1, **columns})

    assert (row.key, row.account_id) == ("A1", "A1")
    assert row.fields == {
        "s": "a", "l": 5, "d": Decimal("1.5"), "b": True, "day": date(2018, 11, 4),
        "at": datetime(2018, 11, 4, 2, tzinfo=UTC),
    }  # fmt: skip


@pytest.mark.parametrize(
    "columns",
    [
        {"l": 1.5}, {"l": True}, {"l": 2**63}, {"s": 5}, {"d": "1.2345678"}, {"d": "NaN"}, {"b": 1}, {"day": "4.11.18"},
        {"at": "2018-11-04T00:00:00"}, {"account_id": None}, {"account_id": ""},
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_is_not_of_its_type_is_refused_and_never_rounded(columns: dict[str, Any]) -> None:
    """The text names the column."""
    with pytest.raises(Unusable, match=next(iter(columns))):
        row_of(ALL_TYPES, {"account_id": "A1", **columns})


def test_the_examples_of_the_docs_can_be_saved_and_loaded() -> None:
    """A file of sources and a file of rows."""
    sources = read_sources(EXAMPLES / "sources.toml", {})

    rows = read_rows_file(EXAMPLES / "segments.csv", sources["crm_segment"])
    assert [row.fields and row.fields["tier"] for row in rows] == ["gold", "silver"]


def test_files_with_mistakes_name_them_all(tmp_path: Path) -> None:
    """Line by line, and nothing is loaded."""
    toml, csv, jsonl = tmp_path / "s.toml", tmp_path / "r.csv", tmp_path / "r.jsonl"
    toml.write_text('[[source]]\nname="a"\nobject="acount"\nfields={x="strin"}\n[[source]]\nname="b"\nobjekt="x"\n')
    csv.write_text("account_id,tier,score\nA1,gold,x\n,silver,1\nA3,,2\n")
    jsonl.write_text('{"account_id": "A1", "tier": 5}\n')

    with pytest.raises(
        Misconfigured, match=r"(?s)source a: object: 'acount'.*there is no field objekt; did you mean obj"
    ):
        read_sources(toml, {})
    with pytest.raises(Misconfigured, match=r"(?s)line 2: score: 'x' is no decimal.*line 3: account_id"):
        read_rows_file(csv, SEGMENT)
    with pytest.raises(Misconfigured, match="line 1: tier: 5 is no string"):
        read_rows_file(jsonl, SEGMENT)
    csv.write_text("account_id,tiers\nA1,gold\n")
    with pytest.raises(Misconfigured, match="the header has no score, tier; it has account_id, tiers"):
        read_rows_file(csv, SEGMENT)


@pytest.mark.parametrize(
    ("row", "said"), [("A1,gold", "line 3 has fewer cells"), ("A1,gold,1,2", "line 3 has more cells")]
)
def test_a_row_of_another_width_than_the_header_is_refused(row: str, said: str, tmp_path: Path) -> None:
    """A lost cell shifts all others; an empty one is null."""
    file = tmp_path / "r.csv"
    file.write_text(f"account_id,tier,score\nA0,,2\n{row}\n")

    with pytest.raises(Misconfigured, match=said):
        read_rows_file(file, SEGMENT)
