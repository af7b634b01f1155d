"""What workers, monitor and supervisor tell Prometheus of the real application."""

from __future__ import annotations

import os
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agents.embedded.ports import free_port
from agents.monitor.own import OwnPart
from streams.metrics import ALL, Family
from tests.e2e.application import Application, now
from tests.e2e.test_plan_change_requests import PATIENTLY, knows
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

#: How old the last count may be on a busy machine; a wrong zone or unit is an hour or more.
PATIENCE_S = 300.0
Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


def values(text: str) -> Values:
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_a_worker_tells_records_chunks_lag_and_dead_letters(application: Application, tmp_path: Path) -> None:
    """The application's own have no health port: a second instance of the events worker takes some partitions."""
    port = free_port()
    worker = application.popen(tmp_path / "log", "worker", "events", "--instance", "2", "--health-port", str(port))

    def scraped() -> Values:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_SECONDS) as answer:
                return values(answer.read().decode())
        except OSError:  # it does not listen yet
            return {}

    def names(scrape: Values) -> set[str]:
        return {name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name, _ in scrape}

    def total(scrape: Values, name: str) -> float:
        return sum(value for (known, _), value in scrape.items() if known == name)

    wanted = {name for name, metric in ALL.items() if metric.family is Family.WORKER}
    wanted -= {"curfew_source_waiting"}  # the worker of data sources alone has it
    found: Values = {}

    def complete() -> bool:
        """Its first tick may come after the first letters."""
        found.clear()
        found.update(scraped())
        return total(found, "curfew_worker_dead_letters_total") > 0 and names(found) >= wanted

    try:
        # the ends are those that the pump was asked for at an earlier scrape
        wait_until(lambda: "curfew_worker_lag_records" in names(scraped()), "it has partitions")
        for number in range(20):  # some of them are in its partitions
            application.send("billing.account", (f"metrics-{number}", b"no avro"))
        wait_until(complete, "it has put some aside, and all metrics are there")
    finally:
        worker.terminate()
        assert worker.wait(TIMEOUT_SECONDS) == 0
    application.settle()

    assert names(found) == wanted
    handled, chunks = (total(found, f"curfew_worker_{name}") for name in ("records_total", "chunk_seconds_count"))
    assert handled >= chunks > 0


def test_the_monitor_counts_ticks_deadlines_dead_letters_and_the_ledger(application: Application) -> None:
    """From the topics of the application, with a change that pends."""
    knows(application, "metrics-1", "metrics-1-a")
    date = f"{now() + timedelta(days=30):%Y-%m-%d}"  # pends, whatever the time of day: its lead is a week
    about = ("--account", "metrics-1", "--channel", "crm", "--date", date)
    order = ("plan-changes", "order", "metrics-1-a", "at-once", *about, *PATIENTLY)
    application.run(*order)
    application.send("billing.account", ("metrics-1", b"no avro"))
    application.settle()
    own = OwnPart(application.settings, ledger_every_s=1.0)

    own.start()
    try:
        wanted = {name for name, metric in ALL.items() if metric.family is Family.CURFEW}
        optional = {"curfew_deadline_slack_seconds", "curfew_deadline_eta_timestamp_seconds"}  # nothing is due yet
        seen: Values = {}

        def one(name: str, **labels: str) -> float:
            found = (value for (known, has), value in seen.items() if known == name and labels.items() <= {*has})
            return next(found, -1.0)

        def counted() -> bool:
            """A count that failed is tried again half a minute later."""
            seen.clear()
            seen.update(values(own.text))
            pending = one("curfew_deadline_changes", zone="America/Sao_Paulo", date=date, stage="pending")
            return wanted - optional <= {name for name, _ in seen} and pending >= 1 and not own.problems

        wait_until(counted, "everything was counted")
    finally:
        own.stop()

    assert 0 <= one("curfew_tick_age_seconds") < PATIENCE_S
    assert abs(one("curfew_business_time_seconds") - now().timestamp()) < PATIENCE_S
    assert one("curfew_deadline_remaining_changes", zone="America/Sao_Paulo", date=date) >= 1
    assert one("curfew_dead_letters_total", app="events") >= 1
    assert {value for (name, _), value in seen.items() if name == "curfew_ledger_difference"} == {0.0}


@pytest.mark.parametrize("restarts", [0, 3])
def test_a_restarted_worker_knows_how_often(
    restarts: int, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor tells it; on its own it is 0."""
    from streams.kafka.lanes import Counters
    from streams.kafka.worker_metrics import RESTARTS, worker_metrics

    monkeypatch.setitem(os.environ, RESTARTS, str(restarts))

    text = worker_metrics(
        app="a", instance="1", alive=True, outstanding=0, counters=Counters(), lags={("t", 0): 5}, now={0: now()}
    )

    assert values(text)["curfew_worker_restarts_total", frozenset({("app", "a"), ("instance", "1")})] == restarts
