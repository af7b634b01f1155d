"""`curfew events rules`, as typed: what is wrong is refused before it is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents.cli import event_rules
from agents.configuration.event_rules import read_rules
from streams.codec import Registry
from streams.codec.registration import register_all
from streams.core.errors import Misconfigured
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.settings import Settings
from streams.topics import EVENT_RULES
from tests.support.brokers import Brokers

EXAMPLE = Path(__file__).parents[2] / "docs/examples/event-rules.toml"

GOOD = """
[[rule]]
name = "reminder"
days = 3
at = "09:00"
only_while_unpaid = true
"""


def run(*arguments: str) -> Any:
    return CliRunner().invoke(event_rules.app, arguments, catch_exceptions=False)


def written(folder: Path, text: str) -> str:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


REFUSED = [
    (GOOD.replace("days", "day"), "there is no field 'day'; did you mean days?"),
    (GOOD.replace("days = 3", "days = -1"), "days is -1; it must be 0 to 3650"),
    (GOOD.replace("days = 3", 'days = "3"'), "days must be a whole number such as 10, not text"),
    (GOOD.replace('"09:00"', '"24:00"'), "at is '24:00'; write a local time as HH:MM"),
    (GOOD.replace('"09:00"', '"9:00"'), "at is '9:00'; write a local time as HH:MM"),
    (GOOD.replace('"09:00"', "09:00:30"), "rules are to the minute"),
    (GOOD.replace("days = 3", 'days = 3\ntype = "invoice.delivered"'), "rules are for invoice.delivered_plus"),
    (GOOD.replace('"reminder"', '" "'), "give the rule a printable name"),
    (GOOD.replace('name = "reminder"', ""), "name is missing: add text such as"),
    (GOOD + GOOD, "the name is used twice"),
    ("rule = [1]\n", "write it as a table"),
    ("[rule]\nname = 1\n", "has [[rule]] tables"),
    ("[[rule\n", "is not TOML"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_wrong_file_is_refused_before_anything_is_asked_or_saved(
    tmp_path: Path, content: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, the file, the rule and the remedy, without a broker."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    result = run("apply", written(tmp_path, content))

    assert result.exit_code == 2
    assert message in result.output
    assert "rules.toml" in result.output


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """Nobody wants to run a command three times to learn of three mistakes."""
    bad = GOOD.replace("09:00", "25:00") + GOOD.replace("days = 3", "days = 9999").replace("reminder", "late")

    with pytest.raises(Misconfigured) as refused:
        read_rules(Path(written(tmp_path, bad)))

    assert "rule reminder: at is '25:00'" in str(refused.value)
    assert "rule late: days is 9999" in str(refused.value)


def test_a_local_time_of_toml_is_a_time_too(tmp_path: Path) -> None:
    """With quotation marks or without."""
    [rule] = read_rules(Path(written(tmp_path, GOOD.replace('"09:00"', "09:00:00"))))

    assert (rule.at, rule.type, rule.active) == ("09:00", "invoice.delivered_plus", True)


@pytest.mark.kafka
def test_rules_are_saved_compared_shown_and_pruned_on_a_real_kafka(
    kafka: Brokers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the commands say is what the topic has."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("CURFEW_SCHEMA_REGISTRY_URL", kafka.schema_registry_url)
    settings = Settings()
    admin = kafka_admin.admin_client(settings.kafka())
    there = kafka_admin.partition_counts(admin)
    topics = (EVENT_RULES, "config.audit")
    kafka_admin.create_topics(admin, [Manifest.load().topic(topic) for topic in topics if topic not in there])
    subjects = {
        f"{EVENT_RULES}-value": "curfew.config.EventRule",
        "config.audit-value": "curfew.config.AuditEntry",
    }
    register_all(Registry(settings.schema_registry_url), subjects)

    run("apply", str(EXAMPLE), "--prune")
    unchanged = run("apply", str(EXAMPLE))
    changed = run("apply", written(tmp_path, GOOD), "--prune", "--by", "anna")
    trail = json.loads(run("history", "reminder", "-f", "json").output)
    listed = json.loads(run("list", "-f", "json").output)
    shown, unknown = run("show", "reminder").output, run("show", "reminders")

    assert unchanged.output.count("unchanged") == len(read_rules(EXAMPLE)) == 5
    assert "reminder: changed" in changed.output
    assert changed.output.count("deleted") == 4
    assert [(row["name"], row["days"]) for row in listed] == [("reminder", 3)]
    assert "3 days after the first delivery, at 09:00 in the account's zone if a balance is left then" in shown
    assert (trail[-1]["by"], trail[-1]["action"], trail[-1]["after"]["days"]) == ("anna", "changed", 3)
    assert unknown.exit_code == 2
    assert "there are: reminder" in unknown.output
