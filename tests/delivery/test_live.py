"""Queues and subscriptions that are made and changed while the workers run, and replays, on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.lag.offset_fetch import committed_offsets
from tests.cli.curfew import Curfew, runner
from tests.delivery.deployment import Deployment
from tests.delivery.receiving import SECRET_REF, receiver
from tests.support.brokers import private
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(600)]

SUBSCRIPTION = """
[[subscription]]
name = "{name}"
queue = "{queue}"
schedule_s = [{schedule}]
[subscription.webhook]
url = "{url}"
secret_ref = "{secret}"
"""


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two delivery workers and a dispatcher; no queue and no subscription of a test is there yet."""
    directory = tmp_path_factory.mktemp("live")
    stack = private(directory / "stack")
    with stack:
        made = Deployment(stack, directory)
        made.prepare()
        with made.worker("delivery"), made.worker("delivery", instance="2"), made.worker("dispatch"):
            made.wait_for("worker.assigned", "delivery-2")
            yield made


@pytest.fixture
def curfew(deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Curfew:
    """`curfew` in this process: a test with many commands would wait for their imports most of its time."""
    for name, value in deployment.env.items():
        monkeypatch.setenv(name, value)
    return runner(monkeypatch, capsys)


def test_a_queue_and_a_subscription_work_as_soon_as_they_are_made(
    deployment: Deployment, curfew: Curfew, tmp_path: Path
) -> None:
    """Two delivery workers run before the queue is there; its first events came before they had heard of it."""
    file = tmp_path / "subscriptions.toml"
    with receiver(tmp_path) as crm:
        assert curfew("queues", "create", "late").code == 0
        file.write_text(subscription("crm", "late", crm.url, schedule="0, 5, 300"))
        assert curfew("subscriptions", "apply", str(file)).code == 0
        deployment.produce(range(100), queue="late")

        wait_until(lambda: len({one["webhook_id"] for one in crm.received()}) == 100, "all are delivered")
        wait_until(lambda: account(curfew, "crm")["delivered"] == 100, "all results are settled")

    assert len(crm.received()) == 100, "none was sent twice"
    assert all(one["verified"] for one in crm.received())
    assert account(curfew, "crm")["difference"] == 0


def test_events_are_replayed_to_one_receiver(deployment: Deployment, curfew: Curfew, tmp_path: Path) -> None:
    """What came before the subscription; what was given up; one event by name, once in its run."""
    file = tmp_path / "subscriptions.toml"
    replay = ("subscriptions", "replay", "hook")

    def runs() -> dict[str, tuple[int, int, int]]:
        """Run → delivered, pending or still to come, difference."""
        return {
            run["replay"]: (run["delivered"], run["pending"] + run["lag"], run["difference"])
            for run in account(curfew, "hook")["runs"]
        }

    def status() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(curfew("subscriptions", "show", "hook").out)["status"]
        return found

    deployment.produce(range(2))
    wait_until(lambda: committed(deployment, "queue.customer-events") == 2, "intake has seen them")
    with receiver(tmp_path) as hook:
        file.write_text(subscription("hook", "customer-events", hook.url, schedule="0"))
        assert curfew("subscriptions", "apply", str(file)).code == 0
        dry = curfew(*replay, "--missing-since", "@-1h", "--dry-run")
        assert hook.received() == []
        filled = curfew(*replay, "--missing-since", "@-1h", "--yes", "--run", "fill", "--by", "ana")
        wait_until(lambda: runs().get("fill") == (2, 0, 0), "the events from before the subscription arrive")
        nothing = curfew(*replay, "--missing-since", "@-1h", "--dry-run").err

        hook.behave(fail_status=500)
        deployment.produce(range(2, 3))
        wait_until(lambda: account(curfew, "hook")["dead"] == 1, "an event is given up")
        # the dispatcher's row of the endpoint becomes durable after the result that gave the event up
        wait_until(lambda: status()["state"] == "failing", "the endpoint's row says so too")
        failing = status()
        hook.behave()
        curfew(*replay, "--failed-since", "@-1h", "--yes", "--run", "repair")
        wait_until(lambda: runs().get("repair") == (1, 0, 0), "it is delivered")
        wait_until(lambda: status()["state"] != "failing", "the endpoint's row says so too")
        well = status()
        repaired = curfew(*replay, "--failed-since", "@-1h", "--dry-run").err

        whole_queue = curfew(*replay, "--offset", "beginning", "--dry-run").err
        a_part = curfew(*replay, "--offset", "@-1h:beginning", "--dry-run").err

        one = ("--event", hook.received()[0]["webhook_id"], "--yes", "--run", "one")
        curfew(*replay, *one)
        wait_until(lambda: runs().get("one") == (1, 0, 0), "it is delivered once more")
        twice = curfew(*replay, *one).err
        unknown = curfew(*replay, "--event", "none")

    assert "service.state_transitioned" in dry.out
    assert "2 would be sent again; nothing has been sent" in dry.err
    assert (filled.code, "2 of 2 asked for" in filled.err) == (0, True)
    assert "0 would be sent again" in nothing
    assert "1 left out: delivered" in repaired
    assert "3 would be sent again" in whole_queue
    assert "0 would be sent again" in a_part
    assert "1 left out: sent in this run before" in twice
    assert (unknown.code, "there is no event none" in unknown.err) == (2, True)
    got = [one for one in hook.received() if one["status"] == 200]
    assert [one["replay"] for one in got] == ["fill", "fill", "repair", "one"]
    assert got[3]["webhook_id"] == got[0]["webhook_id"]
    assert all(one["verified"] for one in got)
    assert (failing["state"], failing["endpoint"]["last_failure_status"]) == ("failing", 500)
    assert (well["state"], well["reason"], well["waiting"]) == ("active", None, 0)
    assert well["endpoint"]["last_success_at"] > failing["endpoint"]["last_failure_at"]
    whole = account(curfew, "hook")
    assert (whole["difference"], whole["dead"], whole["delivered"]) == (0, 1, 0)


def subscription(name: str, queue: str, url: str, *, schedule: str) -> str:
    return SUBSCRIPTION.format(name=name, queue=queue, url=url, secret=SECRET_REF, schedule=schedule)


def account(curfew: Curfew, name: str) -> dict[str, Any]:
    """The line of the ledger."""
    lines = json.loads(curfew("ledger", "-f", "json").out)
    return next((line for line in lines if line["subscription"] == name), {"delivered": 0, "dead": 0, "runs": []})


def committed(deployment: Deployment, topic: str) -> int:
    """Records of ``topic`` that the delivery workers have done with."""
    config = {"bootstrap.servers": deployment.address.bootstrap_servers}
    return sum(committed_offsets(config, "delivery", [(topic, number) for number in range(4)]).values())
