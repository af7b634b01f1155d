"""Fixtures that every suite may use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped,unused-ignore]

from agents.embedded import Stack, StackConfig
from tests.support import brokers
from tests.support.brokers import Brokers, Cluster

#: Where tests run whole applications, of up to nine processes each.
APPLICATIONS = (
    "tests/cli/", "tests/delivery/test_live", "tests/delivery/test_workers", "tests/demo/", "tests/e2e/",
    "tests/events/scenarios/", "tests/usage/scenarios/", "tests/watchdog/",
)  # fmt: skip

#: How long an example may take says something of the machine, and it is shared.
settings.register_profile("curfew", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("curfew")


class Scheduling(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
    """Several test processes (``make test``): never two applications at once, which two cores cannot run within any
    test's patience; and the tests of one file in one process, for the sake of their fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        return "applications" if nodeid.startswith(APPLICATIONS) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    """One Kafka and registry for the whole session. Tests share it, so they use names from `unique`."""
    with brokers.provide(tmp_path_factory.mktemp("kafka")) as provided:
        yield provided


@pytest.fixture
def topic_prefix() -> str:
    """A beginning for topic and group names that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def unique(topic_prefix: str) -> Callable[[str], str]:
    """Turn a readable name into one that no other test has: the same name gives the same result within one test."""
    return lambda name: f"{topic_prefix}-{name}"


@pytest.fixture
def private_kafka(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start a Kafka for this test alone: `private_kafka(with_registry=False, ...)`, the keywords of `brokers.private`.

    It has started (`.address`), may be killed, and is stopped after the test.
    """
    with ExitStack() as running:
        count = 0

        def start(**settings: Any) -> Cluster:
            nonlocal count
            count += 1
            cluster = brokers.private(tmp_path / f"stack-{count}", **settings)
            running.callback(cluster.stop)
            cluster.start()
            return cluster

        yield start


@pytest.fixture
def private_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Start an embedded stack, also where there is Docker: `private_stack(with_registry=False, ...)`, the keywords of
    StackConfig. For tests of the stack itself; it has started (`.address`) and is stopped after the test.
    """
    with ExitStack() as running:
        count = 0

        def start(**settings: Any) -> Stack:
            nonlocal count
            count += 1
            stack = Stack(StackConfig(**{"data_dir": tmp_path / f"stack-{count}", **settings}))
            running.callback(stack.stop)
            stack.start()
            return stack

        yield start
