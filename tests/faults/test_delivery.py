"""Workers of deliveries are killed, stopped and moved in the flow; receivers' own logs and the ledger judge."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.delivery import accounts
from tests.delivery.deployment import ACCOUNTS, Deployment
from tests.delivery.receiving import SECRET_REF, RunningReceiver, receiver
from tests.support import brokers
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(2400)]

#: On a machine that is busy with other things; each takes some seconds on one that is not.
PATIENCE_S = 300
KILLS = 5
#: Around a request, in the dispatch worker: its row is durable, it was answered, its result is durable (and its own row
#: is not yet). In between, while it is open, the test itself kills.
DISPATCH_POINTS = ("attempt.row", "attempt.answered", "outputs.durable")
#: In the delivery worker: the attempt is asked for and the unit's row is not durable; the row is durable too.
DELIVERY_POINTS = ("outputs.durable", "changelog.durable")
PER_ROUND = 2 * ACCOUNTS
LETTERS = 10_000


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One Kafka for all of this file; every test has a queue and subscriptions of its own."""
    directory = tmp_path_factory.mktemp("delivery")
    with brokers.provide(directory / "stack") as provided:
        deployed = Deployment(provided, directory)
        deployed.run("topics", "apply")
        deployed.run("schemas", "apply")
        yield deployed


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """Processes that end with the test."""
    with ExitStack() as stack:
        yield stack


def start_receiver(running: ExitStack, tmp_path: Path, name: str, *options: str) -> RunningReceiver:
    directory = tmp_path / name
    directory.mkdir()
    return running.enter_context(receiver(directory, *options))


def subscribe(deployment: Deployment, tmp_path: Path, queue: str, **subscriptions: tuple[str, str]) -> None:
    """Name → (URL, further lines of the file)."""
    deployment.run("queues", "create", queue)
    file = tmp_path / f"{queue}.toml"
    file.write_text(
        "".join(
            f'[[subscription]]\nname = "{name}"\nqueue = "{queue}"\n{more}\n'
            f'[subscription.webhook]\nurl = "{url}"\nsecret_ref = "{SECRET_REF}"\n'
            for name, (url, more) in subscriptions.items()
        )
    )
    deployment.run("subscriptions", "apply", str(file))


def settled(deployment: Deployment, *names: str, pending: int = 0) -> dict[str, dict[str, Any]]:
    """The ledger when only so much is pending. A busy machine may take its time: what must not be is that nothing
    moves."""
    found, moved = deployment.ledger(), time.monotonic()
    while any(found[name]["pending"] != pending or found[name]["lag"] for name in names):
        assert time.monotonic() - moved < PATIENCE_S, f"{names} do not come to {pending} pending: {found}"
        before, found = found, deployment.ledger()
        if found != before:
            moved = time.monotonic()
    return found


def partitions(deployment: Deployment, worker: str) -> list[int]:
    """Those that a worker (``dispatch-1``) was given last."""
    log = deployment.directory / f"{worker}.log"
    lines = re.findall(r"worker\.assigned .*partitions=\[([\d, ]*)\]", log.read_text(errors="replace"))
    return [int(number) for number in lines[-1].split(",") if number.strip()] if lines else []


def wait_for_partitions(deployment: Deployment, **workers: int) -> None:
    """Until each worker (``dispatch_1=2``) has so many."""
    wait_until(
        lambda: all(len(partitions(deployment, name.replace("_", "-"))) == count for name, count in workers.items()),
        f"partitions are shared as {workers}",
        PATIENCE_S,
    )


def killed(process: subprocess.Popen[bytes]) -> bool:
    return process.wait(PATIENCE_S) == -signal.SIGKILL


