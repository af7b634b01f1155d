"""Kafka and a schema registry in Docker, with the same broker settings as the embedded stack."""

from __future__ import annotations

import os
import time
import urllib.request
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from agents.embedded import DEFAULT_KAFKA_VERSION
from agents.embedded.kafka import PROPERTIES
from agents.embedded.lockfile import REGISTRY_VERSION
from agents.embedded.ports import free_port
from agents.embedded.registry import API_PATH

KAFKA_IMAGE = os.environ.get("CURFEW_TEST_KAFKA_IMAGE") or f"apache/kafka:{DEFAULT_KAFKA_VERSION}"
REGISTRY_IMAGE = os.environ.get("CURFEW_TEST_REGISTRY_IMAGE") or f"apicurio/apicurio-registry:{REGISTRY_VERSION}"

ENGINE_TIMEOUT_SECONDS = 5  # an engine that is installed but stopped must not hold up every test run
START_TIMEOUT_SECONDS = 240.0  # of two Java programs on a machine that others use as well
STOP_GRACE_SECONDS = 20
POLL_SECONDS = 0.1
LOG_LINES = 20
KAFKA_PORT = 9092
REGISTRY_PORT = 8080


@cache
def missing() -> str:
    """Why no containers can be had, or nothing. Warns when only an image is missing."""
    try:
        client = DockerClient(timeout=ENGINE_TIMEOUT_SECONDS).client
        client.ping()
    except Exception:  # no socket, no permission, no answer, a wrong DOCKER_HOST: each means that there is no Docker
        return "no Docker engine answers"
    client.api.timeout = START_TIMEOUT_SECONDS  # a pull takes longer than the question whether anybody is there
    for image in (KAFKA_IMAGE, REGISTRY_IMAGE):
        if not _has_image(client, image):
            reason = f"image {image} can be neither found nor pulled"
            warnings.warn(f"Docker answers, but {reason}: using the embedded stack", stacklevel=2)
            return reason
    if not _has_image(client, testcontainers_config.ryuk_image):
        testcontainers_config.ryuk_disabled = True  # it only cleans up after a killed run; do without
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where the containers are to be found from here."""

    bootstrap_servers: str
    schema_registry_url: str


class Containers:
    """A `tests.support.brokers.Cluster`; one container each for Kafka and the registry."""

    def __init__(self, *, with_registry: bool, kafka_properties: Mapping[str, str]) -> None:
        # A client is told the advertised address, so the port outside must be known before the container starts.
        port = free_port()
        kafka = DockerContainer(KAFKA_IMAGE).with_bind_ports(KAFKA_PORT, port)
        self._servers = f"{kafka.get_docker_client().host()}:{port}"
        self._kafka = kafka.with_envs(**kafka_environment(self._servers, kafka_properties))
        self._registry = DockerContainer(REGISTRY_IMAGE).with_exposed_ports(REGISTRY_PORT) if with_registry else None
        self._running = ExitStack()
        self.address: Published | None = None

    def __enter__(self) -> Published:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Published:
        """RuntimeError with the last lines of both containers when one ends, or the time is over."""
        try:
            self._running.enter_context(self._kafka)
            url = ""
            if self._registry is not None:
                self._running.enter_context(self._registry)
                port = self._registry.get_exposed_port(REGISTRY_PORT)
                url = f"http://{self._registry.get_container_host_ip()}:{port}{API_PATH}"
            self._wait_until_answers(url)
        except BaseException:
            self.stop()
            raise
        self.address = Published(bootstrap_servers=self._servers, schema_registry_url=url)
        return self.address

    def stop(self) -> None:
        self.address = None
        self._running.close()

    def kill_broker(self) -> None:
        self._kafka.get_wrapped_container().kill()
        self._kafka.get_wrapped_container().wait()

    def restart_broker(self) -> None:
        self._kafka.get_wrapped_container().restart(timeout=STOP_GRACE_SECONDS)
        self._wait_until_answers("")

    def _wait_until_answers(self, url: str) -> None:
        started = [one for one in (self._kafka, self._registry) if one is not None]
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        admin = AdminClient({"bootstrap.servers": self._servers, "log_level": 0})
        while True:
            try:
                admin.list_topics(timeout=ENGINE_TIMEOUT_SECONDS)
                if url:
                    urllib.request.urlopen(f"{url}/subjects", timeout=ENGINE_TIMEOUT_SECONDS).close()
                return
            except (KafkaException, OSError) as error:
                if time.monotonic() > deadline or any(_state(one) == "exited" for one in started):
                    raise RuntimeError("\n".join(map(_last_lines, started))) from error
                time.sleep(POLL_SECONDS)


def kafka_environment(advertised: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """The settings of `apache/kafka` images: property names in capitals, dots as underscores, KAFKA_ in front."""
    properties = {
        **PROPERTIES,
        "listeners": f"PLAINTEXT://0.0.0.0:{KAFKA_PORT},INTERNAL://127.0.0.1:9094,CONTROLLER://127.0.0.1:9093",
        # The broker speaks to itself when a transaction begins or ends, and the address outside is not there inside.
        "advertised.listeners": f"PLAINTEXT://{advertised},INTERNAL://127.0.0.1:9094",
        "listener.security.protocol.map": f"{PROPERTIES['listener.security.protocol.map']},INTERNAL:PLAINTEXT",
        "inter.broker.listener.name": "INTERNAL",
        "controller.quorum.voters": "1@127.0.0.1:9093",
        **overrides,
    }
    return {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in properties.items()}


def _has_image(client: Any, image: str) -> bool:
    for obtain in (client.images.get, client.images.pull):
        with suppress(Exception):  # unknown here, unknown there, no network, not allowed: try the next way
            obtain(image)
            return True
    return False


def _state(container: DockerContainer) -> str:
    wrapped = container.get_wrapped_container()
    wrapped.reload()
    return str(wrapped.status)


def _last_lines(container: DockerContainer) -> str:
    said = b"".join(container.get_logs()).decode(errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join([f"{container.image}, {_state(container)}:", *said])
