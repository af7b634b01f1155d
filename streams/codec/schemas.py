"""The Avro schemas of this installation: ``schemas/avro/<full.name>/v<N>.avsc``, read once."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from fastavro import parse_schema

import schemas as schema_data
from streams.core.errors import Misconfigured

SCHEMA_ROOT = Path(schema_data.__file__).parent
_VERSION_FILE = re.compile(r"v([1-9][0-9]*)\.avsc")


@dataclass(frozen=True)
class LocalSchema:
    """One version of one schema; ``raw`` is the file's JSON, ``parsed`` what fastavro works with."""

    name: str
    version: int
    raw: dict[str, Any]

    @property
    def text(self) -> str:
        """The exact text that is registered and looked up; its order is the file's, so that docs stay readable."""
        return schema_text(self.raw)

    @cached_property
    def parsed(self) -> dict[str, Any]:
        return parse(self.raw)


class LocalSchemas:
    """All schemas under ``root``; a folder per full name, versions from v1 without gaps."""

    def __init__(self, root: Path = SCHEMA_ROOT / "avro") -> None:
        self.root = root
        self._versions = {path.name: _load(path) for path in sorted(root.iterdir()) if path.is_dir()}
        self._by_simple_name: dict[str, list[str]] = {}
        for name in self._versions:
            self._by_simple_name.setdefault(name.rpartition(".")[2], []).append(name)

    def names(self) -> list[str]:
        return list(self._versions)

    def versions(self, name: str) -> tuple[LocalSchema, ...]:
        """All versions, oldest first; raises Misconfigured when there is no such schema."""
        try:
            return self._versions[name]
        except KeyError:
            raise Misconfigured(f"there is no schema {name!r}: add {self.root / name}/v1.avsc") from None

    def newest(self, name: str) -> LocalSchema:
        return self.versions(name)[-1]

    def name_of(self, cls: type) -> str:
        """Full name for a wire dataclass: the one schema whose last name is the class's name."""
        found = self._by_simple_name.get(cls.__name__, [])
        if len(found) == 1:
            return found[0]
        if not found:
            raise Misconfigured(
                f"the class {cls.__qualname__} has no schema: add {self.root}/<namespace>.{cls.__name__}/v1.avsc"
            )
        raise Misconfigured(
            f"the class {cls.__qualname__} fits several schemas, rename all but one: {', '.join(found)}"
        )


def schema_text(raw: dict[str, Any]) -> str:
    """Compact JSON in the order of the file."""
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)


def schema_hash(raw: dict[str, Any]) -> bytes:
    """SHA-256 that does not depend on white space or the order of keys."""
    return hashlib.sha256(json.dumps(raw, separators=(",", ":"), sort_keys=True).encode()).digest()


def parse(raw: dict[str, Any]) -> dict[str, Any]:
    """Parse for fastavro, without writing into its process-wide table of names."""
    return cast("dict[str, Any]", parse_schema(raw, named_schemas={}))


def named_types(schema: Any) -> dict[str, dict[str, Any]]:
    """Every record, enum and fixed inside ``schema``, by its full and its last name: later uses say only the name."""
    found: dict[str, dict[str, Any]] = {}
    _collect(schema, "", found)
    return found


def _collect(schema: Any, namespace: str, found: dict[str, dict[str, Any]]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, namespace, found)
    if not isinstance(schema, dict):
        return
    if schema["type"] in ("record", "enum", "fixed"):
        above, _, last = schema["name"].rpartition(".")
        namespace = above or schema.get("namespace", namespace)
        found[last] = found[f"{namespace}.{last}" if namespace else last] = schema
    for inner in (schema["type"], schema.get("items"), schema.get("values")):
        _collect(inner, namespace, found)
    for field in schema.get("fields", ()):
        _collect(field["type"], namespace, found)


def _load(folder: Path) -> tuple[LocalSchema, ...]:
    found: dict[int, LocalSchema] = {}
    for path in folder.glob("*.avsc"):
        match = _VERSION_FILE.fullmatch(path.name)
        if match is None:
            raise Misconfigured(f"{path}: schema files are called v1.avsc, v2.avsc, …; rename it")
        found[int(match[1])] = LocalSchema(folder.name, int(match[1]), _read(path))
    if sorted(found) != list(range(1, len(found) + 1)):
        raise Misconfigured(f"{folder}: versions must be v1 to v{len(found)} without gaps, found {sorted(found)}")
    return tuple(found[version] for version in sorted(found))


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        parse(raw)
    except Exception as error:  # fastavro has a dozen ways to refuse a schema
        raise Misconfigured(f"{path} is not an Avro schema: {type(error).__name__}: {error}") from error
    name = f"{raw.get('namespace')}.{raw.get('name')}" if raw.get("namespace") else raw.get("name")
    if name != path.parent.name:
        raise Misconfigured(f"{path} describes {name!r}: its folder must have the record's full name")
    return dict(raw)
