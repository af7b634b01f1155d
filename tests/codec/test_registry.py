"""The codec and the registration of schemas against a real registry."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agents.embedded.ports import free_port
from streams.codec import Codec, LocalSchemas, Registry, wait_for_registry
from streams.codec.registration import Standing, check, register_all
from streams.core.clock import Tick
from streams.core.errors import Misconfigured, Poison, Transient
from tests.support.brokers import Brokers

pytestmark = pytest.mark.kafka

NAME = "curfew.clock.Tick"
TICK = Tick(epoch="e", seq=1, now=datetime(2026, 3, 1, tzinfo=UTC))


@pytest.fixture
def registry(kafka: Brokers) -> Registry:
    return Registry(kafka.schema_registry_url)


def _schemas(root: Path, *changes: Callable[[dict[str, Any]], None]) -> LocalSchemas:
    """The tick's schema as v1, and one more version per change, each upon the one before."""
    raw = copy.deepcopy(LocalSchemas().newest(NAME).raw)
    (root / NAME).mkdir(parents=True, exist_ok=True)
    (root / NAME / "v1.avsc").write_text(json.dumps(raw))
    for number, change in enumerate(changes, 2):
        change(raw)
        (root / NAME / f"v{number}.avsc").write_text(json.dumps(raw))
    return LocalSchemas(root)


def _add_optional(raw: dict[str, Any]) -> None:
    raw["fields"].append({"name": "note", "type": ["null", "string"], "default": None})


def _add_required(raw: dict[str, Any]) -> None:
    raw["fields"].append({"name": "zone", "type": "string"})


def test_what_is_registered_is_written_and_read(registry: Registry, unique: Callable[[str], str]) -> None:
    """The id on the wire is the registry's."""
    topic = unique("ticks")
    register_all(registry, {f"{topic}-value": NAME})

    value = Codec(registry).encode(topic, TICK)

    assert int.from_bytes(value[1:5], "big") == registry.id_for(f"{topic}-value", LocalSchemas().newest(NAME).raw)
    assert Codec(Registry(registry.url)).decode(value, Tick) == TICK


def test_a_schema_that_is_not_registered_is_never_registered_by_a_writer(
    registry: Registry, unique: Callable[[str], str]
) -> None:
    """A typo in a topic's name must not make a subject; the message says what to run."""
    with pytest.raises(Misconfigured, match="curfew schemas apply"):
        Codec(registry).encode(unique("nobody"), TICK)

    assert f"{unique('nobody')}-value" not in registry.subjects()


def test_an_id_that_the_registry_never_gave_is_poison(registry: Registry) -> None:
    """One foreign record goes to the dead letters; it is no reason to stop."""
    with pytest.raises(Poison) as caught:
        Codec(registry).decode(b"\x00\x7f\xff\xff\xff\x02a", Tick)

    assert caught.value.reason == "unknown_schema_id"


def test_what_is_known_is_not_asked_again(kafka: Brokers, unique: Callable[[str], str]) -> None:
    """Ids never change their meaning: a running worker survives a registry that is down."""
    registry = Registry(kafka.schema_registry_url)
    topic = unique("ticks")
    register_all(registry, {f"{topic}-value": NAME})
    codec = Codec(registry)
    value = codec.encode(topic, TICK)
    codec.decode(value, Tick)

    registry._client.close()  # from here on every request would fail

    assert codec.decode(codec.encode(topic, TICK), Tick) == TICK


def test_registering_twice_changes_nothing(registry: Registry, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Every deployment runs it."""
    subject = f"{unique('t')}-value"
    schemas = _schemas(tmp_path, _add_optional)

    first = register_all(registry, {subject: NAME}, schemas)
    second = register_all(registry, {subject: NAME}, schemas)

    assert [one.standing for one in (*first, *second)] == [Standing.NEW, Standing.UNCHANGED]
    assert registry.versions(subject) == [version.raw for version in schemas.versions(NAME)]
    assert registry.compatibility(subject) == "FULL_TRANSITIVE"


def test_a_version_that_fits_is_compatible(registry: Registry, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Check says so before apply does it."""
    subject = f"{unique('t')}-value"
    register_all(registry, {subject: NAME}, _schemas(tmp_path / "old"))

    found = check(registry, subject, NAME, _schemas(tmp_path / "new", _add_optional))

    assert (found.standing, found.version, found.reasons) == (Standing.COMPATIBLE, 2, ())


def test_an_incompatible_version_is_named_with_field_and_reason_and_not_registered(
    registry: Registry, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Nothing at all is registered, not even what would fit: a deployment is whole or is not."""
    subject, other = f"{unique('t')}-value", f"{unique('other')}-value"
    register_all(registry, {subject: NAME}, _schemas(tmp_path / "old"))
    bad = _schemas(tmp_path / "new", _add_required)

    found = check(registry, subject, NAME, bad)
    with pytest.raises(Misconfigured, match=r"Tick\.zone: added without a default"):
        register_all(registry, {other: NAME, subject: NAME}, bad)

    assert found.standing is Standing.INCOMPATIBLE
    assert any("Tick.zone: added without a default" in reason for reason in found.reasons)
    assert any(reason.startswith("registry:") for reason in found.reasons)
    assert len(registry.versions(subject)) == 1
    assert registry.versions(other) == []


def test_a_change_against_an_old_version_is_found_too(
    registry: Registry, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Transitive: v3 gets along with v2 and not with v1, whose records are still in the topic."""
    subject = f"{unique('t')}-value"

    def remove_note(raw: dict[str, Any]) -> None:
        raw["fields"] = [field for field in raw["fields"] if field["name"] != "note"]

    def add_note_of_another_type(raw: dict[str, Any]) -> None:
        raw["fields"].append({"name": "note", "type": ["null", "long"], "default": None})

    register_all(registry, {subject: NAME}, _schemas(tmp_path / "old", _add_optional, remove_note))

    found = check(
        registry, subject, NAME, _schemas(tmp_path / "new", _add_optional, remove_note, add_note_of_another_type)
    )

    assert found.standing is Standing.INCOMPATIBLE
    assert any(reason.startswith("version 2: Tick.note: it may now be long") for reason in found.reasons)


def test_a_registry_that_is_down_is_transient_and_named() -> None:
    """The caller retries with back-off; the person who reads the log sees which URL."""
    url = f"http://127.0.0.1:{free_port()}/apis"

    with pytest.raises(Transient, match=url):
        Codec(Registry(url)).decode(b"\x00\x00\x00\x00\x01\x02a", Tick)


@pytest.fixture
def no_registry() -> Iterator[str]:
    """A web server that answers everything with a page."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_web_server_that_is_no_registry_poisons_no_record(no_registry: str) -> None:
    """A wrong URL must not send a whole topic to the dead letters."""
    with pytest.raises(Transient, match="does not answer like a schema registry"):
        Codec(Registry(no_registry)).decode(b"\x00\x00\x00\x00\x01\x02a", Tick)


def test_waiting_for_a_registry_says_so_and_ends(registry: Registry) -> None:
    """A worker that starts first says what it waits for, and does not wait for ever."""
    lines: list[str] = []

    wait_for_registry(registry, 5.0, lines.append)
    assert lines == []

    with pytest.raises(Transient):
        wait_for_registry(Registry(f"http://127.0.0.1:{free_port()}"), 0.4, lines.append)
    assert lines
    assert "waiting for the registry" in lines[0]
