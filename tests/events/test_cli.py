"""`curfew events` and `curfew routes`, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from agents.cli import events, routes
from agents.configuration.changes import AUDIT
from agents.configuration.records import read_records, read_rows
from agents.configuration.routes import read_routes
from agents.events.engine import totals
from streams.codec import Codec, Registry
from streams.codec.registration import register_all
from streams.codec.rows import encode_row
from streams.core.catalogue import CATALOGUE
from streams.core.errors import Misconfigured
from streams.core.routing import Route
from streams.core.rows import CountRow, count_key
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.settings import Settings
from streams.topics import ROUTES, SOURCES
from tests.support.brokers import Brokers

EXAMPLE = Path(__file__).parents[2] / "docs/examples/routes.toml"

GOOD = """
[[route]]
name = "suspensions"
event_types = ["service.state_transitioned"]
queues = ["operations"]
filter = 'facts.to == "Suspended"'
"""


@pytest.fixture(autouse=True)
def no_other_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that runs on this machine for other purposes would show its data sources here."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", "127.0.0.1:1")


def run(app: Any, *arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def written(folder: Path, text: str) -> str:
    path = folder / "routes.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_list_has_every_type() -> None:
    """For programs: every type, its object, its audience, and what it can carry."""
    listed = json.loads(run(events.app, "list", "-f", "json").stdout)

    by_type = {row["type"]: row for row in listed}
    assert by_type.keys() == CATALOGUE.keys()
    assert by_type["bill_run.completed"]["reaches"] == ["bill_run"]
    assert by_type["invoice.posted"]["parameters"]["invoice.amount"] == "decimal"
    assert by_type["sim.dormant"]["reaches"][:3] == ["sim", "service", "account"]
    assert {row["raised"] for row in listed} == {"always", "when registered"}


def test_one_type_is_shown_with_what_it_reaches() -> None:
    """For people: object, facts, parameters."""
    shown = run(events.app, "show", "service.state_transitioned").output

    assert "reaches service, account, service_plan, package, sim, rate_plan, product" in shown
    assert "account.currency" in shown


def test_an_unknown_type_is_refused_with_near_ones() -> None:
    """Exit code 2 is wrong usage."""
    result = run(events.app, "show", "service.state")

    assert result.exit_code == 2
    assert "did you mean service.state_transitioned" in result.output


REFUSED = [
    (
        '[[route]]\nname = "r"\nevent_types = ["bill_run.completed"]\nqueues = ["operations"]\n'
        'audience = "all"\nparameters = ["service.name"]\n',
        "service.name cannot be a parameter of bill_run.completed",
    ),
    (GOOD.replace("queues", "queue"), "there is no field 'queue'; did you mean queues?"),
    (GOOD.replace('["operations"]', '"operations"'), "queues must be a list such as"),
    (GOOD + 'audience = "everybody"\n', "audience is 'everybody'; use 'customer' or"),
    (GOOD.replace('name = "suspensions"', ""), "name is missing: add text such as"),
    (GOOD + GOOD, "the name is used twice"),
    ("[route]\nname = 1\n", "has [[route]] tables"),
    ("[[route\n", "is not TOML"),
    ("", "has [[route]] tables"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_wrong_file_is_refused_before_anything_is_asked_or_saved(
    tmp_path: Path, content: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2 and the reason, without a broker."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    result = run(routes.app, "apply", written(tmp_path, content))

    assert result.exit_code == 2
    assert message in result.output
    assert "no broker answers at 127.0.0.1:1: data sources are not known" in result.stderr


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """Nobody wants to run a command five times to learn of five mistakes."""
    bad = GOOD.replace("operations", "operation").replace("facts.to", "facts.two") + "\n" + GOOD.replace("name", "nam")

    with pytest.raises(Misconfigured) as refused:
        read_routes(Path(written(tmp_path, bad)), {"operations"})

    for part in ("no queue 'operation'", "no facts.two (did you mean facts.to", "no field 'nam'"):
        assert part in str(refused.value)


def test_a_dry_match_says_which_routes_take_an_event() -> None:
    """And why the others do not; exit code 1 when nobody takes it."""
    taken = run(
        routes.app, "test", "service.state_transitioned", "-F", "facts.to=Active", "--file", str(EXAMPLE), "-f", "json"
    )
    not_taken = run(routes.app, "test", "sim.dormant", "--file", str(EXAMPLE))

    answers = {row["route"]: row for row in json.loads(taken.stdout)}
    assert answers["customer-lifecycle"]["takes"] is True
    assert answers["suspensions"]["why_not"].endswith("does not agree")
    assert (taken.exit_code, not_taken.exit_code) == (0, 1)


def test_a_field_that_the_event_cannot_have_is_wrong_usage() -> None:
    """No route looks at it, so the answer would be about another event than the one that was meant."""
    result = run(routes.app, "test", "service.state_transitioned", "-F", "facts.two=Active", "--file", str(EXAMPLE))

    assert result.exit_code == 2
    assert "service.state_transitioned has no facts.two" in " ".join(result.output.replace("│", " ").split())


def test_the_example_names_only_queues_of_the_manifest() -> None:
    """The file of the documentation and of the demo is valid as it is."""
    assert len(read_routes(EXAMPLE, Manifest.load().queues)) >= 4


@pytest.fixture
def cluster(kafka: Brokers, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A cluster with the topics and schemas that routes need, and the environment that leads there."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("CURFEW_SCHEMA_REGISTRY_URL", kafka.schema_registry_url)
    settings, manifest = Settings(), Manifest.load()
    admin = kafka_admin.admin_client(settings.kafka())
    existing = kafka_admin.partition_counts(admin)
    names = [ROUTES, AUDIT, SOURCES, *(f"queue.{queue}" for queue in manifest.queues)]
    kafka_admin.create_topics(admin, [manifest.topic(name) for name in names if name not in existing])
    subjects = {f"{name}-value": manifest.topics[name].value or "" for name in (ROUTES, AUDIT)}
    register_all(Registry(settings.schema_registry_url), subjects)
    return settings


@pytest.mark.kafka
def test_routes_are_saved_compared_and_pruned_on_a_real_kafka(cluster: Settings, tmp_path: Path) -> None:
    """New, unchanged, changed, deleted: what the command says is what the topic has."""

    def saved() -> dict[str, Route]:
        return read_records(cluster, Codec(Registry(cluster.schema_registry_url)), ROUTES, Route)

    run(routes.app, "apply", str(EXAMPLE), "--prune")
    before = saved()

    unchanged = run(routes.app, "apply", str(EXAMPLE))
    planned = run(routes.app, "apply", written(tmp_path, GOOD), "--prune", "--dry-run")
    after_plan = saved()
    changed = run(routes.app, "apply", written(tmp_path, GOOD), "--prune")

    assert before == after_plan == {route.name: route for route in read_routes(EXAMPLE, None)}
    assert unchanged.output.count("unchanged") == len(before)
    assert "bill-runs: deleted (dry run)" in planned.output
    assert "suspensions: changed" in changed.output
    assert list(saved()) == ["suspensions"]
    assert [row["name"] for row in json.loads(run(routes.app, "list", "-f", "json").stdout)] == ["suspensions"]


@pytest.mark.kafka
def test_registering_an_object_makes_the_route_that_publishes_it(
    cluster: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validated as any route; applied again with less it changes; the trail says who did what, oldest first."""
    monkeypatch.setenv("CURFEW_BY", "ana")

    run(events.app, "register", "package", "--queue", "operations")
    run(events.app, "register", "package", "--queue", "operations", "--op", "deleted", "--by", "bo")
    unknown = run(events.app, "register", "moon", "--queue", "operations")
    wrong = run(events.app, "register", "package", "--queue", "operations", "--filter", "package.nam == 'x'")
    trail = json.loads(run(routes.app, "history", "registered-package", "-f", "json").stdout)
    run(routes.app, "delete", "registered-package")

    assert (unknown.exit_code, wrong.exit_code) == (2, 2)
    assert "there is no event type 'moon.created'" in unknown.output
    assert "there is no package.nam (did you mean package.name" in wrong.output
    assert [(entry["by"], entry["action"]) for entry in trail] == [("ana", "created"), ("bo", "changed")]
    assert trail[1]["after"]["event_types"] == ["package.deleted"]
    assert trail[1]["changes"] == [
        'event_types: ["package.created", "package.updated", "package.deleted"] → ["package.deleted"]'
    ]
    assert run(routes.app, "delete", "registered-package").exit_code == 2


