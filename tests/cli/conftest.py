"""The command line, with and without a cluster."""

from __future__ import annotations

import pytest

from tests.cli.curfew import Curfew, runner
from tests.support.brokers import Brokers


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Curfew:
    """`curfew` where no broker and no registry are."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("CURFEW_SCHEMA_REGISTRY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CURFEW_DEBUG", "0")
    return runner(monkeypatch, capsys)


@pytest.fixture
def curfew(kafka: Brokers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Curfew:
    """`curfew` on the session's cluster."""
    monkeypatch.setenv("CURFEW_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.setenv("CURFEW_SCHEMA_REGISTRY_URL", kafka.schema_registry_url)
    monkeypatch.setenv("CURFEW_DEBUG", "0")
    return runner(monkeypatch, capsys)
