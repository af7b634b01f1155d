"""Queues and subscriptions that are made and changed while the workers run, on a real Kafka."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.embedded import Stack
from tests.delivery.deployment import Deployment
from tests.delivery.receiving import SECRET_REF, receiver
from tests.support.kafka_io import wait_until

SUBSCRIPTION = """
[[subscription]]
name = "{name}"
queue = "{queue}"
[subscription.webhook]
url = "{url}"
secret_ref = "{secret}"
"""


@pytest.mark.kafka
@pytest.mark.slow
def test_a_queue_and_a_subscription_work_as_soon_as_they_are_made(
    private_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    """Two delivery workers run before the queue is there; its first events came before they had heard of it."""
    deployment = Deployment(private_stack(), tmp_path)
    deployment.run("topics", "apply")
    deployment.run("schemas", "apply")
    file = tmp_path / "subscriptions.toml"
    with (
        receiver(tmp_path) as crm,
        deployment.worker("delivery"),
        deployment.worker("delivery", instance="2"),
        deployment.worker("dispatch"),
    ):
        deployment.wait_for("worker.assigned", "delivery-2")
        deployment.run("queues", "create", "late")
        file.write_text(SUBSCRIPTION.format(name="crm", queue="late", url=crm.url, secret=SECRET_REF))
        deployment.run("subscriptions", "apply", str(file))
        deployment.produce(range(100), queue="late")

        wait_until(lambda: len({one["webhook_id"] for one in crm.received()}) == 100, "all are delivered", 90)
        wait_until(lambda: deployment.ledger()["crm"]["delivered"] == 100, "all results are settled", 60)

    assert len(crm.received()) == 100, "none was sent twice"
    assert all(one["verified"] for one in crm.received())
    assert deployment.ledger()["crm"]["difference"] == 0
