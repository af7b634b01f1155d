"""Queues, data sources and routes that are made while all workers run, as a person would make them."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # public, but the stubs do not say so

from agents.configuration.records import write_records
from agents.sources.rows import ROWS
from streams.codec import Codec, Registry
from streams.core.events import Event
from streams.core.objects import AccountChange, Op
from streams.core.sources import SourceRow
from streams.kafka.admin import admin_client
from tests.e2e.application import Application, account, as_bytes, created, now
from tests.support.kafka_io import wait_until
from tests.watchdog.mail_server import MailServer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SOURCES = """
[[source]]
name = "crm_segment"
object = "account"
fields = { tier = "string" }

[[source]]
name = "credit_score"
object = "account"
fields = { limit = "decimal" }
topic = { name = "finance.credit", format = "json", key_in = "record" }
"""
ROUTE = """
[[route]]
name = "gold-status"
event_types = ["account.status_changed"]
queues = ["gold"]
parameters = ["crm_segment.tier", "credit_score.limit"]
filter = 'crm_segment.tier == "gold" && credit_score.limit >= 100.50'
"""


class Customer:
    """An account whose status changes back and forth, each change one more revision."""

    def __init__(self, application: Application, account_id: str) -> None:
        self.application, self.account_id, self.revision = application, account_id, 1
        application.send("billing.account", (account_id, created(account_id)))

    def change(self) -> None:
        before, after = ("Active", "Suspended") if self.revision % 2 else ("Suspended", "Active")
        self.revision += 1
        change = AccountChange(
            op=Op.UPDATED, previous=account(self.account_id, status=before),
            current=account(self.account_id, status=after), revision=self.revision, occurred_at=now(), source="crm",
        )  # fmt: skip
        self.application.send("billing.account", (self.account_id, change))
        self.application.settle()

    def gold(self) -> list[Event]:
        return self.application.events(self.account_id, "gold")


def test_queue_sources_and_route_work_without_a_restart_and_everything_is_on_record(
    application: Application, tmp_path: Path
) -> None:
    """A new queue, a source from a file, one from a topic of somebody else's, a filter on both; then all of it goes."""
    pids = application.pids()
    customer = Customer(application, "live-1")
    other = Customer(application, "live-2")
    sources, route, rows = tmp_path / "sources.toml", tmp_path / "route.toml", tmp_path / "rows.csv"
    sources.write_text(SOURCES)
    route.write_text(ROUTE)
    rows.write_text("account_id,tier\nlive-1,gold\nlive-2,silver\n")
    admin = admin_client(application.kafka())
    for created_topic in admin.create_topics([NewTopic("finance.credit", 3, 1)]).values():
        created_topic.result()

    refused = application.run("routes", "apply", str(route), code=2)
    assert "crm_segment.tier cannot be a parameter of account.status_changed" in refused.stderr
    application.run("queues", "create", "gold")
    application.run("sources", "apply", str(sources), "--by", "ana")
    application.run("sources", "load", "crm_segment", str(rows))
    application.run("routes", "apply", str(route), "--by", "ana")
    application.send("finance.credit", ("live-1", b'{"limit": 100.50}'), ("live-2", b'{"limit": 900}'), ("x", b"no"))

    def arrived() -> bool:
        customer.change()
        other.change()
        return bool(customer.gold())

    wait_until(arrived, "an event with the values of both sources is in the new queue")
    # the two other records of the topic are in partitions of their own
    wait_until(lambda: {one.key() for one in application.dead_letters("sources")} == {b"x"}, "one was put aside")
    wait_until(lambda: {row.key for row in rows_of(application, "credit_score")} == {"live-1", "live-2"}, "both rows")
    event = customer.gold()[-1]
    assert event.parameters.items() >= {"crm_segment.tier": "gold", "credit_score.limit": Decimal("100.500000")}.items()
    assert other.gold() == []
    assert application.pids() == pids

    shown = json.loads(application.run("events", "show", "account.status_changed", "-f", "json").stdout)
    assert shown["parameters"]["credit_score.limit"] == "decimal"
    still_asked = application.run("sources", "delete", "crm_segment", code=2)
    assert "route gold-status" in still_asked.stderr

    application.run("routes", "delete", "gold-status", "--by", "bo")
    gone = application.run("sources", "delete", "crm_segment", "--by", "bo")
    assert "with 2 rows" in gone.stderr
    # as the command leaves it when Kafka fails in the middle: no source any more, but its rows
    codec = Codec(Registry(application.settings.schema_registry_url))
    write_records(application.settings, codec, "config.sources", {"credit_score": None})
    assert "with 2 rows" in application.run("sources", "delete", "credit_score").stderr
    [made, removed] = json.loads(application.run("routes", "history", "gold-status", "-f", "json").stdout)
    assert (made["by"], made["action"], made["after"]["queues"]) == ("ana", "created", ["gold"])
    assert (removed["by"], removed["action"], removed["after"]) == ("bo", "deleted", None)
    [source, _] = json.loads(application.run("sources", "history", "crm_segment", "-f", "json").stdout)
    assert (source["by"], source["after"]["fields"]) == ("ana", {"tier": "string"})


