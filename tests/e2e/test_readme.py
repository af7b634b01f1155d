"""The README's first page works as it is written."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def steps() -> str:
    """The block that the README promises to be tested."""
    found = re.search(r"<!-- tests/e2e/test_readme.py.*?-->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert found is not None
    return found[1]


@pytest.mark.kafka
@pytest.mark.slow
def test_the_steps_of_the_readme_lead_from_an_account_to_a_delivered_event(tmp_path: Path) -> None:
    """Every line succeeds, in the order of the page; the event, the webhook and the ledger are as the page says."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8085)) == 0:
            pytest.skip("port 8085, which the README's receiver uses, is taken on this machine")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    script = tmp_path / "steps.sh"
    # Job control (kill %1) as in the terminal that the README speaks to; a failing line ends the run.
    script.write_text("set -em -o pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; curfew dev stop' ERR\n" + steps())
    outside = {name: value for name, value in os.environ.items() if not name.startswith("CURFEW_")}
    cache = {name: os.environ[name] for name in ("CURFEW_CACHE_DIR", "CURFEW_MAVEN_REPO") if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    result = subprocess.run(
        ["bash", str(script)], cwd=tmp_path, env={**outside, **cache, "PATH": path}, capture_output=True, text=True,
        timeout=280, check=False,
    )  # fmt: skip

    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    assert "service.state_transitioned" in output
    assert "contato@aurora.example" in output or "account.email" in output, "the account's parameter is in the event"
    assert "stopped" in result.stderr
