"""``docs/settings.md`` from the settings: name, variable, type, default, meaning. ``make docs`` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import msgspec
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from streams.settings import Settings

HEAD = """\
# Settings

<!-- Written by `make docs` from streams/settings.py; do not edit. -->

Every command and every worker reads the same settings once, when it starts. Give one as an environment variable, or
without the prefix and in small letters in `curfew.toml` in the directory where the process starts. An option of a
command wins over the environment, the environment over the file. Without both, the brokers and the registry are those
that `curfew dev start` runs in this directory, if it does; then the default counts.

Lists and tables are JSON in the environment (`CURFEW_WEBHOOK_SECRETS='["env:PARTNER_*"]'`) and TOML in the file. Of
a *secret* neither a log nor an error shows the value; give it as environment, from whatever keeps secrets where you
run it. Where Curfew is deployed, set `CURFEW_ENVIRONMENT=production` ([security.md](security.md)).

"""


def page() -> str:
    """The whole page, ending with one new line."""
    return HEAD + "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "| setting | variable | type | default | meaning |"
    yield "|---|---|---|---|---|"
    prefix = Settings.model_config.get("env_prefix", "")
    for name, field in Settings.model_fields.items():
        cells = (f"`{name}`", f"`{prefix}{name.upper()}`", _type(field.annotation), _default(field), field.description)
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _type(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        [one] = [part for part in inner if part is not NoneType]
        return _type(one)
    if origin is tuple:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"table, text to {_type(inner[1])}"
    if issubclass(annotation, StrEnum):
        return "one of " + ", ".join(f"`{value}`" for value in annotation)
    return {str: "text", bool: "true or false", int: "whole number", Path: "path", SecretStr: "secret"}[annotation]


def _default(field: FieldInfo) -> str:
    """What counts when nobody says anything; of a secret never more than that there is none."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if value is None or (isinstance(value, Sequence | Mapping) and not value):
        return "none"
    if "secret" in _type(field.annotation):
        return "set"
    return f"`{value}`" if isinstance(value, str | Path) else f"`{msgspec.json.encode(value).decode()}`"
