"""Pages of the documentation are run as they are written: their commands in one shell, as an operator would.

A ``sh`` block has to succeed, line by line. In a ``console`` block a line that begins with ``$`` is a command, ``>``
continues it, and up to the next one is what it prints.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"```(sh|console)\n(.*?)```", re.S)
# Job control (kill %1) as in the terminal that pages speak to; whatever ends the script ends what it started.
_BEFORE = "set -m -o pipefail\ntrap 'set +e; kill $(jobs -p) 2>/dev/null; wait; curfew dev stop >/dev/null' EXIT\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """``text`` may have several lines. ``shown`` is the output on the page; None: the page shows none."""

    text: str
    shown: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a command has printed to both streams, and its exit code; None: the shell did not survive it."""

    code: int | None
    output: str


def commands(text: str) -> Iterator[Command]:
    """The commands of the page ``text``, in order."""
    for kind, body in _BLOCK.findall(text):
        if kind == "sh":
            yield Command(text=body.rstrip(), shown=None)
            continue
        for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
            first, *rest = part.splitlines()
            more = [line for line in rest if line.startswith("> ")]
            typed = "\n".join([first, *(line.removeprefix("> ") for line in more)])
            yield Command(text=typed, shown="\n".join(rest[len(more) :]))


def play(page: list[Command], directory: Path, timeout_seconds: float) -> list[Run]:
    """Run the commands in one shell, in ``directory`` with a copy of docs/ in it; ends at the first that fails."""
    shutil.copytree(ROOT / "docs", directory / "docs")
    runs = directory / "runs"
    runs.mkdir()
    script = directory / "page.sh"
    script.write_text(_BEFORE + "".join(_wrapped(one, runs / str(number)) for number, one in enumerate(page)))
    outside = {name: value for name, value in os.environ.items() if not name.startswith("CURFEW_")}
    cache = {name: os.environ[name] for name in ("CURFEW_CACHE_DIR", "CURFEW_MAVEN_REPO") if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (directory / "page.out").open("wb") as output:
        shell = subprocess.Popen(
            ["bash", str(script)], cwd=directory, env={**outside, **cache, "PATH": path}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=output,
        )  # fmt: skip
        try:
            shell.wait(timeout_seconds)
        finally:
            if shell.poll() is None:
                _end(shell.pid, directory)
    return [_result(runs / str(number)) for number in range(len(page))]


def stable(output: str) -> list[str]:
    """Lines without what differs from run to run: the width of tables, milliseconds, how long a clock is silent."""
    text = re.sub(r"  no tick for \d+ s", "", re.sub(r"\b\d+\.\d\b", "#", output))
    lines = (re.sub(r"[ ─]+", " ", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def rewritten(text: str, runs: list[Run]) -> str:
    """The page ``text`` with the outputs of ``runs`` in its console blocks."""
    outputs = iter(runs)

    def block(found: re.Match[str]) -> str:
        made = []
        for command in commands(found[0]):
            output = next(outputs).output
            if command.shown is not None:
                # Tables begin and end with an empty line: one is enough, and none before the next prompt.
                lines = "\n".join(line.rstrip() for line in output.splitlines())
                printed = re.sub(r"\n{3,}", "\n\n", lines).strip("\n")
                made.append("$ " + command.text.replace("\n", "\n> ") + (f"\n{printed}" if printed else "") + "\n")
        return "```console\n" + "".join(made) + "```" if made else found[0]

    return _BLOCK.sub(block, text)


def _wrapped(command: Command, name: Path) -> str:
    strict = ("set -e\n", "\nset +e") if command.shown is None else ("", "")
    return (
        f"{{ {strict[0]}{command.text}{strict[1]}\n}} >{name}.out 2>&1\n"
        f"code=$?; echo $code >{name}.code; [ $code = 0 ] || exit\n"
    )


def _result(name: Path) -> Run:
    code, output = name.with_suffix(".code"), name.with_suffix(".out")
    return Run(
        code=int(code.read_text()) if code.exists() else None,
        output=output.read_text(errors="replace") if output.exists() else "",
    )


def _end(pid: int, directory: Path) -> None:
    """The shell and all that it has started, and the stack, which is nobody's child."""
    for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
        process.kill()
    for state in directory.rglob("dev/state.json"):
        stop = [sys.executable, "-m", "agents.cli.main", "dev", "stop", "--data-dir", str(state.parent)]
        subprocess.run(stop, check=False, cwd=ROOT)
