"""What the shell completes: names of the cluster, or nothing, in silence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.curfew import Curfew
from tests.support.brokers import Brokers
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until


def complete(line: str, servers: str, directory: Path) -> tuple[list[str], str]:
    """What bash would be given for the last word of ``line``, and what would be in its way on the terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "agents.cli.main"], capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS,
        env={
            **os.environ, "_CURFEW_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")),
            "CURFEW_BOOTSTRAP_SERVERS": servers, "CURFEW_DATA_DIR": str(directory),
        },
    )  # fmt: skip
    return done.stdout.split(), done.stderr


@pytest.mark.kafka
def test_names_of_the_cluster_are_completed(
    curfew: Curfew, kafka: Brokers, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Topics, queues, groups and subscriptions as they are there now."""
    queue, name = unique("q"), unique("s")
    for command in (("topics", "apply"), ("schemas", "apply"), ("queues", "create", queue)):
        assert curfew(*command).code == 0
    file = tmp_path / "subscriptions.toml"
    file.write_text(
        f'[[subscription]]\nname = "{name}"\nqueue = "{queue}"\nforward.queue = "operations"\n', encoding="utf-8"
    )
    applied = curfew("subscriptions", "apply", str(file))
    assert applied.code == 0, applied.err
    curfew("consume", "queue.operations", "--group", unique("g"), "-e")

    asked = {
        f"curfew consume queue.{queue[:8]}": f"queue.{queue}",
        f"curfew queues acl User:x {queue[:8]}": queue,
        f"curfew lag --group {unique('g')[:8]}": unique("g"),
        f"curfew subscriptions show {name[:8]}": name,
    }
    for line, name in asked.items():

        def completed(line: str = line, name: str = name) -> bool:
            """A cluster that is slow completes nothing: then somebody presses Tab again."""
            names, err = complete(line, kafka.bootstrap_servers, tmp_path)
            assert err == ""
            return name in names

        wait_until(completed, f"{line} is completed to {name}")


def test_commands_and_workers_are_completed_without_a_cluster(tmp_path: Path) -> None:
    """They are known here."""
    assert complete("curfew doc", "127.0.0.1:1", tmp_path) == (["doctor"], "")
    assert complete("curfew worker ev", "127.0.0.1:1", tmp_path) == (["events"], "")


def test_where_kafka_is_away_or_silent_nothing_is_completed_and_nothing_said(tmp_path: Path) -> None:
    """A message would be written into the line that somebody types."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        for servers in ("127.0.0.1:1", f"127.0.0.1:{silent.getsockname()[1]}"):
            for line in ("curfew consume q", "curfew subscriptions show c"):
                assert complete(line, servers, tmp_path) == ([], "")