def test_kills_at_every_step_of_an_attempt_cost_attempts_and_nothing_else(
    deployment: Deployment, tmp_path: Path, running: ExitStack
) -> None:
    """Five kills at each place, five of them while requests are open. One subscription has twenty attempts and gets
    all, in order; one has three, of which its receiver makes one key use them up until all kills are done."""
    crm = start_receiver(running, tmp_path, "crm")
    short = start_receiver(running, tmp_path, "short", "--fail-status", "500", "--fail-key", "A1", "--fail-first", "2")
    subscribe(
        deployment, tmp_path, "kills",
        patient=(crm.url, f"schedule_s = {[0] + [1] * 19}"),
        short=(short.url, 'schedule_s = [0, 1, 1]\non_exhausted = "skip"'),
    )  # fmt: skip
    produced = 0

    def produce() -> None:
        nonlocal produced
        deployment.produce(range(produced, produced + PER_ROUND), queue="kills")
        produced += PER_ROUND

    with deployment.worker("delivery"):
        deployment.wait_for("worker.assigned", "delivery-1")
        with deployment.worker("dispatch"):
            produce()
            wait_until(lambda: _most(short) == 3, "one has used its policy up", PATIENCE_S)
        for number in range(KILLS):
            for point in DISPATCH_POINTS:
                nth = 1 + 5 * number if point == "attempt.answered" else 1 + number
                with deployment.worker("dispatch", CURFEW_FAILPOINT=f"{point}:{nth}") as dispatch:
                    produce()
                    assert killed(dispatch), f"{point}:{nth}"
            crm.behave(delay_s=0.3)
            with deployment.worker("dispatch") as dispatch:
                before = len(crm.received())
                produce()
                wait_until(lambda before=before: len(crm.received()) > before, "requests are open", PATIENCE_S)  # type: ignore[misc]
                dispatch.kill()
                assert killed(dispatch)
            crm.behave()
    with deployment.worker("dispatch"):
        for number in range(KILLS):
            for point in DELIVERY_POINTS:
                with deployment.worker("delivery", CURFEW_FAILPOINT=f"{point}:{1 + number}") as delivery:
                    produce()
                    assert killed(delivery), f"{point}:{1 + number}"
        # What is left is of the failing key, and a kill has taken an attempt of most: all of it would fail, and the
        # breaker would open for longer and longer, as it should.
        short.behave()
        with deployment.worker("delivery"):
            ledger = settled(deployment, "patient", "short")

    accounts.check(crm.received(), policy=20)
    accounts.check(short.received(), policy=3)
    assert accounts.complete(crm.received(), range(produced), ACCOUNTS)
    patient, brief = ledger["patient"], ledger["short"]
    assert (patient["published"], patient["delivered"], patient["difference"]) == (produced, produced, 0)
    assert (brief["published"], brief["delivered"] + brief["dead"], brief["difference"]) == (produced, produced, 0)
    assert _most(short) == 3


def _most(receiver: RunningReceiver) -> int:
    """Attempts that the most tried webhook has had."""
    return max((len(numbers) for numbers in accounts.attempts(receiver.received()).values()), default=0)


def test_a_worker_that_is_told_to_end_in_the_flow_costs_no_attempt(
    deployment: Deployment, tmp_path: Path, running: ExitStack
) -> None:
    """SIGTERM with requests open and hundreds behind them: it ends by itself with 0, and every webhook comes once."""
    events = 800  # twice what sixteen open requests can begin within BEGIN_WITHIN_S
    crm = start_receiver(running, tmp_path, "crm")
    subscribe(deployment, tmp_path, "ends", ended=(crm.url, ""))
    crm.behave(delay_s=0.2)
    with deployment.worker("delivery"):
        with deployment.worker("dispatch") as dispatch:
            deployment.produce(range(events), queue="ends")
            wait_until(lambda: len(crm.received()) > 20, "webhooks flow", PATIENCE_S)
            dispatch.terminate()
            code = dispatch.wait(PATIENCE_S)
        left = events - len(crm.received())
        crm.behave()
        with deployment.worker("dispatch"):
            ledger = settled(deployment, "ended")["ended"]

    assert code == 0
    assert left > 0, "it ended after the flow"
    assert [line["attempt"] for line in crm.received()] == [1] * events
    assert accounts.complete(crm.received(), range(events), ACCOUNTS)
    assert (ledger["published"], ledger["delivered"], ledger["difference"]) == (events, events, 0)


def test_a_worker_that_was_stopped_past_its_session_sends_nothing_afterwards(
    deployment: Deployment, tmp_path: Path, running: ExitStack
) -> None:
    """SIGSTOP in the flow, with requests open; another takes over and ends everything; then SIGCONT."""
    crm = start_receiver(running, tmp_path, "crm")
    subscribe(deployment, tmp_path, "stops", stopped=(crm.url, f"schedule_s = {[0] + [1] * 9}"))
    crm.behave(delay_s=0.2)
    with (
        deployment.worker("delivery"),
        deployment.worker("dispatch") as first,
        deployment.worker("dispatch", instance="2") as second,
    ):
        wait_for_partitions(deployment, dispatch_1=2, dispatch_2=2)
        deployment.produce(range(200), queue="stops")
        wait_until(lambda: len(crm.received()) > 20, "webhooks flow", PATIENCE_S)
        owner = _owner(deployment)
        stopped, other = (first, "dispatch_2") if owner == "dispatch-1" else (second, "dispatch_1")
        stopped.send_signal(signal.SIGSTOP)
        try:
            wait_for_partitions(deployment, **{other: 4})
            wait_until(lambda: len(accounts.accepted(crm.received())) == 200, "the other one ends all", PATIENCE_S)
        finally:
            stopped.send_signal(signal.SIGCONT)
        deployment.produce(range(200, 400), queue="stops")
        wait_until(lambda: len(accounts.accepted(crm.received())) == 400, "it goes on", PATIENCE_S)
        ledger = settled(deployment, "stopped")["stopped"]

    accounts.check(crm.received(), policy=10)
    assert accounts.complete(crm.received(), range(400), ACCOUNTS)
    assert (ledger["published"], ledger["delivered"], ledger["difference"]) == (400, 400, 0)


