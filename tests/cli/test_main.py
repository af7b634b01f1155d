"""The command itself: help, exit codes, one clear line for an error."""

from __future__ import annotations

import inspect
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from agents.cli.main import COMMANDS, app
from tests.cli.curfew import Curfew
from tests.delivery.receiving import SECRET

GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
NAMES = GROUP.list_commands(typer.Context(GROUP))


def test_help_lists_the_commands_without_importing_them() -> None:
    """Shell completion and --help must not wait for the Kafka client and the database's libraries."""
    program = (
        "import sys\nfrom agents.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'confluent_kafka', 'sqlalchemy', 'fastavro', 'pydantic'}\n"
        "print(*heavy.intersection(sys.modules), file=sys.stderr)"
    )

    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert finished.stderr.strip() == ""
    assert all(name in finished.stdout for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_can_be_loaded_and_explains_itself(name: str, offline: Curfew) -> None:
    """A module with an import error would otherwise be found by the first user."""
    finished = offline(name, "--help")

    assert finished.code == 0
    assert "Usage: curfew" in finished.out


def _every(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each command that does something, with the words that call it."""
    if not isinstance(command, TyperGroup) or command.invoke_without_command:
        yield " ".join(path), command
    if isinstance(command, TyperGroup):
        context = typer.Context(command)
        for name in command.list_commands(context):
            yield from _every(command.get_command(context, name), (*path, name))


EVERY = dict(_every(GROUP))


@pytest.mark.parametrize("words", EVERY)
def test_every_command_has_an_example(words: str) -> None:
    """People read the example, not the options; it calls the command by its own name."""
    text = f"{EVERY[words].help or ''} {EVERY[words].epilog or ''}"

    assert "Example" in text
    assert f"curfew {words}" in text.partition("Example")[2]


@pytest.mark.parametrize("words", EVERY)
def test_help_shows_the_whole_docstring(words: str, offline: Curfew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words in brackets are taken for markup, and a group's own help would stand in its place."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1_000)
    docstring = inspect.cleandoc(EVERY[words].callback.__doc__).replace("\\[", "[").replace("\b", "")

    shown = " ".join(offline(*words.split(), "--help").out.split())

    assert " ".join(docstring.split()) in shown


def test_formats_have_the_same_names_everywhere() -> None:
    """-f everywhere, and json everywhere."""
    styles = {
        words: option for words, command in EVERY.items() for option in command.params if "--format" in option.opts
    }

    assert len(styles) > 20
    assert {tuple(option.opts) for option in styles.values()} == {("--format", "-f")}
    assert [words for words, option in styles.items() if "json" not in option.help] == []


@pytest.mark.parametrize("words", EVERY)
def test_an_option_that_there_is_not_is_wrong_usage_everywhere(words: str, offline: Curfew) -> None:
    """Exit code 2 before anything is asked, in words and not as a stack trace."""
    finished = offline(*words.split(), "--nonsense")

    assert (finished.code, finished.out) == (2, "")
    assert "No such option: --nonsense" in finished.err


def test_the_line_in_the_list_is_there_for_every_command(offline: Curfew) -> None:
    """The lines stand in a table of their own, since the modules are not imported for the list."""
    listed = " ".join(offline("--help").out.split())

    assert [name for name in NAMES if COMMANDS[name][1].split(",")[0].rstrip(".")[:30] not in listed] == []


def test_wrong_usage_is_2(offline: Curfew) -> None:
    """Exit code 1 is for what may be right tomorrow."""
    assert offline("nonsense").code == 2
    assert offline("topics", "diff", "--nonsense").code == 2
    assert offline("consume", "x", "-o", "yesterday").code == 2


def test_no_broker_is_one_line_and_1(offline: Curfew, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack trace at a machine that is off; the line names the setting."""
    monkeypatch.setattr("streams.kafka.admin.REQUEST_TIMEOUT_S", 0.5)

    finished = offline("topics", "diff")

    assert finished.code == 1
    assert finished.out == ""
    assert finished.err.startswith("error: no Kafka broker answers")
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "topics apply", "schemas check", "queues list", "routes list", "subscriptions list", "lag", "ledger",
        "events counts", "consume clock.ticks", "produce billing.account", "billing reconcile", "plan-changes list",
        "plan-changes show S1", "plan-changes board --once", "plan-changes eligible S1 --account A1",
        "plan-changes dry-run S1 --account A1", "plan-changes order S1 basic-to-plus --account A1",
        "routes history", "subscriptions history", "sources history", "sources list", "events rules history",
        "events rules list",
    ],
)  # fmt: skip
def test_without_kafka_every_command_says_so_at_once(
    command: str, offline: Curfew, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One line with the address and the remedy."""
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))

    finished = offline(*command.split())

    assert finished.code == 1
    assert finished.out == ""
    assert finished.err.count("\n") == 1
    assert finished.err.startswith("error: no Kafka broker answers at 127.0.0.1:1: Connection refused.")
    assert "curfew dev start" in finished.err


@pytest.mark.parametrize("command", ["ledger", "billing reconcile"])
def test_the_client_itself_writes_nothing_beside_it(command: str, tmp_path: Path) -> None:
    """Librdkafka's threads write past Python, a line for every attempt."""
    ran = subprocess.run(
        [sys.executable, "-m", "agents.cli.main", "--bootstrap-servers", "127.0.0.1:1", *command.split()],
        capture_output=True, text=True, check=False, timeout=240, env={**os.environ, "CURFEW_DATA_DIR": str(tmp_path)},
    )  # fmt: skip

    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert ran.stderr.startswith("error: no Kafka broker answers at 127.0.0.1:1")


def test_a_directory_whose_kafka_is_stopped_says_whose_kafka_is_meant(
    offline: Curfew, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another one may listen at the default address; whoever names one has not forgotten it."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "kafka.json").touch()
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    named = offline("topics", "list")
    monkeypatch.delenv("CURFEW_BOOTSTRAP_SERVERS")

    assert named.err == ""
    assert "dev is not running, so this is about the one at 127.0.0.1:9092" in offline("topics", "list").err
    assert offline("schemas", "check").err.count("is not running") == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'enviroment = "production"', "there is no setting 'enviroment'; did you mean environment?"),
        (b'CURFEW_CLOCK = "wall"', "there is no setting 'CURFEW_CLOCK'; did you mean clock?"),
        (b"colour = 1", "there is no setting 'colour'."),
        (b"bootstrap_servers = ", "cannot be read: Invalid value (at end of document)"),
        (b"\xff", "cannot be read: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_settings_file_that_says_nothing_is_named(
    text: bytes, said: str, offline: Curfew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is misspelt would silently be the default: a production in which http webhooks are allowed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "curfew.toml").write_bytes(text)

    finished = offline("lag")

    assert finished.code == 1
    assert f"error: curfew.toml{':' if 'no setting' in said else ''} {said}" in finished.err
    assert "docs/settings.md" in finished.err


def test_variables_that_are_nearly_settings_are_told(offline: Curfew, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is none, too; secrets and what is of others have any name."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVER", "x:1")
    monkeypatch.setenv("CURFEW_SECRET_CLOCK", "x")
    near = offline("lag")
    monkeypatch.setenv("CURFEW_WEBHOOK_SECRETS", "env:FOO")
    no_list = offline("lag")

    assert "note: there is no setting CURFEW_BOOTSTRAP_SERVER; did you mean CURFEW_BOOTSTRAP_SERVERS?" in near.err
    assert near.err.count("note:") == 1
    assert (no_list.code, "CURFEW_WEBHOOK_SECRETS is no JSON" in no_list.err) == (1, True)


@pytest.mark.parametrize(
    "words",
    [("receive", "--port", "99999"), ("demo", "--accounts", "0"), ("demo", "--changes", "-1"),
     ("bench", "stream", "--records", "0")],
)  # fmt: skip
def test_a_number_that_cannot_be_is_wrong_usage(words: tuple[str, ...], offline: Curfew) -> None:
    """Before anything is started."""
    assert offline(*words).code == 2


def test_a_port_that_is_taken_is_said_with_the_remedy(offline: Curfew, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever listens."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = offline("receive", "--secret-ref", "env:CURFEW_SECRET_TEST", "--port", str(port))

    assert finished.code == 1
    assert "choose another --port" in finished.err


@pytest.mark.parametrize("words", [("routes", "apply"), ("events", "rules", "apply"), ("sources", "apply")])
def test_help_shows_the_names_of_tables(words: tuple[str, ...], offline: Curfew) -> None:
    """Brackets are markup where help is printed."""
    assert "[[" in offline(*words, "--help").out


def test_debug_shows_the_stack_trace(offline: Curfew, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the person who has to find a bug."""
    monkeypatch.setattr("streams.kafka.admin.REQUEST_TIMEOUT_S", 0.5)

    assert "Traceback" in offline("--debug", "topics", "diff").err


def test_the_manifest_can_be_listed_without_a_cluster(offline: Curfew) -> None:
    """As JSON for programs; as a table in which whole names can be searched for."""
    listed = json.loads(offline("topics", "list", "-f", "json").out)

    assert {"topic": "clock.ticks", "writer": "clock"}.items() <= next(
        row for row in listed if row["topic"] == "clock.ticks"
    ).items()
    assert "plan-change.acknowledgements" in offline("topics", "list").out
