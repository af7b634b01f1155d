"""docs/plan-change-requests.md is true: its program and the commands that it names, on a running application."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.curfew import Curfew
from tests.e2e.application import Application, curfew_command, now
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

#: A person does not wait for so long; a test on a busy machine does.
PATIENTLY = ("--wait", "--timeout", "200")
PAGE = (Path(__file__).parents[2] / "docs" / "plan-change-requests.md").read_text()


@pytest.fixture(scope="module")
def order(application: Application, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs the page's program with other software's client; returns its exit code and what it printed."""
    example = re.search(r"<!-- tests/e2e/test_plan_change_requests.py.*?-->\n```python\n(.*?)```", PAGE, re.S)
    assert example is not None
    script = tmp_path_factory.mktemp("crm") / "order.py"
    script.write_text(example[1])
    places = {
        "KAFKA": application.settings.bootstrap_servers,
        "REGISTRY": application.settings.schema_registry_url,
    }

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(script), *arguments], env={**os.environ, **places},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    return run


def knows(application: Application, account_id: str, *service_ids: str) -> None:
    application.know(dict.fromkeys(service_ids, account_id))
    application.settle()


def test_the_program_of_the_page_orders_and_gets_its_reply(
    application: Application, order: Any, curfew: Curfew
) -> None:
    """What was offered is what is got; asked again it is the same answer; another order is refused with its reason."""
    knows(application, "crm-1", "crm-1-a")
    about = ("crm-1-a", "--account", "crm-1", "--channel", "crm", "-f", "json")
    before = json.loads(curfew("plan-changes", "eligible", *about).out)
    dry = curfew("plan-changes", "dry-run", "--element", "basic-to-plus", *about)

    code, reply = order("crm-1", "crm-1-a", "basic-to-plus", "R1")
    again = order("crm-1", "crm-1-a", "basic-to-plus", "R1")
    other = order("crm-1", "crm-1-a", "basic-to-plus", "R2")

    offered = next(one for one in before["elements"] if one["element"] == "basic-to-plus")
    assert (code, reply["accepted"], reply["reasons"]) == (0, True, [])
    assert again == (code, reply)
    assert (other[0], other[1]["reasons"], other[1]["revision"]) == (1, ["open_change"], 1)
    assert offered["accepted"] is True
    assert reply["deadline_at"] == offered["deadline_at"].replace("T", " ").replace("Z", "+00:00")
    assert dry.code == 0, dry.err
    [planned] = json.loads(dry.out)["changes"]
    assert (planned["deadline_at"], planned["outcome"]["to_rate_plan_id"]) == (offered["deadline_at"], "plus")


def _pending(curfew: Curfew, day: str) -> int:
    """How many changes of accounts in São Paulo the board shows as pending for ``day``."""
    lines = json.loads(curfew("plan-changes", "board", "--once", "-f", "json").out)["lines"]
    zone = "America/Sao_Paulo"
    return sum(one["pending"] for one in lines if (one["effective_date"], one["zone"]) == (day, zone))


def test_a_pending_change_is_seen_by_eligible_dry_run_and_board(application: Application, curfew: Curfew) -> None:
    """From the rows that the workers really write; the billing store is not touched."""
    knows(application, "crm-2", "crm-2-a")
    day = f"{now() + timedelta(days=30):%Y-%m-%d}"  # pends, whatever the time of day: its lead is a week
    pending = _pending(curfew, day)  # other tests have changes of that night
    ordered = curfew(
        "plan-changes", "order", "crm-2-a", "at-once", "--account", "crm-2", "--channel", "crm", *PATIENTLY,
        "--date", day,
    )  # fmt: skip
    application.settle()
    before = [application.store.plan("crm-2-a"), len(list(application.store.changes()))]

    eligible = curfew("plan-changes", "eligible", "crm-2-a", "--account", "crm-2", "--channel", "crm", "-f", "json")
    dry = curfew("plan-changes", "dry-run", "crm-2-a", "--account", "crm-2", "-f", "json")
    board = curfew("plan-changes", "board", "--once", "-f", "json")

    assert ordered.code == 0, ordered.err
    answer = json.loads(eligible.out)
    assert (answer["open_change"]["state"], answer["elements"][0]["accepted"]) == ("pending", False)
    [change] = json.loads(dry.out)["changes"]
    assert change["outcome"]["options_created"] == ["roaming"]
    assert [application.store.plan("crm-2-a"), len(list(application.store.changes()))] == before
    assert change["deadline_at"].startswith(day)
    assert _pending(curfew, day) == pending + 1
    assert json.loads(board.out)["clock_has_ticked"] is True


def test_a_repair_of_a_healthy_change_is_refused_in_words(application: Application, curfew: Curfew) -> None:
    """By the real service's partition."""
    knows(application, "crm-3", "crm-3-a")

    found = curfew("plan-changes", "resolve", "crm-3-a", "--account", "crm-3", "--abandon", *PATIENTLY)

    assert found.code == 1
    assert "nothing_to_repair: no change of this service has failed or is held" in found.out


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal of 200 columns: (what a person sees, what a program writes to)."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    os.set_blocking(ours, False)
    yield ours, theirs
    os.close(ours)


def test_on_a_terminal_the_board_is_live(application: Application, terminal: tuple[int, int], curfew: Curfew) -> None:
    """An order that comes while somebody watches is on the screen; Ctrl-C ends it as it should."""
    knows(application, "crm-4", "crm-4-a")
    ours, theirs = terminal
    day = f"{now() + timedelta(days=3):%Y-%m-%d}"
    process = subprocess.Popen(
        curfew_command("plan-changes", "board", "--zone", "America/Sao_Paulo", "--every", "0.2"),
        env={**os.environ, **application.env, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs,
        cwd=application.directory,
        # As from a terminal: what is started in the background of a script has SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    os.close(theirs)
    seen = b""

    def shows(text: str) -> bool:
        nonlocal seen
        with suppress(OSError):  # nothing to read yet, or the program has left the terminal
            seen += os.read(ours, 1 << 16)
        return text.encode() in seen

    try:
        wait_until(lambda: shows("next deadline") or shows("no deadline"), "the board is on the screen")
        seen = b""
        ordered = curfew(
            "plan-changes", "order", "crm-4-a", "at-once", "--account", "crm-4", "--channel", "crm", *PATIENTLY,
            "--date", day,
        )  # fmt: skip
        assert ordered.code == 0, ordered.err
        wait_until(lambda: shows(day), "the new date is on the screen")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: shows("never") or process.poll() is not None, "it ended")
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 0
    assert b"Traceback" not in seen