def rows_of(application: Application, source: str) -> list[SourceRow]:
    values = (as_bytes(one.value()) for one in application.records(ROWS))
    return [row for value in values if (row := application.codec.decode(value, SourceRow)).source == source]


MAIL = """
[[subscription]]
name = "status-mail"
queue = "customer-events"
event_types = ["account.status_changed"]
parameters = ["account.name", "account.status"]
[subscription.email]
subject = "{account.name}: {account.status}"
to = ["ops@example.com"]
to_parameters = ["account.email"]
"""


def test_a_mail_subscription_that_is_applied_while_all_runs_sends_to_each_recipient(
    application: Application, mailbox: MailServer, tmp_path: Path
) -> None:
    """The address is a parameter of the event; `test` shows the mail before; the ledger has a unit for each address."""
    file = tmp_path / "mail.toml"
    file.write_text(MAIL)
    application.run("subscriptions", "apply", str(file))
    shown = application.run("subscriptions", "test", "status-mail").stdout
    customer = Customer(application, "mail-1")

    def subscribed() -> bool:
        """Workers follow within a second: change until a mail comes."""
        customer.change()
        return any("To: contato@aurora.example" in mail for mail in mailbox.mails)

    wait_until(subscribed, "the mail arrives")
    wait_until(lambda: ledger(application, "status-mail")["pending"] == 0, "all mails are sent")

    assert "> To: ops@example.com" in shown
    assert "< 250" in shown
    [mail, *_] = [one for one in mailbox.mails if "To: contato@aurora.example" in one]
    assert "Subject: Padaria Aurora: " in mail
    assert "account.status: " in mail
    line = ledger(application, "status-mail")
    assert (line["difference"], line["dead"]) == (0, 0)
    assert line["delivered"] == len(mailbox.mails) - 1  # the sample is no event
    assert line["delivered"] % 2 == 0


