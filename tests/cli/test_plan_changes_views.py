"""`curfew plan-changes eligible`, `dry-run` and `board`: they read what workers keep, and leave nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from agents import business_time
from agents.cli.plan_changes import rows, view
from agents.plan_changes import change_feed
from streams.codec import Codec, Registry
from streams.codec.rows import encode_row
from streams.core.clock import Tick
from streams.core.hooks import Abort, Adjust, Hook, Hookpoint, Patch, Proceed, Verdict, WorkflowContext
from streams.core.plan_change.machine import Change, State
from streams.core.plan_change.matrix import DateRule
from streams.core.plan_change.messages import CommandStep
from streams.core.plan_change.rows import change_key, pack
from streams.core.rows import Kind, ObjectRow, object_key
from streams.kafka.partitioner import partition_of
from tests.cli.curfew import Curfew
from tests.plan_changes.makers import DEADLINE, NOON, START, an_element, pending
from tests.plan_changes.plant import a_plan, a_service, an_account
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, create_topic, wait_until

pytestmark = pytest.mark.kafka

PARTITIONS = 3
CHANGE = pending()
#: An account in another partition than A1, which has the services.
OTHER_ACCOUNT = next(f"B{n}" for n in range(99) if partition_of(f"B{n}", PARTITIONS) != partition_of("A1", PARTITIONS))
#: What the hooks below saw: (service, dry_run).
SEEN: list[tuple[str, bool]] = []


def look(context: WorkflowContext) -> Verdict:
    print("a hook that prints must not spoil the JSON")
    SEEN.append((context.command.service_id, context.dry_run))
    if context.command.service_id.endswith("-bad"):
        return Abort(reason="unpaid_bill")
    return Adjust(patch=Patch(options_added=("tv",)))


def refuse_gold(context: WorkflowContext) -> Verdict:
    return Abort(reason="blocklisted") if context.command.element_key.endswith("gold") else Proceed()


HOOKS = (
    Hook(name="look", key=Hookpoint.PRIOR, call=look),
    Hook(name="refuse-gold", key=Hookpoint.ORDER, call=refuse_gold),
)


@dataclass(slots=True)
class Workers:
    """What workers would have written: rows of both apps, the matrix and ticks, in topics of this test alone."""

    bootstrap_servers: str
    codec: Codec
    changes: str
    objects: str
    matrix: str
    ticks: str

    def has(self, *changes: Change) -> None:
        for change in changes:
            self._put(self.changes, change_key(change.service_id), pack(change), change.service_id)

    def knows(self, service_id: str, **plan: Any) -> None:
        found = (
            (Kind.ACCOUNT, an_account()),
            (Kind.SERVICE, a_service(id=service_id)),
            (Kind.SERVICE_PLAN, a_plan(service_id=service_id, **plan)),
        )
        for kind, current in found:
            row = encode_row(ObjectRow(revision=1, current=current))
            self._put(self.objects, object_key(kind, current.id), row, "A1")

    def sells(self, *elements: Any) -> None:
        for element in elements:
            value = self.codec.encode("catalog.matrix-element", element)
            self._put(self.matrix, element.key.encode(), value, element.key)

    def tick(self, now: datetime) -> None:
        value = self.codec.encode("clock.ticks", Tick(epoch="e", seq=1, now=now))
        self._put(self.ticks, None, value, "any")

    def _put(self, topic: str, key: bytes | None, value: bytes, partition_key: str) -> None:
        """Into the partition in which the worker that handles ``partition_key`` would keep it."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers})
        producer.produce(topic, value, key, partition=partition_of(partition_key, PARTITIONS))
        assert producer.flush(TIMEOUT_SECONDS) == 0


