"""Bytes are for ever: what was written once is read as the same, and written as the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.codec import Codec, LocalIds, LocalSchema, LocalSchemas
from streams.codec.compat import field_differences
from streams.codec.golden import Example, examples, read_body
from streams.codec.readable import to_json
from streams.codec.released import changed, release, released
from streams.codec.wire_types import wire_classes
from streams.core.errors import Misconfigured

SCHEMAS = LocalSchemas()
EXAMPLES = list(examples(SCHEMAS))
CLASSES = wire_classes()
VERSIONS = [version for name in SCHEMAS.names() for version in SCHEMAS.versions(name)]


def _case(example: Example) -> str:
    return f"{example.schema.name}-v{example.schema.version}-{example.json.stem}"


def _version(schema: LocalSchema) -> str:
    return f"{schema.name}-v{schema.version}"


@pytest.mark.parametrize("schema", VERSIONS, ids=_version)
def test_every_schema_version_has_an_example(schema: LocalSchema) -> None:
    """A version without a pinned example could change its bytes and nobody would see it."""
    assert any(example.schema == schema for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES, ids=_case)
def test_json_gives_the_pinned_bytes(example: Example) -> None:
    """Writing is pinned."""
    assert example.encoded() == example.avro.read_bytes()


@pytest.mark.parametrize("example", EXAMPLES, ids=_case)
def test_pinned_bytes_give_the_json(example: Example) -> None:
    """Reading is pinned, and the readable form loses nothing."""
    datum = read_body(example.avro.read_bytes(), example.schema, example.schema)

    assert datum == example.datum()
    assert to_json(example.schema.parsed, datum) == to_json(example.schema.parsed, example.datum())


@pytest.mark.parametrize("example", EXAMPLES, ids=_case)
def test_the_newest_version_reads_every_old_one(example: Example) -> None:
    """A topic keeps what old workers wrote."""
    newest = SCHEMAS.newest(example.schema.name)

    datum = read_body(example.avro.read_bytes(), example.schema, newest)

    assert datum.keys() == {field["name"] for field in newest.raw["fields"]}


@pytest.mark.parametrize("example", EXAMPLES, ids=_case)
def test_the_wire_class_keeps_every_byte(example: Example) -> None:
    """Pinned bytes → dataclass → the same bytes: nothing is lost or changed on the way through a worker."""
    ids = LocalIds(SCHEMAS)
    codec = Codec(ids, SCHEMAS)
    cls = CLASSES[example.schema.name.rpartition(".")[2]]
    wire = b"\x00" + ids.id_for("any", example.schema.raw).to_bytes(4, "big") + example.avro.read_bytes()

    written = codec.encode("any", codec.decode(wire, cls))

    if example.schema == SCHEMAS.newest(example.schema.name):
        assert written == wire
    assert codec.decode(written, cls) == codec.decode(wire, cls)


@pytest.mark.parametrize("name", SCHEMAS.names())
def test_versions_of_a_schema_get_along(name: str) -> None:
    """Every version with every earlier one: FULL_TRANSITIVE, before a registry is asked."""
    versions = SCHEMAS.versions(name)

    for number, new in enumerate(versions):
        for old in versions[:number]:
            assert field_differences(old.raw, new.raw) == []


@pytest.mark.parametrize("schema", VERSIONS, ids=_version)
def test_every_record_says_what_it_is(schema: LocalSchema) -> None:
    """Subscribers outside read the registry, not our code."""

    def records(part: object) -> list[dict[str, object]]:
        if isinstance(part, dict):
            inner = [found for value in part.values() for found in records(value)]
            return [part, *inner] if part.get("type") == "record" else inner
        return [found for item in part for found in records(item)] if isinstance(part, list) else []

    assert [record["name"] for record in records(schema.raw) if not record.get("doc")] == []


def test_released_schema_files_are_as_they_were_released() -> None:
    """Somebody outside may have compiled them in."""
    assert changed() == []


def test_a_released_schema_that_is_edited_is_found(tmp_path: Path) -> None:
    """The lock would be worth nothing if it did not notice one changed character, or a file that is gone."""
    lock = tmp_path / "released.lock"
    for name in ("one", "two", "three"):
        (tmp_path / "avro" / name).mkdir(parents=True)
        (tmp_path / "avro" / name / "v1.avsc").write_text(f'{{"name": "{name}"}}')
    release(tmp_path, lock)

    (tmp_path / "avro" / "one" / "v1.avsc").write_text('{"name": "One"}')
    (tmp_path / "avro" / "two" / "v1.avsc").unlink()

    assert changed(tmp_path, lock) == ["avro/one/v1.avsc", "avro/two/v1.avsc"]


def test_a_release_adds_new_files_and_leaves_old_entries_alone(tmp_path: Path) -> None:
    """A second release must not make an edited file legal."""
    lock = tmp_path / "released.lock"
    (tmp_path / "avro" / "a.B").mkdir(parents=True)
    (tmp_path / "avro" / "a.B" / "v1.avsc").write_text("1")
    release(tmp_path, lock)
    before = released(lock)["avro/a.B/v1.avsc"]
    (tmp_path / "avro" / "a.B" / "v1.avsc").write_text("edited")
    (tmp_path / "avro" / "a.B" / "v2.avsc").write_text("2")

    assert release(tmp_path, lock) == ["avro/a.B/v2.avsc"]
    assert released(lock)["avro/a.B/v1.avsc"] == before


def test_an_example_that_does_not_fit_names_file_and_field(tmp_path: Path) -> None:
    """The person who writes an example is told where it is wrong."""
    folder = tmp_path / "curfew.clock.Tick" / "1"
    folder.mkdir(parents=True)
    (folder / "bad.json").write_text('{"epoch": "e", "seq": "one", "now": "2026-03-01T00:00:00Z"}')
    [example] = examples(SCHEMAS, tmp_path)

    with pytest.raises(Misconfigured, match=r"bad\.json: \$\.seq must be a long, not 'one'"):
        example.encoded()