def _owner(deployment: Deployment) -> str:
    """The dispatch worker through which the only flowing subscription goes."""
    from streams.kafka.partitioner import partition_of

    [line] = [one for one in deployment.ledger().values() if one["subscription"] == "stopped"]
    number = partition_of(line["subscription_id"].encode(), 4)
    return next(name for name in ("dispatch-1", "dispatch-2") if number in partitions(deployment, name))


def test_a_rebalance_in_mid_retry_goes_on_counting_and_a_redrive_ends_in_the_exact_order(
    deployment: Deployment, tmp_path: Path, running: ExitStack
) -> None:
    """One key fails; both of its workers are joined by others and then leave. Exactly five attempts, then dead; what is
    behind it waits; repaired and redriven, all is delivered."""
    crm = start_receiver(running, tmp_path, "crm", "--fail-status", "500", "--fail-key", "A1")
    subscribe(deployment, tmp_path, "moves", moved=(crm.url, "schedule_s = [0, 3, 3, 3, 3]"))
    with deployment.worker("delivery", instance="2"), deployment.worker("dispatch", instance="2"):
        with deployment.worker("delivery"), deployment.worker("dispatch"):
            wait_for_partitions(deployment, delivery_1=2, delivery_2=2, dispatch_1=2, dispatch_2=2)
            deployment.produce(range(100), queue="moves")
            wait_until(lambda: len(_of(crm, "A1")) >= 2, "the key has been tried twice", PATIENCE_S)
        # The first ones have left; static members are missed only after their session.
        ledger = settled(deployment, "moved", pending=4)["moved"]
        assert (ledger["dead"], ledger["delivered"], ledger["difference"]) == (1, 95, 0)
        assert [line["attempt"] for line in _of(crm, "A1")] == [1, 2, 3, 4, 5]

        crm.behave()
        deployment.run("dead-letters", "redrive", "--subscription", "moved", "--yes")
        ledger = settled(deployment, "moved")["moved"]

    assert accounts.complete(crm.received(), range(100), ACCOUNTS)
    accounts.check(crm.received(), policy=6)
    assert (ledger["published"], ledger["delivered"], ledger["dead"], ledger["difference"]) == (100, 100, 0, 0)


def _of(crm: RunningReceiver, key: str) -> list[dict[str, Any]]:
    return [line for line in crm.received() if line["key"] == key]


def test_ten_thousand_dead_letters_are_redriven_each_once(
    deployment: Deployment, tmp_path: Path, running: ExitStack
) -> None:
    """A subscription was paused for longer than its units may wait. The dry run counts, the redrive brings all, each is
    delivered; a second redrive finds none."""
    crm = start_receiver(running, tmp_path, "crm")
    subscribe(deployment, tmp_path, "letters", late=(crm.url, "paused = true\nmax_age_s = 1"))
    which = ("dead-letters", "redrive", "--subscription", "late")
    with deployment.worker("delivery"), deployment.worker("dispatch"):
        deployment.produce(range(LETTERS), queue="letters")
        wait_until(lambda: deployment.ledger().get("late", {}).get("dead") == LETTERS, "all are dead", PATIENCE_S)
        assert crm.received() == []
        subscribe(deployment, tmp_path, "letters", late=(crm.url, "paused = false"))

        dry = deployment.completed(*which, "--dry-run")
        sent_by_dry_run = crm.received()
        redriven = deployment.completed(*which, "--yes")
        ledger = settled(deployment, "late")["late"]
        again = deployment.completed(*which, "--yes")

    assert f"{LETTERS:,} of {LETTERS:,} would be sent back; nothing has been sent" in dry.stderr
    assert "max_age" in dry.stdout
    assert sent_by_dry_run == []
    assert f"{LETTERS:,} of {LETTERS:,} sent back" in redriven.stderr
    assert "0 of 0 would be sent back" in again.stderr
    received = crm.received()
    assert len(received) == len(accounts.accepted(received)) == LETTERS
    assert accounts.complete(received, range(LETTERS), ACCOUNTS)
    assert (ledger["published"], ledger["delivered"], ledger["dead"], ledger["difference"]) == (LETTERS, LETTERS, 0, 0)
