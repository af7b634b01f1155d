"""The schema registry, asked once per schema, and a stand-in for benches and unit tests that needs none."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from authlib.deprecate import AuthlibDeprecationWarning  # type: ignore[import-untyped]

with warnings.catch_warnings():
    # the registry's client imports a module of authlib that warns on every start about a dependency of its own
    warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, ServerConfig
    from confluent_kafka.schema_registry.common._httpx_compat import httpx  # the HTTP library that the client chose
    from confluent_kafka.schema_registry.error import SchemaRegistryError

from streams.codec.schemas import LocalSchemas, schema_hash, schema_text
from streams.core.errors import Fatal, Misconfigured, Poison, Transient

#: Longer, and a registry that hangs stops a partition past its session timeout of 15 s; shorter, and one that shares
#: two cores with nine starting workers is taken for dead.
REQUEST_TIMEOUT_S = 10.0
UNKNOWN_ID_MEMORY_S = 10.0  # without it a flood of foreign records would be one HTTP request each
NOT_FOUND = {40401, 40402, 40403}  # Confluent's error codes for subject, version, schema
COMPATIBILITY = "FULL_TRANSITIVE"  # old and new readers, old and new records, deployed in any order

T = TypeVar("T")


class Registry:
    """A registry that speaks the Confluent API at ``url``; ids are kept for ever, they never change their meaning.

    Every call raises :class:`Transient`, naming the URL, when the registry does not answer; it does not retry itself.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            # the caller has the back-off: the client's own would sleep inside the event loop
            self._client = SchemaRegistryClient({"url": url, "timeout": REQUEST_TIMEOUT_S, "max.retries": 0})
        except ValueError as error:
            raise Misconfigured(f"schema_registry_url {url!r} is not a URL: {error}") from error
        self._ids: dict[tuple[str, bytes], int] = {}
        self._schemas: dict[int, dict[str, Any]] = {}
        self._unknown: dict[int, float] = {}

    def id_for(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of ``schema`` in ``subject``; raises Misconfigured when it has not been registered there."""
        key = (subject, schema_hash(schema))
        if key not in self._ids:
            found = self._ask(lambda: self._client.lookup_schema(subject, _avro(schema)))
            if found is None:
                raise Misconfigured(
                    f"the registry {self.url} does not know our schema of {subject}: run `curfew schemas apply`"
                )
            self._ids[key] = int(found.schema_id or 0)
        return self._ids[key]

    def schema_for(self, schema_id: int) -> dict[str, Any]:
        """The writer schema; raises Poison("unknown_schema_id") when the registry never gave this id."""
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        now = time.monotonic()
        if self._unknown.get(schema_id, now) <= now:
            found = self._ask(lambda: self._client.get_schema(schema_id))
            if found is not None:
                self._schemas[schema_id] = json.loads(str(found.schema_str))
                return self._schemas[schema_id]
            self._unknown[schema_id] = now + UNKNOWN_ID_MEMORY_S
        raise Poison("unknown_schema_id", f"the registry {self.url} has no schema with id {schema_id}")

    def subjects(self) -> list[str]:
        return sorted(self._ask(self._client.get_subjects) or [])

    def registered(self, subject: str, schema: dict[str, Any]) -> bool:
        """Whether exactly this schema is a version of the subject."""
        return self._ask(lambda: self._client.lookup_schema(subject, _avro(schema))) is not None

    def versions(self, subject: str) -> list[dict[str, Any]]:
        """All registered schemas of the subject, oldest first; empty when there is no such subject."""
        numbers = self._ask(lambda: self._client.get_versions(subject)) or []
        schemas = [self._ask(lambda n=n: self._client.get_version(subject, n)) for n in sorted(numbers)]  # type: ignore[misc]
        return [json.loads(str(found.schema.schema_str)) for found in schemas if found is not None]

    def incompatibilities(self, subject: str, schema: dict[str, Any]) -> list[str]:
        """The registry's reasons why ``schema`` may not follow the versions it has; empty when it may.

        Some registries only say no: then the one reason is that they gave none (:mod:`streams.codec.compat` has one).
        """
        body = {"schema": schema_text(schema), "schemaType": "AVRO"}
        path = f"compatibility/subjects/{subject}/versions?verbose=true"
        answer = self._ask(lambda: self._client._rest_client.post(path, body=body))
        if answer is None or answer.get("is_compatible"):
            return []
        return list(answer.get("messages") or ["the registry says no, without a reason"])

    def compatibility(self, subject: str) -> str | None:
        """The subject's own compatibility level, None when it has none."""
        found = self._ask(lambda: self._client.get_config(subject))
        return None if found is None else (found.compatibility_level or found.compatibility)

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        self._ask(lambda: self._client.set_config(subject, ServerConfig.from_dict({"compatibility": level})))

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Make ``schema`` the newest version of ``subject`` (nothing happens if it is one already); its id."""
        found = self._ask(lambda: self._client.register_schema(subject, _avro(schema)))
        if found is None:
            raise Misconfigured(f"the registry {self.url} refused to make the subject {subject}")
        return int(found)

    def _ask(self, question: Callable[[], T]) -> T | None:
        """None for "there is no such thing"; everything else that is not an answer becomes an error of ours."""
        try:
            return question()
        except SchemaRegistryError as error:
            if error.http_status_code == 404 and error.error_code in NOT_FOUND:
                return None
            if error.http_status_code in (409, 422):
                raise Misconfigured(f"the registry {self.url} refuses the schema: {error.error_message}") from error
            if error.http_status_code in (401, 403):
                raise Fatal(f"the registry {self.url} does not let us in: {error}; check its credentials") from error
            raise Transient(f"the schema registry {self.url} answers with an error: {error}") from error
        except (httpx.HTTPError, OSError) as error:
            raise Transient(
                f"the schema registry {self.url} cannot be reached ({error}): is it up, is schema_registry_url right?"
            ) from error
        except (ValueError, TypeError) as error:
            raise Transient(f"{self.url} does not answer like a schema registry: {error}") from error


class LocalIds:
    """Ids without a registry, from a hash of the schema: for benches and unit tests, never on a shared topic."""

    def __init__(self, schemas: LocalSchemas) -> None:
        every = [version.raw for name in schemas.names() for version in schemas.versions(name)]
        self._schemas = {_hashed_id(raw): raw for raw in every}

    def id_for(self, subject: str, schema: dict[str, Any]) -> int:
        schema_id = _hashed_id(schema)
        self._schemas.setdefault(schema_id, schema)
        return schema_id

    def schema_for(self, schema_id: int) -> dict[str, Any]:
        try:
            return self._schemas[schema_id]
        except KeyError:
            raise Poison("unknown_schema_id", f"no local schema hashes to id {schema_id}") from None


def wait_for_registry(registry: Registry, timeout_s: float, progress: Callable[[str], None]) -> None:
    """Return when the registry answers; ``progress`` gets a line whenever it still does not. Transient at the end."""
    end, pause = time.monotonic() + timeout_s, 0.1
    while True:
        try:
            registry.subjects()
            return
        except Transient as error:
            if time.monotonic() + pause > end:
                raise
            progress(f"waiting for the registry: {error}")
        time.sleep(pause)
        pause = min(2 * pause, 1.0)


def _avro(schema: dict[str, Any]) -> Schema:
    return Schema(schema_text(schema), "AVRO")


def _hashed_id(schema: dict[str, Any]) -> int:
    return int.from_bytes(schema_hash(schema)[:4], "big") & 0x7FFFFFFF