@pytest.fixture
def workers(
    curfew: Curfew,
    kafka: Brokers,
    unique: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Workers:
    assert curfew("schemas", "apply").code == 0
    found = Workers(
        bootstrap_servers=kafka.bootstrap_servers,
        codec=Codec(Registry(kafka.schema_registry_url)),
        changes=unique("changes"),
        objects=unique("objects"),
        matrix=unique("matrix"),
        ticks=unique("ticks"),
    )
    for topic in (found.changes, found.objects, found.matrix, found.ticks):
        create_topic(kafka.bootstrap_servers, topic, partitions=PARTITIONS)
    monkeypatch.setattr(rows, "CHANGES", found.changes)
    monkeypatch.setattr(rows, "OBJECTS", found.objects)
    monkeypatch.setattr(view, "MATRIX_ELEMENTS", found.matrix)
    monkeypatch.setattr(business_time, "TICKS", found.ticks)
    monkeypatch.setattr(change_feed, "TICKS", found.ticks)
    monkeypatch.setenv("CURFEW_HOOKS", json.dumps([f"{__name__}:HOOKS"]))
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path / "data"))
    SEEN.clear()
    return found


@pytest.fixture
def untouched(kafka: Brokers, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Call it when everything is set up: then no record may be written, no group may appear, no file be made. What
    other tests have left may go meanwhile: the broker forgets groups and deleted topics when it likes."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "unused"})

    def ends() -> dict[tuple[str, int], int]:
        return {
            (name, number): consumer.get_watermark_offsets(TopicPartition(name, number), timeout=TIMEOUT_SECONDS)[1]
            for name, topic in admin.list_topics(timeout=TIMEOUT_SECONDS).topics.items()
            for number in topic.partitions
            if not name.startswith("__")  # made by the broker when the first consumer asks for its coordinator
        }

    def groups() -> set[str]:
        return {one.group_id for one in admin.list_consumer_groups().result().valid}

    before: list[tuple[dict[tuple[str, int], int], set[str]]] = []
    yield lambda: before.append((ends(), groups()))
    [(ends_before, groups_before)] = before
    assert {place: end for place, end in ends().items() if ends_before.get(place) != end} == {}
    assert groups() - groups_before == set()
    consumer.close()
    assert not (tmp_path / "data").exists()


def element(key: str, **changed: Any) -> Any:
    return an_element(key, channels=("crm", "curfew"), **changed)


def test_eligible_elements_come_with_the_dates_of_an_order(
    workers: Workers, curfew: Curfew, untouched: Callable[[], None]
) -> None:
    """By business time, the account's zone and the service's plan; other plans and channels are left out."""
    workers.knows("S1")
    workers.sells(
        element("basic-to-plus"),
        element("on-date", date_rule=DateRule.DATE_GIVEN),
        element("from-gold", from_rate_plan_id="gold"),
        an_element("web-only", channels=("web",)),
    )
    workers.tick(NOON)
    untouched()

    found = curfew("plan-changes", "eligible", "S1", "--account", "A1", "--channel", "crm", "-f", "json")

    assert found.code == 0, found.err
    answer = json.loads(found.out)
    assert (answer["rate_plan_id"], answer["open_change"], answer["now"]) == ("basic", None, "2018-11-03T12:00:00Z")
    assert [(one["element"], one["accepted"], one["reasons"]) for one in answer["elements"]] == [
        ("basic-to-plus", True, []),
        ("on-date", False, ["effective_date_missing"]),
    ]
    first = answer["elements"][0]
    assert (first["effective_date"], first["start_at"], first["deadline_at"]) == (
        "2018-11-04", "2018-11-03T17:00:00Z", "2018-11-03T23:00:00Z",
    )  # fmt: skip


def test_an_open_change_is_shown_and_why_an_order_would_be_refused(workers: Workers, curfew: Curfew) -> None:
    """As table, with the reason in words."""
    workers.knows("S1")
    workers.sells(element("basic-to-plus"))
    workers.has(CHANGE)
    workers.tick(NOON)

    found = curfew("plan-changes", "eligible", "S1", "--account", "A1", "--channel", "crm")

    assert found.code == 0, found.err
    assert "open change: basic-to-plus, pending, revision 1, effective 2018-11-04" in found.out
    assert "open_change: the service has an open change; cancel it, or supersede it" in found.out
    workers.has(replace(CHANGE, state=State.HELD))
    held = curfew("plan-changes", "eligible", "S1", "--account", "A1")
    assert "open_change: the service's open change is held: decide with `curfew plan-changes resolve`" in held.out


def test_an_unknown_service_is_a_failure_with_its_reasons(workers: Workers, curfew: Curfew) -> None:
    """A service of another account is one too."""
    workers.knows("S1")
    workers.sells(element("basic-to-plus"))

    found = curfew("plan-changes", "eligible", "S9", "--account", "A1", "-f", "json")

    assert (found.code, json.loads(found.out)["reasons"]) == (1, ["service_unknown"])
    assert "belongs" not in found.err


def test_a_service_of_another_account_is_told_from_one_that_nobody_knows(workers: Workers, curfew: Curfew) -> None:
    """An account's partition has only its own services, and so an order would only say that it is unknown there."""
    workers.knows("S1")
    workers.sells(element("basic-to-plus"))

    found = curfew("plan-changes", "eligible", "S1", "--account", OTHER_ACCOUNT, "-f", "json")

    assert (found.code, json.loads(found.out)["service_of_account"]) == (1, "A1")
    assert f"service S1 belongs to account A1, not {OTHER_ACCOUNT}: give --account A1" in found.err


def test_a_dry_run_of_a_pending_change_tells_its_outcome(
    workers: Workers, curfew: Curfew, untouched: Callable[[], None]
) -> None:
    """Its options with those of hooks, its verdicts and its slack; no record, no group, no file."""
    workers.has(CHANGE, replace(CHANGE, service_id="S2"))
    workers.tick(NOON)
    untouched()

    found = curfew("plan-changes", "dry-run", "S1", "--account", "A1", "-f", "json")

    assert found.code == 0, found.err
    answer = json.loads(found.out)
    [change] = answer["changes"]
    assert change["outcome"]["memberships"] == [
        {"rate_plan_id": "plus", "valid_from": "2018-11-03T23:00:00Z", "valid_to": None}
    ]
    assert change["outcome"]["options_created"] == ["roaming", "tv"]
    assert change["outcome"]["options_ended"] == ["sms"]
    assert change["outcome"]["fees"] == ["change 5.00 EUR"]
    assert [(call["hook"], call["verdict"]) for call in change["hooks"]] == [("look", "adjust")]
    assert SEEN == [("S1", True)]
    [deadline] = answer["deadlines"]
    assert (deadline["remaining"], deadline["asked_for"], deadline["slack_seconds"] > 0) == (2, 1, True)


def test_a_dry_run_of_a_change_not_ordered_asks_the_order_hooks(
    workers: Workers, curfew: Curfew, untouched: Callable[[], None]
) -> None:
    """What the machine or a hook would refuse is exit code 3, with the reason."""
    workers.knows("S1")
    workers.knows("S2", rate_plan_id="gold")
    workers.sells(element("basic-to-plus"), element("to-gold", to_rate_plan_id="gold"))
    workers.tick(NOON)
    untouched()
    ask = ("plan-changes", "dry-run", "--account", "A1", "-f", "json", "--element")

    good = curfew(*ask, "basic-to-plus", "S1")
    both = curfew(*ask, "basic-to-plus", "S1", "S2")
    gold = curfew(*ask, "to-gold", "S1")
    none = curfew(*ask, "no-such", "S1")

    assert (good.code, both.code, gold.code, none.code) == (0, 3, 3, 3), good.err
    assert [step["step"] for step in json.loads(good.out)["changes"][0]["steps"]] == [
        "order", "start", "execute", "post",
    ]  # fmt: skip
    assert json.loads(both.out)["refused"] == {"S2": ["element_not_for_plan"]}
    assert json.loads(gold.out)["changes"][0]["reasons"] == ["blocklisted"]
    assert json.loads(none.out)["refused"] == {"S1": ["unknown_element"]}


def test_a_dry_run_of_a_night_finds_what_would_fail(
    workers: Workers, curfew: Curfew, untouched: Callable[[], None]
) -> None:
    """Only this date, only what is still to be executed; the table names the failing ones and counts the rest."""
    workers.has(
        *(replace(CHANGE, service_id=f"S{number}") for number in range(5)),
        replace(CHANGE, service_id="S-bad"),
        replace(
            CHANGE, service_id="tokyo", zone="Asia/Tokyo", release_at=NOON, deadline_at=DEADLINE - timedelta(hours=8)
        ),
        replace(CHANGE, service_id="done", state=State.COMPLETED),
        replace(CHANGE, service_id="other-night", effective_date=CHANGE.effective_date + timedelta(days=1)),
    )
    workers.tick(NOON)
    untouched()
    night = ("plan-changes", "dry-run", "--night", "2018-11-04")

    table = curfew(*night)
    berlin = json.loads(curfew(*night, "--zone", "Europe/Berlin", "-f", "json").out)
    limited = curfew(*night, "--limit", "1", "-f", "json")

    assert table.code == 3
    assert "7 of 7 changes run, 1 would fail" in table.out
    assert "S-bad" in table.out
    assert "unpaid_bill" in table.out
    assert "S3 " not in table.out
    assert (berlin["run"], berlin["would_fail"], berlin["reasons"]) == (6, 1, {"unpaid_bill": 1})
    assert [hook["calls"] for hook in berlin["hooks"]] == [6]
    assert (limited.code, [one["service_id"] for one in json.loads(limited.out)["changes"]]) == (0, ["tokyo"])


def test_a_held_or_failed_change_waits_for_a_person(
    workers: Workers, curfew: Curfew, untouched: Callable[[], None]
) -> None:
    """Nothing of what its hooks would do happens before; exit code 3, and the command that it waits for."""
    failed = replace(CHANGE, service_id="S2", state=State.FAILED, failed_in=CommandStep.EXECUTE, reason="x")
    workers.has(replace(CHANGE, state=State.HELD), failed)
    workers.tick(NOON)
    untouched()

    table = curfew("plan-changes", "dry-run", "S1", "--account", "A1")
    both = curfew("plan-changes", "dry-run", "S1", "S2", "--account", "A1", "-f", "json")

    assert (table.code, both.code) == (3, 3), table.err
    assert "service S1 is held, nothing happens before: curfew plan-changes resolve S1 --account A1" in table.out
    assert "succeed" not in table.out
    changes = {one["service_id"]: one["would"] for one in json.loads(both.out)["changes"]}
    assert changes == {"S1": "wait for resolve", "S2": "wait for retry or resolve"}
    assert json.loads(both.out)["wait_for_a_person"] == 2


def test_a_billing_store_that_does_not_answer_is_told(
    workers: Workers, curfew: Curfew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hooks would say yes, and nothing could be written; only a change with something to write needs it."""
    workers.has(CHANGE, replace(CHANGE, service_id="S2", state=State.PERSISTED, persisted_at=NOON))
    workers.tick(NOON)
    monkeypatch.setenv("CURFEW_DATABASE_URL", "postgresql://curfew@127.0.0.1:1/billing")

    needed = curfew("plan-changes", "dry-run", "S1", "--account", "A1", "-f", "json")
    not_needed = curfew("plan-changes", "dry-run", "S2", "--account", "A1", "-f", "json")

    assert (needed.code, not_needed.code) == (3, 0)
    assert "postgresql+psycopg://curfew@127.0.0.1:1/billing" in json.loads(needed.out)["billing_store_problem"]
    assert json.loads(not_needed.out)["billing_store_problem"] is None


def test_a_night_too_slow_for_its_deadline_is_over_the_limit(workers: Workers, curfew: Curfew) -> None:
    """Every change would succeed, but not in time: sixty of them at one in ten minutes."""
    workers.has(*(replace(CHANGE, service_id=f"S{number}", release_at=START) for number in range(60)))
    workers.tick(NOON)

    slow = curfew("plan-changes", "dry-run", "--night", "2018-11-04", "--rate", "0.00166", "-f", "json")
    fast = curfew("plan-changes", "dry-run", "--night", "2018-11-04", "-f", "json")

    assert (slow.code, fast.code) == (3, 0)
    [deadline] = json.loads(slow.out)["deadlines"]
    assert (json.loads(slow.out)["would_fail"], deadline["slack_seconds"] < 0) == (0, True)


@pytest.mark.parametrize(
    ("changes", "arguments", "said"),
    [
        ((), ("S1", "--account", "A1"), "service S1 has no open change"),
        ((CHANGE,), ("S1", "--account", "A2"), "is of account A1, not A2"),
        ((replace(CHANGE, state=State.COMPLETED),), ("S1", "--account", "A1"), "nothing is left to be run"),
    ],
)
def test_a_dry_run_of_nothing_says_why(
    workers: Workers, curfew: Curfew, changes: tuple[Change, ...], arguments: tuple[str, ...], said: str
) -> None:
    """Exit code 1, and the way out."""
    workers.has(*changes)

    found = curfew("plan-changes", "dry-run", *arguments)

    assert (found.code, said in found.err) == (1, True)


def test_the_board_counts_and_warns(workers: Workers, curfew: Curfew, untouched: Callable[[], None]) -> None:
    """Exit code 3 while something waits for a person; 0 when nothing does."""
    failed = replace(CHANGE, service_id="S3", state=State.FAILED, failed_in=CommandStep.EXECUTE, reason="x")
    workers.has(CHANGE, replace(CHANGE, service_id="S2", zone="Europe/Paris"), failed)
    workers.tick(NOON)
    untouched()

    everything = curfew("plan-changes", "board", "--once", "-f", "json")
    paris = curfew("plan-changes", "board", "--once", "--zone", "Europe/Paris", "-f", "json")
    table = curfew("plan-changes", "board")

    assert (everything.code, paris.code, table.code) == (3, 0, 3)
    answer = json.loads(everything.out)
    assert (answer["now"], answer["next_deadline"]) == ("2018-11-03T12:00:00Z", "2018-11-03T23:00:00Z")
    assert [(one["zone"], one["pending"], one["failed"], one["word"]) for one in answer["lines"]] == [
        ("Europe/Berlin", 1, 1, "AT RISK"),
        ("Europe/Paris", 1, 0, "OK"),
    ]
    assert "next deadline 2018-11-03T23:00:00Z, in 11:00" in table.out
    assert "failed: curfew plan-changes list --state failed" in table.out


def test_an_empty_board_says_where_there_is_something(workers: Workers, curfew: Curfew) -> None:
    """A date has no wrong spelling, so nothing is an answer: exit code 0, and the nights that there are."""
    workers.has(CHANGE, replace(CHANGE, service_id="S2", zone="Europe/Paris"))
    workers.tick(NOON)
    there = "there are some for 2018-11-04 (Europe/Berlin, Europe/Paris)"

    day = curfew("plan-changes", "board", "--once", "--date", "2018-11-05")
    zone = curfew("plan-changes", "board", "--once", "--zone", "Asia/Tokyo", "-f", "json")
    night = curfew("plan-changes", "dry-run", "--night", "2018-11-05")

    assert (day.code, zone.code, night.code) == (0, 0, 0)
    assert f"no plan change for 2018-11-05; {there}" in day.out
    assert json.loads(zone.out)["lines"] == []
    assert f"no plan change in Asia/Tokyo; {there}" in zone.err
    assert f"no plan change for 2018-11-05; {there}" in night.err


def test_a_watching_board_follows_the_changelog(workers: Workers, kafka: Brokers) -> None:
    """What is written while it watches is on the next picture; a deleted row leaves it."""
    workers.has(CHANGE)
    workers.tick(NOON)
    feed = change_feed.ChangeFeed({"bootstrap.servers": kafka.bootstrap_servers}, workers.codec, workers.changes)
    feed.start()

    assert [one.stage for one in feed.entries.values()] == ["pending"]
    workers.has(replace(CHANGE, state=State.STARTED), replace(CHANGE, service_id="S2"))
    workers.tick(START)
    wait_until(lambda: feed.poll(0.1) >= 0 and feed.time and feed.time.now == START, "the tick is seen")

    def stages() -> list[str]:
        return sorted(one.stage for one in feed.entries.values())

    # rows of different services are in different partitions: either may be seen first
    wait_until(lambda: feed.poll(0.1) >= 0 and stages() == ["pending", "started"], "the changes are seen")
    workers.has(replace(CHANGE, state=State.CANCELLED))
    wait_until(lambda: feed.poll(0.1) >= 0 and len(feed.entries) == 1, "the cancelled one is gone")
    feed.close()
