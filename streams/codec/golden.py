"""Golden examples: ``schemas/examples/<full.name>/<version>/<case>.json`` and the Avro body that it has for ever.

``python -m streams.codec.golden`` makes the ``.avro`` file of every new ``.json``. It never overwrites one: bytes that
were once on a topic stay readable, so a pinned file that no longer fits means that the schema or the codec is wrong.
``--scaffold`` first makes two cases, ``full`` and ``empty``, for every schema version that has none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from streams.codec.convert import name_branches
from streams.codec.readable import from_json
from streams.codec.scaffold import example as example_of
from streams.codec.schemas import SCHEMA_ROOT, LocalSchema, LocalSchemas
from streams.core.errors import Misconfigured

EXAMPLES = SCHEMA_ROOT / "examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One case of one schema version; ``avro`` may not exist yet."""

    schema: LocalSchema
    json: Path

    @property
    def avro(self) -> Path:
        return self.json.with_suffix(".avro")

    def datum(self) -> Any:
        """What the JSON says, in fastavro's types; raises Misconfigured naming file and field."""
        try:
            return from_json(self.schema.parsed, json.loads(self.json.read_text(encoding="utf-8")), path="$")
        except ValueError as error:
            raise Misconfigured(f"{self.json}: {error}") from error

    def encoded(self) -> bytes:
        """The Avro body that today's code writes for it."""
        out = BytesIO()
        try:
            schemaless_writer(out, self.schema.parsed, name_branches(self.schema.parsed)(self.datum()))
        except (ValueError, TypeError, OverflowError) as error:
            raise Misconfigured(
                f"{self.json} does not fit {self.schema.name} v{self.schema.version}: {error}"
            ) from error
        return out.getvalue()


def examples(schemas: LocalSchemas, root: Path = EXAMPLES) -> Iterator[Example]:
    """Every case, in the order of the files."""
    for path in sorted(root.glob("*/*/*.json")):
        versions = schemas.versions(path.parts[-3])
        number = path.parts[-2]
        if not number.isdecimal() or not 1 <= int(number) <= len(versions):
            raise Misconfigured(f"{path}: {path.parts[-3]} has the versions 1 to {len(versions)}, and no {number}")
        yield Example(schema=versions[int(number) - 1], json=path)


def read_body(body: bytes, writer: LocalSchema, reader: LocalSchema) -> Any:
    """An Avro body written with one version, read with another (or the same); raises fastavro's errors."""
    return schemaless_reader(BytesIO(body), writer.parsed, None if writer == reader else reader.parsed)


def scaffold(schemas: LocalSchemas, root: Path = EXAMPLES) -> list[Path]:
    """Make ``full.json`` and ``empty.json`` where a schema version has no example; returns what was made."""
    made = []
    for schema in (version for name in schemas.names() for version in schemas.versions(name)):
        folder = root / schema.name / str(schema.version)
        if any(folder.glob("*.json")):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for case, full in (("full", True), ("empty", False)):
            path = folder / f"{case}.json"
            text = json.dumps(example_of(schema.parsed, full=full), indent=2, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
            made.append(path)
    return made


def main() -> int:
    made = 0
    try:
        if "--scaffold" in sys.argv[1:]:
            for path in scaffold(LocalSchemas()):
                print(f"made {path}: make it read like a real one")
        for example in examples(LocalSchemas()):
            if not example.avro.exists():
                example.avro.write_bytes(example.encoded())
                print(f"made {example.avro}")
                made += 1
            elif example.avro.read_bytes() != example.encoded():
                print(
                    f"{example.avro} is pinned and differs from its JSON: make a new case, keep this one",
                    file=sys.stderr,
                )
                return 1
    except Misconfigured as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{made} made; those that were there stay as they are")
    return 0


if __name__ == "__main__":
    sys.exit(main())
