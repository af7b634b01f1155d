"""docs/example-night.md is true: its commands, as they are written, print what the page says.

After a change of what a command prints: ``python -m tests.e2e.test_example_night`` runs them and writes their outputs
into the page.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.pages import ROOT, Run

PAGE = ROOT / "docs" / "example-night.md"
#: Fifty starts of a command, and a night in between: 90 seconds, or many times as long on a machine that is busy.
TIMEOUT_SECONDS = 540.0


def night(directory: Path) -> list[Run]:
    """Run the page; asserts that every command has succeeded."""
    page = list(pages.commands(PAGE.read_text()))
    runs = pages.play(page, directory, TIMEOUT_SECONDS)
    failed = [(command.text, run.output) for command, run in zip(page, runs, strict=True) if run.code != 0]
    assert not failed, "\n".join(failed[0])
    return runs


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(TIMEOUT_SECONDS + 60)
def test_the_example_night_goes_as_the_page_says(tmp_path: Path) -> None:
    """States, counts, instants and exit codes; what differs from run to run is left out."""
    page = list(pages.commands(PAGE.read_text()))

    runs = night(tmp_path)

    shown = [(command, run) for command, run in zip(page, runs, strict=True) if command.shown is not None]
    assert [(command.text, pages.stable(run.output)) for command, run in shown] == [
        (command.text, pages.stable(command.shown or "")) for command, _ in shown
    ]


def main() -> None:
    """Write the outputs of a run into the page."""
    with tempfile.TemporaryDirectory() as directory:
        runs = night(Path(directory))
    PAGE.write_text(pages.rewritten(PAGE.read_text(), runs))


if __name__ == "__main__":
    main()
