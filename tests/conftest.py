"""Fixtures that every suite may use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agents.embedded import Stack, StackConfig
from tests.support import brokers
from tests.support.brokers import Brokers


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
def private_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Start a stack for this test alone: `private_stack(with_registry=False, ...)`, the keywords of StackConfig.

    For tests that kill or reconfigure the broker. The stack has started (`.address`) and is stopped after the test.
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
