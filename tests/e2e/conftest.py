"""One application for all end-to-end tests of this package, and what they do to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.curfew import Curfew, runner
from tests.delivery.receiving import RunningReceiver, receiver
from tests.e2e.application import Application
from tests.support.brokers import Cluster, private
from tests.support.proxy import Proxy
from tests.watchdog.mail_server import MailServer, mail_server

#: Small enough to be filled at once, large enough for a billing store of some hundred changes.
BILLING_DISK = "8m"


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A stack for this package alone: the manifest fixes the topics' names, and tests restart the broker."""
    made = private(tmp_path_factory.mktemp("e2e-stack"))
    with made:
        yield made


@pytest.fixture(scope="package")
def registry_proxy(stack: Cluster) -> Iterator[Proxy]:
    """The way from the workers to the registry."""
    assert stack.address is not None
    proxy = Proxy(stack.address.schema_registry_url)
    yield proxy
    proxy.cut()


@pytest.fixture(scope="package")
def billing_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the billing store lies: a small file system of its own where we may mount one, else a directory."""
    directory = tmp_path_factory.mktemp("billing")
    with mounted(directory):
        yield directory


@contextmanager
def mounted(directory: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BILLING_DISK}", "tmpfs", str(directory)]
    may = os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield
    finally:
        if may:
            subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture(scope="package")
def crm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningReceiver]:
    """A subscriber's system."""
    with receiver(tmp_path_factory.mktemp("crm")) as running:
        yield running


@pytest.fixture(scope="package")
def mailbox() -> Iterator[MailServer]:
    """The mail server of everybody."""
    with mail_server() as running:
        yield running


@pytest.fixture(scope="package")
def application(
    stack: Cluster,
    registry_proxy: Proxy,
    billing_disk: Path,
    crm: RunningReceiver,
    mailbox: MailServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Application]:
    """All workers and the clock, on the wall clock, with nothing in flight."""
    assert stack.address is not None
    made = Application(
        stack.address,
        tmp_path_factory.mktemp("application"),
        registry_url=registry_proxy.url,
        billing_directory=billing_disk,
        smtp_url=mailbox.url,
    )
    try:
        made.configure(crm.url)
        made.start()
        yield made
    finally:
        killed = made.close()
    assert killed == [], "these workers did not end by SIGTERM"


@pytest.fixture
def curfew(application: Application, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Curfew:
    """`curfew` in this process, on the application's stack."""
    for name, value in application.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CURFEW_DEBUG", "0")
    return runner(monkeypatch, capsys)
