"""The watchdog on a real Kafka, in free-running virtual time: nobody has to be alive but itself."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.embedded.ports import free_port
from agents.watchdog.book import Book
from streams.core.errors import Transient
from streams.core.events import Finding
from tests.delivery.receiving import RunningReceiver
from tests.e2e import nights
from tests.e2e.application import Application, as_bytes
from tests.e2e.nights import DEADLINE, HOUR, NOON, pass_time, run_freely, stop
from tests.plan_changes.makers import a_request
from tests.support.brokers import Cluster
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SERVICES = [f"S{number}" for number in range(1, 9)]


@pytest.fixture
def night(private_kafka: Callable[..., Cluster], tmp_path: Path, webhook: dict[str, str]) -> Iterator[Application]:
    """Noon, with one order per service, accepted."""
    accounts = {service: f"A-{service}" for service in SERVICES}
    with nights.night(private_kafka(), tmp_path, accounts, env=webhook) as made:
        orders = [
            (account, a_request(f"R-{service}", account_id=account, service_id=service, requested_at=NOON))
            for service, account in accounts.items()
        ]
        made.send("plan-change.requests", *orders)
        made.settle()
        yield made


@contextmanager
def watching(application: Application) -> Iterator[Callable[[], dict[str, Any]]]:
    """`curfew watchdog` as a process; gives its health report."""
    port = free_port()
    log = application.directory / "watchdog.log"
    process = application.popen(log, "watchdog", "--every", "0.2", "--health-port", str(port))

    def health() -> dict[str, Any]:
        assert process.poll() is None, log.read_text()[-2_000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=TIMEOUT_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:  # it does not listen yet
            return {}

    try:
        wait_until(lambda: health().get("now"), "the watchdog has looked")
        yield health
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT_SECONDS)
        finally:
            process.kill()


def at_risk_events(application: Application) -> list[Finding]:
    try:
        records = [
            application.codec.decode(as_bytes(one.value()), Finding) for one in application.records("events.findings")
        ]
    except Transient:
        return []
    return [one for one in records if one.type == "rate_plan_change.at_risk"]


def kinds(people: RunningReceiver) -> list[str]:
    """What they were told, without repetitions of the same alarm."""
    return list(dict.fromkeys(one["type"] for one in people.received()))


def test_it_tells_people_when_the_scheduler_is_dead(night: Application, people: RunningReceiver) -> None:
    """at_risk hours before, then missed, signed; at_risk as events too; and a restart says nothing of it again."""
    with watching(night) as health:
        wait_until(lambda: [one["open"] for one in health()["deadlines"]] == [len(SERVICES)], "it knows the orders")
        stop(night, "plan-changes")
        run_freely(night, NOON, DEADLINE - 2 * HOUR)
        wait_until(lambda: kinds(people) == ["watchdog.at_risk"], "people know of the risk")
        wait_until(lambda: len({one.subject_id for one in at_risk_events(night)}) == len(SERVICES), "events say so")
        run_freely(night, DEADLINE - 2 * HOUR, DEADLINE + HOUR)
        wait_until(lambda: kinds(people) == ["watchdog.at_risk", "watchdog.missed"], "people know of the miss")
        wait_until(lambda: health()["notices"]["webhook"].keys() == {"sent"}, "nothing waits to be sent")
    told, raised = people.received(), at_risk_events(night)

    with watching(night) as health:
        wait_until(lambda: health()["state"] == "missed", "the new process knows what stands")
        again = people.received()
    once = night.run("watchdog", "--once", "-f", "json", code=3)
    [row] = json.loads(once.stdout)

    assert all(one["verified"] and one["status"] == 200 for one in told)
    assert {one["key"] for one in told} == {"2018-11-04T03:00:00.000Z"}
    assert len({one["webhook_id"] for one in told}) == len(told)
    assert again == told == people.received()
    assert len({one.event_id for one in raised}) == len(SERVICES)
    assert {one.facts["service_id"] for one in at_risk_events(night)} == set(SERVICES)
    assert len(at_risk_events(night)) == len(raised)
    assert (row["state"], row["open"], row["persisted"]) == ("missed", len(SERVICES), 0)


@pytest.mark.faults
def test_a_healthy_night_wakes_nobody(night: Application, people: RunningReceiver) -> None:
    """Every change is persisted, each some time after its own release; the virtual clock waits for the workers."""
    with watching(night) as health:
        pass_time(night, NOON, DEADLINE + HOUR, step_minutes=5)
        wait_until(
            lambda: health()["deadlines"] == [] and health()["now"] == "2018-11-04T04:00:00.000Z", "it has seen the end"
        )
    once = night.run("watchdog", "--once", "-f", "json")

    assert people.received() == []
    assert json.loads(once.stdout) == []
    assert night.store.counts().persisted == len(SERVICES)


@pytest.mark.faults
def test_it_asks_the_billing_store_before_it_says_missed(night: Application, people: RunningReceiver) -> None:
    """Acknowledgements that nobody has read are no missed changes; one that is really not there is."""
    with watching(night):
        pass  # it knows the orders now
    pass_time(night, NOON, DEADLINE - HOUR, step_minutes=30)
    pretend_to_have_read(night, "plan-change.acknowledgements")
    for name in ("plan-changes", "persistence", "execution"):
        stop(night, name)
    run_freely(night, DEADLINE - HOUR, DEADLINE + HOUR)
    once = night.run("watchdog", "--once", "-f", "json")

    assert json.loads(once.stdout) == []
    assert kinds(people) == []
    assert "watchdog.unacknowledged" in once.stderr


def pretend_to_have_read(application: Application, *topics: str) -> None:
    """As if the records that are there had never been: the watchdog's book says that it has read them."""
    book = Book.open(application.directory / "watchdog")
    for topic in topics:
        ends = {one.partition() or 0: (one.offset() or 0) + 1 for one in application.records(topic)}
        with book.page():
            book.reached(topic, ends)
    book.close()


@pytest.mark.faults
def test_a_book_that_begins_knows_orders_whose_replies_are_gone(night: Application) -> None:
    """Ordered weeks ago, or the disk was lost: the scheduler's changelog still has every open change."""
    pretend_to_have_read(night, "plan-change.replies", "events.findings")
    once = night.run("watchdog", "--once", "-f", "json")

    assert [(row["state"], row["open"]) for row in json.loads(once.stdout)] == [("ok", len(SERVICES))]
