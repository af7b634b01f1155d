"""The README's first page works as it is written."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.support import pages

#: Twenty-five starts of a command: a minute, or many times as long on a machine that is busy.
TIMEOUT_SECONDS = 540.0


def steps() -> str:
    """The block that the README promises to be tested."""
    readme = (pages.ROOT / "README.md").read_text()
    found = re.search(r"<!-- tests/e2e/test_readme.py.*?-->\n(```sh\n.*?```)", readme, re.S)
    assert found is not None
    return found[1]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
def test_the_steps_of_the_readme_lead_from_an_account_to_a_delivered_event(tmp_path: Path) -> None:
    """Every line succeeds, in the order of the page; the event, the webhook and the ledger are as the page says."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8085)) == 0:
            pytest.skip("port 8085, which the README's receiver uses, is taken on this machine")

    [run] = pages.play(list(pages.commands(steps())), tmp_path, TIMEOUT_SECONDS)

    assert run.code == 0, run.output
    assert "service.state_transitioned" in run.output
    assert "contato@aurora.example" in run.output or "account.email" in run.output, "the event has the parameter"
    assert run.output.split().count("stopped") == 2, "curfew up and curfew dev stop"
