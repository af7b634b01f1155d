"""Flows: a miniature app with its own topics, whose processes never outlive the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.flow import Flow
from tests.support.brokers import Brokers


@pytest.fixture
def flow(kafka: Brokers, topic_prefix: str, tmp_path: Path) -> Iterator[Flow]:
    """A flow on the shared broker, its topics made."""
    made = Flow(servers=kafka.bootstrap_servers, name=topic_prefix, directory=tmp_path)
    try:
        yield made.create()
    finally:
        made.close()


@pytest.fixture
def private_flow(private_kafka: Callable[..., Any], topic_prefix: str, tmp_path: Path) -> Iterator[tuple[Flow, Any]]:
    """A flow and the broker under it, which the test may kill."""
    stack = private_kafka(with_registry=False)
    made = Flow(servers=stack.address.bootstrap_servers, name=topic_prefix, directory=tmp_path)
    try:
        yield made.create(), stack
    finally:
        made.close()
