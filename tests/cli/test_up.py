"""`curfew up`, as far as it can refuse before any worker is started."""

from __future__ import annotations

import fcntl
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents import health_ports, preflight
from streams.core.errors import Misconfigured
from streams.core.subscriptions import Forward, Subscription, Webhook
from streams.kafka.manifest import Manifest
from streams.settings import Settings
from streams.sinks.billing import SqlBillingStore
from streams.sinks.secrets import Secrets
from tests.cli.curfew import Curfew, runner

PAST = datetime(2020, 1, 1, tzinfo=UTC)


def test_a_second_one_on_a_data_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two would take each other's partitions for ever; the message names the process and the remedy."""
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))
    with (tmp_path / "up.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = runner(monkeypatch, capsys)("up")

    assert done.code != 0
    assert "runs here already (process 4711" in done.err
    assert "CURFEW_DATA_DIR" in done.err
    assert not (tmp_path / "logs").exists()


def test_without_kafka_and_registry_nothing_is_started(
    offline: Curfew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are told at once on the terminal; no log, no billing store is made."""
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))

    done = offline("up")

    assert done.code == 1
    assert "error: no Kafka broker answers at 127.0.0.1:1" in done.err
    assert "error: the schema registry http://127.0.0.1:1 cannot be reached" in done.err
    assert done.err.endswith("nothing was started\n")
    assert [one.name for one in tmp_path.iterdir()] == ["up.lock"]


@pytest.mark.kafka
def test_missing_topics_and_schemas_are_told_with_their_commands(
    curfew: Curfew, unique: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster that has all but one queue of the manifest."""
    assert curfew("topics", "apply").code == 0
    assert curfew("schemas", "apply").code == 0
    manifest = Manifest.load().with_queues(unique("q"))
    monkeypatch.setattr(Manifest, "load", staticmethod(lambda: manifest))
    monkeypatch.setenv("CURFEW_DATA_DIR", str(tmp_path))

    done = curfew("up")

    assert done.code == 1
    assert (
        f"1 of {len(manifest.topics)} topics are not there: queue.{unique('q')}. Run: curfew topics apply" in done.err
    )
    assert f"queue.{unique('q')}-value. Run: curfew schemas apply" in done.err
    assert not (tmp_path / "logs").exists()


def test_the_tables_of_the_billing_store_are_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so the first time, and has nothing to say the second."""
    monkeypatch.setenv("CURFEW_DATABASE_URL", f"sqlite:///{tmp_path / 'billing.sqlite'}")

    first = list(preflight.billing_store(Settings(), migrate=True))
    said = capsys.readouterr().err
    second = list(preflight.billing_store(Settings(), migrate=True))

    assert first == second == []
    assert "tables brought from revision none to 0" in said
    assert capsys.readouterr().err == ""
    assert preflight.revision(Settings()) is not None


def test_a_billing_store_of_a_newer_curfew_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables may have columns without which this version would write wrong rows."""
    file = tmp_path / "billing.sqlite"
    monkeypatch.setenv("CURFEW_DATABASE_URL", f"sqlite:///{file}")
    store = SqlBillingStore(Settings().billing_store_url)
    store.migrate()
    store.dispose()
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    [problem] = preflight.billing_store(Settings(), migrate=True)

    assert "9999" in problem
    assert "newer Curfew" in problem


def test_a_billing_store_that_does_not_answer_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """With where it should be, without its password."""
    monkeypatch.setenv("CURFEW_DATABASE_URL", "postgresql://curfew:hush@127.0.0.1:1/billing")

    [problem] = preflight.billing_store(Settings(), migrate=True)

    assert "127.0.0.1:1/billing" in problem
    assert "curfew billing migrate" in problem
    assert "hush" not in problem


def subscription(name: str, webhook: Webhook | None, *, active: bool = True) -> Subscription:
    forward = Forward(queue="other") if webhook is None else None
    return Subscription(
        name=name, id=name, version=1, created_at=PAST, queue="q", active=active, webhook=webhook, forward=forward
    )


def hook(reference: str, *, previous: str | None = None) -> Webhook:
    until = None if previous is None else PAST
    return Webhook(url="https://x.example", secret_ref=reference, previous_secret_ref=previous, previous_until=until)


def test_a_secret_that_is_not_set_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of webhooks that would be sent: not of an inactive subscription, nor of a secret whose rotation is over."""
    absent, wrong, right = (f"env:CURFEW_SECRET_{name}" for name in ("ABSENT", "WRONG", "RIGHT"))
    monkeypatch.delenv("CURFEW_SECRET_ABSENT", raising=False)
    monkeypatch.setenv("CURFEW_SECRET_WRONG", "not-a-secret")
    monkeypatch.setenv("CURFEW_SECRET_RIGHT", f"whsec_{'A' * 40}")
    subscriptions = [
        subscription("copy", None),
        subscription("crm", hook(absent)),
        subscription("erp", hook(wrong)),
        subscription("off", hook(absent), active=False),
        subscription("rotated", hook(right, previous=absent)),
    ]

    found = preflight.unset_secrets({one.name: one for one in subscriptions}, Secrets())

    assert [line.partition(":")[0] for line in found] == ["subscription crm", "subscription erp"]
    assert f"{absent}: the environment variable is not set" in found[0]
    assert wrong in found[1]
    assert "not-a-secret" not in found[1]


def test_health_ports_are_those_asked_for_or_free_ones() -> None:
    """One for each worker, none twice."""
    names = [f"worker-{number}" for number in range(5)]
    free = health_ports.choose(names, 0, "127.0.0.1")

    assert [*free] == names
    assert len({*free.values()}) == 5


def test_a_health_port_that_is_taken_is_refused_before_anything_starts() -> None:
    """With the range that would be needed."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(Misconfigured, match=f"health port {port} cannot be opened .* {port} to {port + 1}"):
            health_ports.choose(["events-1", "usage-1"], port, "127.0.0.1")
