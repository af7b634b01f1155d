"""The delivery and dispatch workers as processes, on a real Kafka, judged by the receiver's log and by the ledger."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.delivery.deployment import ACCOUNTS, Deployment
from tests.delivery.receiving import SECRET_REF, receiver
from tests.support.brokers import Cluster
from tests.support.kafka_io import wait_until

#: The failing account must not be given up before it is repaired: half a minute alone, minutes on a busy machine.
SCHEDULE = [0, 1, 1, 2, 2, 5, 5, 5, 5, 5, 10, 10, 20, 20, 30, 30, 60, 60, 120, 120]
SUBSCRIPTIONS = """
[[subscription]]
name = "crm"
queue = "customer-events"
schedule_s = {schedule}
[subscription.webhook]
url = "{url}"
secret_ref = "{secret}"

[[subscription]]
name = "partner-copy"
queue = "customer-events"
ordering = "unordered"
[subscription.forward]
queue = "partner"
"""
#: Longer than the longest pause of the schedule, which a busy machine may have come to.
PATIENCE_S = 240.0


@pytest.fixture
def deployment(private_kafka: Callable[..., Cluster], tmp_path: Path) -> Deployment:
    deployed = Deployment(private_kafka(), tmp_path)
    deployed.run("topics", "apply", "--queue", "partner")
    deployed.run("schemas", "apply")
    return deployed


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_workers_killed_in_the_flow_lose_nothing_and_keep_the_order(deployment: Deployment, tmp_path: Path) -> None:
    """1,200 events, one failing account, both workers killed with -9: each delivered, in order, and the ledger is 0."""
    with receiver(tmp_path, "--fail-status", "500", "--fail-key", "A1") as crm:
        file = tmp_path / "subscriptions.toml"
        file.write_text(SUBSCRIPTIONS.format(url=crm.url, secret=SECRET_REF, schedule=SCHEDULE))
        applied = deployment.completed("subscriptions", "apply", str(file))
        assert ("crm: new" in applied.stderr, applied.stdout) == (True, "")  # as `routes apply` and the others
        assert "crm: unchanged" in deployment.completed("subscriptions", "apply", str(file)).stderr
        assert "200" in deployment.run("subscriptions", "test", "crm")
        wrong_file = tmp_path / "wrong.toml"
        wrong_file.write_text(file.read_text().replace('queue = "partner"', 'queue = "nowhere"'))
        deployment.run("subscriptions", "apply", str(wrong_file), code=2)
        tried = len(crm.received())

        def accepted() -> set[str]:
            return {one["webhook_id"] for one in crm.received()[tried:] if one["status"] == 200}

        with deployment.worker("delivery") as delivery, deployment.worker("dispatch") as dispatch:
            deployment.produce(range(600))
            wait_until(lambda: len(accepted()) >= 570, "all accounts but the failing one are delivered")
            wait_until(lambda: deployment.ledger()["crm"]["pending"] == 30, "only that account waits")
            deployment.produce(range(600, 1_200))
            wait_until(lambda: len(accepted()) > 600, "the second half has begun")
            for process in (delivery, dispatch):
                process.send_signal(signal.SIGKILL)
                process.wait()
        between = deployment.ledger()
        endpoint = json.loads(deployment.run("subscriptions", "show", "crm"))["status"]["endpoint"]
        crm.behave()
        with deployment.worker("delivery"), deployment.worker("dispatch"):
            wait_until(lambda: len(accepted()) == 1_200, "everything is delivered", PATIENCE_S)
            wait_until(lambda: deployment.ledger()["crm"]["pending"] == 0, "the last results are settled")
            wait_until(lambda: deployment.ledger()["partner-copy"]["delivered"] == 1_200, "all are forwarded")

        after = deployment.ledger()
        received = crm.received()[tried:]

    assert (endpoint["last_failure_reason"], endpoint["last_failure_status"]) == ("http_500", 500)
    assert between["crm"]["difference"] == between["partner-copy"]["difference"] == 0
    assert (after["crm"]["published"], after["crm"]["delivered"], after["crm"]["difference"]) == (1_200, 1_200, 0)
    assert after["partner-copy"]["difference"] == 0
    assert all(one["verified"] for one in received)
    for account in range(ACCOUNTS):
        first: dict[int, None] = {}
        for one in received:
            if one["key"] == f"A{account}" and one["status"] == 200:
                first.setdefault(one["sequence"])
        assert list(first) == list(range(account, 1_200, ACCOUNTS))
    most = max(one["attempt"] for one in received)
    assert most <= len(SCHEDULE)

    deployment.report_success_of_nobody(after["crm"]["subscription_id"])
    wrong = deployment.ledger(code=3)
    assert (wrong["crm"]["difference"], wrong["partner-copy"]["difference"]) == (1, 0)
