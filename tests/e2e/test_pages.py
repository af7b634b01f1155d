"""Pages are really run, and one that lies is found."""

from __future__ import annotations

from pathlib import Path

from tests.support import pages

PAGE = """
```sh
name=world
```
```console
$ echo "hello $name" |
>   cat
hello moon
$ false; echo "exit code $?"
exit code 1
```
Text.
```sh
false
true
```
```sh
echo never
```
"""


def test_a_page_is_run_in_one_shell_until_something_fails(tmp_path: Path) -> None:
    """What is written may differ from what is printed: then it can be compared, and corrected."""
    page = list(pages.commands(PAGE))

    runs = pages.play(page, tmp_path, timeout_seconds=60.0)

    assert [(run.code, run.output) for run in runs] == [
        (0, ""), (0, "hello world\n"), (0, "exit code 1\n"), (None, ""), (None, ""),
    ]  # fmt: skip
    told = [command for command, run in zip(page, runs, strict=True) if _differ(command, run)]
    assert told == [page[1]]
    assert pages.rewritten(PAGE, runs) == PAGE.replace("hello moon", "hello world")


def _differ(command: pages.Command, run: pages.Run) -> bool:
    return pages.stable(command.shown or "") != pages.stable(run.output)


def test_what_differs_from_run_to_run_is_no_difference() -> None:
    """Widths of tables, milliseconds, how long a clock has been silent."""
    one = " a   ms    left \n ───────────\n x   12.5   5.00 \n\nnow  no tick for 17 s  next"
    other = "a ms left\n──\nx 3.1 5.00\nnow  next"

    assert pages.stable(one) == pages.stable(other)
    assert pages.stable(one) != pages.stable(other.replace("5.00", "6.00"))
