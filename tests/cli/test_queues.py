"""What an external reader of a queue has to be allowed."""

from __future__ import annotations

import json

from tests.cli.curfew import Curfew


def test_the_acls_of_a_reader_are_printed_as_commands_and_as_json(offline: Curfew) -> None:
    """Read on each queue's topic and on the group, nothing more; nothing is asked of a broker."""
    commands = offline("queues", "acl", "User:partner", "customer-events", "operations")
    listed = offline("queues", "acl", "User:partner", "customer-events", "--group", "crm import", "-f", "json")

    assert commands.out.splitlines() == [
        "kafka-acls.sh --bootstrap-server 127.0.0.1:1 --add --allow-principal User:partner --operation read "
        f"--{kind} {name} --resource-pattern-type literal"
        for kind, name in (("topic", "queue.customer-events"), ("topic", "queue.operations"), ("group", "partner"))
    ]
    assert [(row["resource_type"], row["resource_name"], row["operation"]) for row in json.loads(listed.out)] == [
        ("topic", "queue.customer-events", "read"), ("group", "crm import", "read"),
    ]  # fmt: skip


def test_what_is_no_principal_or_no_queue_is_refused(offline: Curfew) -> None:
    """Exit code 2, and how it is written."""
    principal = offline("queues", "acl", "partner", "customer-events")
    queue = offline("queues", "acl", "User:partner", "Customer_Events")

    assert (principal.code, queue.code) == (2, 2)
    assert "User:partner" in principal.err
    assert "cannot be a queue's name" in queue.err