def test_a_dead_delivery_is_redriven_by_a_person_and_begins_again(
    application: Application, mailbox: MailServer, tmp_path: Path
) -> None:
    """A mail server that refused is repaired: a dry run, then the mail arrives; a second redrive finds nothing."""
    file = tmp_path / "mail.toml"
    file.write_text(MAIL.replace("status-mail", "refused-mail").replace("ops@", "night@"))
    application.run("subscriptions", "apply", str(file))
    customer = Customer(application, "mail-2")
    which = ("dead-letters", "redrive", "--app", "delivery", "--subscription", "refused-mail")

    def dead() -> bool:
        customer.change()
        return any(one["subscription"] == "refused-mail" and one["dead"] for one in lines(application))

    mailbox.answer = "550 closed for tonight"
    wait_until(dead, "a mail is dead")
    mailbox.answer = ""
    wait_until(lambda: ledger(application, "refused-mail")["pending"] == 0, "nothing else is under way")
    before = ledger(application, "refused-mail")
    dry = application.run(*which, "--dry-run").stderr
    application.run(*which, "--yes")
    wait_until(lambda: ledger(application, "refused-mail")["dead"] == 0, "the dead have risen")
    wait_until(lambda: ledger(application, "refused-mail")["pending"] == 0, "and are delivered")
    again = application.run(*which, "--dry-run").stderr

    assert f"{before['dead']} of {before['dead']} would be sent back" in dry
    assert "0 of 0 would be sent back" in again
    after = ledger(application, "refused-mail")
    assert (after["difference"], after["delivered"]) == (0, before["delivered"] + before["dead"])
    assert any("To: night@example.com" in mail for mail in mailbox.mails)


HOOK = """
[[subscription]]
name = "hook"
queue = "customer-events"
event_types = ["bill_run.started"]
[subscription.webhook]
url = "http://127.0.0.1:1/"
secret_ref = "env:CURFEW_SECRET_TEST"
"""


def test_a_subscription_is_paused_resumed_and_its_secret_rotated_on_record(
    application: Application, tmp_path: Path
) -> None:
    """Each is a new version; a resume is one even if it was not paused, since it enables a disabled endpoint again."""
    file = tmp_path / "hook.toml"
    file.write_text(HOOK)
    application.run("subscriptions", "apply", str(file))

    def shown() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(application.run("subscriptions", "show", "hook").stdout)
        return found

    application.run("subscriptions", "pause", "hook", "--by", "ana")
    paused = shown()
    application.run("subscriptions", "resume", "hook")
    application.run("subscriptions", "resume", "hook")
    resumed = shown()
    application.run("subscriptions", "rotate-secret", "hook", "env:CURFEW_SECRET_NEXT", code=2)
    application.run("subscriptions", "rotate-secret", "hook", "env:CURFEW_SECRET_NEXT", "--skip-secrets")
    rotated = shown()
    unknown = application.run("subscriptions", "pause", "hok", code=2).stderr
    entries = json.loads(application.run("subscriptions", "history", "hook", "-f", "json").stdout)

    assert (paused["paused"], paused["version"]) == (True, 2)
    assert (resumed["paused"], resumed["version"]) == (False, 4)
    webhook = rotated["webhook"]
    assert webhook["secret_ref"] == "env:CURFEW_SECRET_NEXT"
    assert webhook["previous_secret_ref"] == "env:CURFEW_SECRET_TEST"
    assert webhook["previous_until"] is not None
    assert "hook" in unknown
    assert [one["by"] for one in entries][1] == "ana"


def lines(application: Application) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(application.run("ledger", "-f", "json").stdout)
    return found


def ledger(application: Application, name: str) -> dict[str, Any]:
    return next(one for one in lines(application) if one["subscription"] == name)


def test_the_ledger_upstream_accounts_for_every_record_and_event(application: Application) -> None:
    """News, the same again, an older revision and a record that is no Avro; each event is in its queue."""
    customer = Customer(application, "upstream-1")
    customer.change()
    customer.change()
    application.send("billing.account", ("upstream-1", created("upstream-1")), ("upstream-1", b"no Avro"))
    application.settle()

    found = json.loads(application.run("ledger", "--upstream", "-f", "json").stdout)

    accounts = next(one for one in found["inputs"] if one["topic"] == "billing.account")
    assert accounts["input"] == sum(accounts[term] for term in ("applied", "stale", "duplicate", "dead"))
    assert min(accounts[term] for term in ("applied", "stale", "dead")) >= 1
    changed = next(one for one in found["events"] if one["type"] == "account.status_changed")
    assert changed["raised"] == changed["routed"] + changed["unrouted"] >= 2
    assert {one["difference"] for one in (*found["inputs"], *found["events"])} == {0}
