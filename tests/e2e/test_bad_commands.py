"""Bad input at the command line, on a real stack: the message names the place and the remedy, nothing is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.embedded import Stack, StackConfig, StackError
from agents.embedded.ports import free_port
from tests.cli.curfew import Curfew
from tests.delivery.receiving import SECRET_REF
from tests.e2e.application import Application, curfew_command

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def good_line(account_id: str, **fields: Any) -> dict[str, Any]:
    """The first account of the examples under another id."""
    record: dict[str, Any] = json.loads((EXAMPLES / "accounts.jsonl").read_text().splitlines()[0])
    record["value"]["current"] |= {"id": account_id} | fields
    return record | {"key": account_id}


def lines(*records: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


def test_produce_names_line_and_field_of_a_bad_record(curfew: Curfew, application: Application) -> None:
    """What is before it is sent and becomes a row, it and what follows is not; the exit code says that not all was."""
    ran = curfew(
        "produce", "billing.account",
        stdin=lines(good_line("line-1"), good_line("line-2", billing_day="last"), good_line("line-3")),
    )  # fmt: skip
    application.settle()

    keys = {message.key() for message in application.records("billing.account")}
    assert ran.code == 1
    assert "line 2: " in ran.err
    assert "current.billing_day" in ran.err
    assert "1 records sent to billing.account" in ran.err
    assert b"line-1" in keys
    assert not keys & {b"line-2", b"line-3"}


def test_produce_says_that_a_record_is_too_large(curfew: Curfew, application: Application) -> None:
    """Two megabytes: the line, the size and the limit; with --skip-bad the next line is sent."""
    ran = curfew(
        "produce", "billing.account", "--skip-bad",
        stdin=lines(good_line("large-1", name="x" * 2_000_000), good_line("large-2")),
    )  # fmt: skip

    assert ran.code == 1
    assert "line 1: the value has 2,000," in ran.err
    assert "Kafka takes about 1,000,000" in ran.err
    assert "1 records sent to billing.account" in ran.err
    assert b"large-2" in {message.key() for message in application.records("billing.account")}


@pytest.mark.parametrize(
    ("queue", "parameter", "says"),
    [
        (
            "customer-event",
            "invoice.amount",
            "there is no queue 'customer-event'; there are billing-events, customer-events",
        ),
        ("customer-events", "invoice.amont", "nearest names: invoice.amount"),
    ],
)
def test_a_route_with_an_unknown_name_is_refused_with_the_nearest_ones(
    curfew: Curfew, tmp_path: Path, queue: str, parameter: str, says: str
) -> None:
    """Exit code 2, file and route named, and the routes in force are as before."""
    file = tmp_path / "routes.toml"
    file.write_text(
        f'[[route]]\nname = "everything"\nevent_types = ["invoice.posted"]\nqueues = ["{queue}"]\n'
        f'parameters = ["{parameter}"]\n'
    )
    before = curfew("routes", "list", "-f", "json").out

    ran = curfew("routes", "apply", str(file))
    assert ran.code == 2
    assert f"{file}: nothing was saved." in ran.err
    assert "route everything: " in ran.err
    assert says in ran.err
    assert curfew("routes", "list", "-f", "json").out == before


def test_a_subscription_with_unknown_names_is_refused_with_the_nearest_ones(curfew: Curfew, tmp_path: Path) -> None:
    """Exit code 2, every problem at once, and the subscriptions in force are as before."""
    file = tmp_path / "subscriptions.toml"
    file.write_text(
        '[[subscription]]\nname = "crm"\nqueue = "costumer-events"\nevent_types = ["invoice.posted"]\n'
        f'parameters = ["account.emial"]\n[subscription.webhook]\nurl = "http://127.0.0.1:1/"\n'
        f'secret_ref = "{SECRET_REF}"\n'
    )
    before = curfew("subscriptions", "list", "-f", "json").out

    ran = curfew("subscriptions", "apply", str(file))
    assert ran.code == 2
    assert f"{file}: nothing was saved." in ran.err
    assert "subscription crm: queue: there is no queue 'costumer-events' (did you mean 'customer-events'" in ran.err
    assert "account.email" in ran.err
    assert curfew("subscriptions", "list", "-f", "json").out == before


def test_an_unknown_worker_is_wrong_usage(curfew: Curfew) -> None:
    """Exit code 2, with the nearest name and all names."""
    ran = curfew("worker", "delivry")

    said = " ".join(ran.err.replace("│", " ").split())  # without the frame and its line breaks
    assert ran.code == 2
    assert "there is no worker 'delivry' (did you mean 'delivery'?); there are: events, plan-changes," in said


class Bare:
    """A stack started with `curfew dev start`, without any topic."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = ["--kafka-port", str(free_port()), "--registry-port", str(free_port())]

    def dev(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            curfew_command("dev", name, "--data-dir", str(self.directory), *arguments),
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip

    def start(self) -> subprocess.CompletedProcess[str]:
        return self.dev("start", *self.ports, "-f", "json")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bare, dict[str, Any]]]:
    """The stack, and what its start printed."""
    made = Bare(tmp_path_factory.mktemp("bare"))
    try:
        started = made.start()
        assert started.returncode == 0, started.stderr
        yield made, json.loads(started.stdout)
    finally:
        made.dev("stop")


def test_dev_start_twice_finds_the_running_stack(bare: tuple[Bare, dict[str, Any]]) -> None:
    """Exit code 0, the same addresses on standard output, and a line that it was running already."""
    stack, address = bare

    again = stack.start()

    assert again.returncode == 0
    assert json.loads(again.stdout) == address
    assert f"already running at {address['bootstrap_servers']} (process {address['pid']})" in again.stderr


def test_a_second_stack_on_one_directory_is_refused(bare: tuple[Bare, dict[str, Any]]) -> None:
    """The message names the directory, the process that has it and the ways out; the first one goes on."""
    stack, address = bare

    with pytest.raises(StackError) as refused:
        Stack(StackConfig(data_dir=stack.directory, lock_wait_seconds=0.1)).start()

    said = str(refused.value)
    assert str(stack.directory) in said
    assert f"process {address['pid']}" in said
    assert "curfew dev stop" in said
    assert json.loads(stack.dev("status", "-f", "json").stdout)["health"] == "running"


@pytest.mark.parametrize("worker", ["events", "dispatch"])
def test_a_worker_without_topics_says_how_to_make_them(
    bare: tuple[Bare, dict[str, Any]], tmp_path: Path, worker: str
) -> None:
    """It names the missing topics and the command, and ends."""
    _, address = bare

    ran = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", "--bootstrap-servers", address["bootstrap_servers"],
         "--schema-registry-url", address["schema_registry_url"], "worker", worker],
        capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path,
    )  # fmt: skip

    assert ran.returncode == 1
    assert "no such topic: " in ran.stderr
    assert "Create it with: curfew topics apply" in ran.stderr
    assert "Traceback" not in ran.stderr
