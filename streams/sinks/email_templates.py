"""Templates of e-mails: ``NAME.txt`` and, if it is there, ``NAME.html`` in the directory that the settings declare.

A subscription names a template and never holds one: whoever can write the topic of subscriptions must not be able to
run code or read files of the worker. Templates are Jinja2's, sandboxed, HTML escaped. They see ``event`` (``type``,
``event_id``, ``subject_kind``, ``subject_id``, ``account_id``, ``occurred_at``, ``sequence``), the parameters by their
names (``{{ invoice.number }}``) and all together (``parameters``), and ``facts``, ``current``, ``previous``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, meta, nodes, select_autoescape
from jinja2.sandbox import ImmutableSandboxedEnvironment

from streams.core.errors import Misconfigured
from streams.core.events import Event, Value, plain
from streams.core.ids import instant_text

#: What comes with Curfew: ``event``, which shows what every event has and all parameters.
BUILT_IN: Final = Path(__file__).parent / "templates"
#: Names in a template that are no objects of parameters.
OURS: Final = frozenset({"event", "facts", "current", "previous", "parameters"})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Templates:
    """The templates of ``directory`` (if any) and the built-in ones; the directory's win."""

    def __init__(self, directory: Path | None) -> None:
        self._directories = [BUILT_IN] if directory is None else [directory, BUILT_IN]
        self._environment = ImmutableSandboxedEnvironment(
            loader=FileSystemLoader(self._directories),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def names(self) -> list[str]:
        """The templates that there are."""
        found = {path.stem for directory in self._directories for path in directory.glob("*.txt")}
        return sorted(name for name in found if _NAME.fullmatch(name))

    def uses(self) -> dict[str, frozenset[str]]:
        """Template → the parameters that it names; a whole object that it names without a field is ``object.``.

        Raises Misconfigured, with file and line, for one that cannot be parsed.
        """
        return {name: frozenset(self._uses(name)) for name in self.names()}

    def _uses(self, name: str) -> Iterator[str]:
        for file in (f"{name}.txt", f"{name}.html"):
            try:
                source, path, _ = self._environment.loader.get_source(self._environment, file)  # type: ignore[union-attr]
            except TemplateNotFound:
                continue
            try:
                tree = self._environment.parse(source, name, path)
            except TemplateError as error:
                raise Misconfigured(f"{path}, line {getattr(error, 'lineno', '?')}: {error}") from error
            objects = meta.find_undeclared_variables(tree) - OURS
            fields = {
                (node.node.name, node.attr)
                for node in tree.find_all(nodes.Getattr)
                if isinstance(node.node, nodes.Name)
            }
            yield from (f"{base}.{field}" for base, field in fields if base in objects)
            yield from (f"{one}." for one in objects - {base for base, _ in fields})

    def render(
        self, name: str, event: Event, shown: Mapping[str, Value], others: Mapping[str, Value]
    ) -> tuple[str, str | None]:
        """(text, HTML or None) with the parameters ``shown``; ``others`` are there by their names only.

        Raises TemplateNotFound, or another TemplateError, for a template that does not fit.
        """
        if not _NAME.fullmatch(name):
            raise TemplateNotFound(name)
        variables = _variables(event, shown, others)
        plain = self._environment.get_template(f"{name}.txt").render(variables)
        try:
            template = self._environment.get_template(f"{name}.html")
        except TemplateNotFound:
            return plain, None
        return plain, template.render(variables)


def _variables(event: Event, shown: Mapping[str, Value], others: Mapping[str, Value]) -> dict[str, Any]:
    objects: dict[str, dict[str, Any]] = {}
    for name, value in (*others.items(), *shown.items()):
        base, _, field = name.partition(".")
        objects.setdefault(base, {})[field] = plain(value)
    return {
        **objects,
        "parameters": {name: plain(value) for name, value in shown.items()},
        "facts": {name: plain(value) for name, value in event.facts.items()},
        "current": {name: plain(value) for name, value in (event.current or {}).items()},
        "previous": {name: plain(value) for name, value in (event.previous or {}).items()},
        "event": {
            "type": event.type,
            "event_id": event.event_id,
            "subject_kind": event.subject_kind,
            "subject_id": event.subject_id,
            "account_id": event.account_id,
            "occurred_at": instant_text(event.occurred_at),
            "sequence": event.sequence,
        },
    }


def _shown(value: Any) -> Any:
    """What is not known is an empty place, not the word None."""
    return "" if value is None else value
