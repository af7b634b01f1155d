"""Every command in the documentation exists, with its options: at night nobody wants to look for the right one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from agents.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md", ROOT / "docker/README.md"]
#: What typer adds to the root, and Click to all.
ALWAYS = {"--help", "--install-completion", "--show-completion"}
_BLOCK = re.compile(r"```(?:sh|console)\n(.*?)```", re.S)
#: At the beginning of a line, after a prompt, or behind another command.
_IN_BLOCK = re.compile(r"(?:^|[|&;({] *|^[$>] +)(?=(curfew [^\n]*))", re.M)
_IN_TEXT = re.compile(r"`(curfew\s[^`]+)`")


def commands(page: str) -> Iterator[str]:
    """Those in blocks of a shell, and those between backquotes in the text."""
    for block in _BLOCK.findall(page):
        yield from _IN_BLOCK.findall(block.replace("\\\n", " "))
    for command in _IN_TEXT.findall(re.sub(r"```.*?```", "", page, flags=re.S)):
        yield " ".join(command.split())


def problem(command: str) -> str | None:
    """What is wrong with a command; None if it and its options exist. Values are not looked at."""
    found: Any = typer.main.get_command(app)
    context = found.context_class(found, info_name="curfew")
    words = _own(command)
    while hasattr(found, "get_command") and words and not words[0].startswith("-"):
        inner = found.get_command(context, words[0])
        if inner is None:
            return f"there is no command {words[0]!r}"
        words.pop(0)
        found, context = inner, inner.context_class(inner, parent=context)
    known = {flag for one in found.get_params(context) for flag in (*one.opts, *one.secondary_opts)} | ALWAYS
    options = (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word))
    unknown = [option for option in options if option not in known]
    return f"there is no option {', '.join(unknown)}" if unknown else None


def _own(command: str) -> list[str]:
    """Its words up to where the shell takes over."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if word and word[0] in "();<>|&":
            break
        words.append(word)
    return words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    """In every page; files, names and values are not looked at."""
    found = {one: problem(one) for one in commands(page.read_text(encoding="utf-8"))}

    assert {one: wrong for one, wrong in found.items() if wrong is not None} == {}


def test_commands_are_found_wherever_a_page_has_them() -> None:
    """And a wrong one is not taken for a right one."""
    page = """
`curfew topics nothing`, and `curfew
lag --nothing`

```sh
curfew lag --group x --every-day  # --comment
printf x | curfew produce --sideways t < file; curfew ledger --nowhere && true
curfew topics list > --file
```
"""

    assert {one for command in commands(page) if (one := problem(command)) is not None} == {
        "there is no command 'nothing'", "there is no option --nothing", "there is no option --every-day",
        "there is no option --sideways", "there is no option --nowhere",
    }  # fmt: skip