@pytest.mark.kafka
def test_a_queue_that_the_cluster_does_not_have_is_refused(cluster: Settings, tmp_path: Path) -> None:
    """Its records would have nowhere to go."""
    result = run(routes.app, "apply", written(tmp_path, GOOD.replace("operations", "no-such-queue")))

    assert result.exit_code == 2
    assert "there is no queue 'no-such-queue'" in result.output


@pytest.mark.kafka
def test_rows_of_a_changelog_are_the_latest_of_every_partition(
    kafka: Brokers, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each partition counts for itself under the same key; an older count of a partition is not added to its latest."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    settings, topic, key = Settings(), unique("store-changelog"), count_key("billing.service")
    changelog = replace(Manifest.load().topic("events-store-changelog"), name=topic, partitions=2)
    kafka_admin.create_topics(kafka_admin.admin_client(settings.kafka()), [changelog])
    producer = Producer(settings.kafka())
    for partition, count in ((0, 1), (0, 5), (1, 7)):
        value = encode_row(CountRow(next_offset=1, counts={"raised service.state_transitioned": count}))
        producer.produce(topic, key=key, value=value, partition=partition)
    producer.produce(topic, key=b"service/S1", value=b"a row of another kind", partition=1)
    assert producer.flush(30) == 0

    assert totals(read_rows(settings, topic, count_key(""))) == {"raised service.state_transitioned": 12}
