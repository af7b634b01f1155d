"""Where the tests find a Kafka and a schema registry: given from outside, in Docker, or embedded.

`provide` is for tests that share one, `private` for those that need one of their own: because the manifest fixes the
names of their topics, or because they kill the broker. Both take a Docker engine where there is one. Only what is about
the embedded stack itself, or about commands that start it, uses `agents.embedded.Stack` (docker/README.md lists it).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from agents.embedded import DEFAULT_KAFKA_VERSION, Stack, StackConfig
from tests.support import containers

#: `docker` or `embedded`: that one or an error. Else Docker is taken where it is ready.
PROVIDER = os.environ.get("CURFEW_TEST_BROKERS", "")


class Address(Protocol):
    """`schema_registry_url` is empty where there is no registry."""

    @property
    def bootstrap_servers(self) -> str: ...
    @property
    def schema_registry_url(self) -> str: ...


class Cluster(Protocol):
    """One broker and its registry that a test has for itself. As a context manager it starts, and stops at the end."""

    @property
    def address(self) -> Address | None:
        """None unless it has started."""

    def start(self) -> Address: ...
    def stop(self) -> None:
        """Harmless when it is not running."""

    def kill_broker(self) -> None:
        """SIGKILL; the registry goes on."""

    def restart_broker(self) -> None:
        """With its data, on its old port; waits until it answers."""

    def __enter__(self) -> Address: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Brokers:
    """Addresses for one test session; `stack` is None unless the embedded stack serves them."""

    bootstrap_servers: str
    schema_registry_url: str
    stack: Stack | None = None


@contextmanager
def provide(data_dir: Path) -> Iterator[Brokers]:
    """The first that is there: CURFEW_BOOTSTRAP_SERVERS, a Docker engine with the images, the embedded stack."""
    given = os.environ.get("CURFEW_BOOTSTRAP_SERVERS")
    if given:
        yield Brokers(bootstrap_servers=given, schema_registry_url=os.environ.get("CURFEW_SCHEMA_REGISTRY_URL", ""))
        return
    cluster = private(data_dir, kafka_version=os.environ.get("CURFEW_KAFKA_VERSION", DEFAULT_KAFKA_VERSION))
    with cluster as address:
        yield Brokers(
            bootstrap_servers=address.bootstrap_servers,
            schema_registry_url=address.schema_registry_url,
            stack=cluster if isinstance(cluster, Stack) else None,
        )


def private(
    data_dir: Path,
    *,
    with_registry: bool = True,
    kafka_properties: Mapping[str, str] | None = None,
    kafka_version: str = DEFAULT_KAFKA_VERSION,
) -> Cluster:
    """Nobody else's, not started yet. In Docker the image decides on the version, and `data_dir` stays empty."""
    if in_docker():
        return containers.Containers(with_registry=with_registry, kafka_properties=kafka_properties or {})
    config = StackConfig(
        data_dir=data_dir,
        with_registry=with_registry,
        kafka_properties=kafka_properties or {},
        kafka_version=kafka_version,
    )
    return Stack(config)


def in_docker() -> bool:
    if PROVIDER not in ("", "docker", "embedded"):
        raise ValueError(f"CURFEW_TEST_BROKERS is {PROVIDER!r}: say docker or embedded, or leave it out")
    if PROVIDER == "embedded":
        return False
    missing = containers.missing()
    if PROVIDER == "docker" and missing:
        raise RuntimeError(f"CURFEW_TEST_BROKERS is docker, but {missing}")
    return not missing
