"""Where the tests find a Kafka and a schema registry: given from outside, in Docker, or embedded."""

from __future__ import annotations

import os
import time
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from agents.embedded import DEFAULT_KAFKA_VERSION, Stack, StackConfig
from agents.embedded.kafka import PROPERTIES
from agents.embedded.lockfile import REGISTRY_VERSION
from agents.embedded.ports import free_port
from agents.embedded.registry import API_PATH

KAFKA_IMAGE = os.environ.get("CURFEW_TEST_KAFKA_IMAGE") or f"apache/kafka:{DEFAULT_KAFKA_VERSION}"
REGISTRY_IMAGE = os.environ.get("CURFEW_TEST_REGISTRY_IMAGE") or f"apicurio/apicurio-registry:{REGISTRY_VERSION}"

ENGINE_TIMEOUT_SECONDS = 5  # an engine that is installed but stopped must not hold up every test run
START_TIMEOUT_SECONDS = 240.0  # of two Java programs on a machine that others use as well
POLL_SECONDS = 0.1
LOG_LINES = 20
CONTAINER_KAFKA_PORT = 9092
CONTAINER_REGISTRY_PORT = 8080


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
    with containers() if docker_has_images() else embedded(data_dir) as brokers:
        yield brokers


@contextmanager
def embedded(data_dir: Path) -> Iterator[Brokers]:
    stack = Stack(
        StackConfig(data_dir=data_dir, kafka_version=os.environ.get("CURFEW_KAFKA_VERSION", DEFAULT_KAFKA_VERSION))
    )
    with stack as address:
        yield Brokers(
            bootstrap_servers=address.bootstrap_servers,
            schema_registry_url=address.schema_registry_url,
            stack=stack,
        )


def docker_has_images() -> bool:
    """Whether an engine answers and has, or can pull, both images. Warns when only an image is missing."""
    try:
        client = DockerClient(timeout=ENGINE_TIMEOUT_SECONDS).client
        client.ping()
    except Exception:  # no socket, no permission, no answer, a wrong DOCKER_HOST: each means that there is no Docker
        return False
    client.api.timeout = START_TIMEOUT_SECONDS  # a pull takes longer than the question whether anybody is there
    for image in (KAFKA_IMAGE, REGISTRY_IMAGE):
        if not _has_image(client, image):
            warnings.warn(
                f"Docker answers, but image {image} can be neither found nor pulled: using the embedded stack",
                stacklevel=2,
            )
            return False
    if not _has_image(client, testcontainers_config.ryuk_image):
        testcontainers_config.ryuk_disabled = True  # it only cleans up after a killed run; do without
    return True


@contextmanager
def containers() -> Iterator[Brokers]:
    """Both in containers, with the same broker settings as the embedded stack."""
    with ExitStack() as running:
        # A client is told the advertised address, so the port outside must be known before the container starts.
        port = free_port()
        kafka = DockerContainer(KAFKA_IMAGE).with_bind_ports(CONTAINER_KAFKA_PORT, port)
        host = kafka.get_docker_client().host()
        kafka = kafka.with_envs(**kafka_environment(f"{host}:{port}"))
        registry = DockerContainer(REGISTRY_IMAGE).with_exposed_ports(CONTAINER_REGISTRY_PORT)
        running.enter_context(kafka)
        running.enter_context(registry)
        registry_port = registry.get_exposed_port(CONTAINER_REGISTRY_PORT)
        brokers = Brokers(
            bootstrap_servers=f"{host}:{port}",
            schema_registry_url=f"http://{registry.get_container_host_ip()}:{registry_port}{API_PATH}",
        )
        _wait_until_both_answer(brokers, (kafka, registry))
        yield brokers


def kafka_environment(advertised: str) -> dict[str, str]:
    """The settings of `apache/kafka` images: property names in capitals, dots as underscores, KAFKA_ in front."""
    properties = {
        **PROPERTIES,
        "listeners": f"PLAINTEXT://0.0.0.0:{CONTAINER_KAFKA_PORT},INTERNAL://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093",
        # The broker speaks to itself when a transaction begins or ends, and the address outside is not there inside.
        "advertised.listeners": f"PLAINTEXT://{advertised},INTERNAL://127.0.0.1:9094",
        "listener.security.protocol.map": f"{PROPERTIES['listener.security.protocol.map']},INTERNAL:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "controller.quorum.voters": "1@127.0.0.1:9093",
    }
    return {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in properties.items()}


def _has_image(client: Any, image: str) -> bool:
    for obtain in (client.images.get, client.images.pull):
        with suppress(Exception):  # unknown here, unknown there, no network, not allowed: try the next way
            obtain(image)
            return True
    return False


def _wait_until_both_answer(brokers: Brokers, started: Sequence[DockerContainer]) -> None:
    """RuntimeError with the last lines of both containers when one ends, or the time is over."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap_servers, "log_level": 0})
    while True:
        try:
            admin.list_topics(timeout=ENGINE_TIMEOUT_SECONDS)
            with urllib.request.urlopen(f"{brokers.schema_registry_url}/subjects", timeout=ENGINE_TIMEOUT_SECONDS):
                return
        except (KafkaException, OSError) as error:
            if time.monotonic() > deadline or any(_state(one) == "exited" for one in started):
                raise RuntimeError("\n".join(map(_last_lines, started))) from error
            time.sleep(POLL_SECONDS)


def _state(container: DockerContainer) -> str:
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    return str(wrapped.status)


def _last_lines(container: DockerContainer) -> str:
    said = b"".join(container.get_logs()).decode(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"{container.image}, {_state(container)}:", *said])
