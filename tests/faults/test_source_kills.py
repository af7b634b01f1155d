"""The worker ``sources`` dies again and again: no row and no letter is lost, the last row of each key counts."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import supervisor
from agents.sources.feed import BATCH
from agents.sources.finder import kept
from agents.sources.rows import ROWS
from streams.core.errors import EXIT_FATAL
from streams.core.rows import source_key
from streams.core.sources import SourceRow
from streams.kafka.pump import SESSION_TIMEOUT_MS
from tests.events.source_site import AVRO, PATIENCE_S, Site, json_source, provided
from tests.events.works import Works
from tests.support.kafka_io import create_topic, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

#: Where each incarnation dies, and at which pass; the last one lives.
DEATHS = ("outputs.durable:1", "commit.after:1", "outputs.produced:2", "decide.end:2")
ACCOUNTS = 50
RECORDS = 3_000


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(supervisor, "RESTART_AFTER_S", (0.0,))
    with provided(tmp_path) as made:
        yield made


def test_a_worker_that_is_killed_again_and_again_loses_no_row_and_shows_the_last_one(site: Site) -> None:
    """Rows come at least once, in their order; where they are kept a repetition replaces itself. Each bad record is put
    aside. What comes again is never more than the batches that were open."""
    sources = {"good": json_source("good"), "device": AVRO}
    good = [number for number in range(RECORDS) if number % 97 != 13]
    sent: dict[str, list[tuple[str, bytes]]] = {name: [] for name in sources}
    for number in range(RECORDS):
        account, value = f"A{number % ACCOUNTS}", f"t{number}"
        is_good = number % 97 != 13
        sent["good"].append((account, json.dumps({"tier": value}).encode() if is_good else b"bad"))
        sent["device"].append((account, site.device(account, value) if is_good else b"bad"))
    for name in sources:
        create_topic(site.servers, f"crm.{name}", 2)
    site.declare(*sources.values())
    deaths, codes = iter(DEATHS), Counter[int]()

    def doom() -> None:
        """The next incarnation dies at the next place."""
        site.supervisor.env = {**site.supervisor.env, "CURFEW_FAILPOINT": next(deaths, "")}

    def done() -> bool:
        [child] = site.supervisor.children
        code = None if child.process is None else child.process.poll()
        if code is not None:
            codes[code] += 1
            doom()
        site.supervisor.check()
        return codes.total() == len(DEATHS) and not any(map(site.unread, sources.values()))

    doom()
    for name, records in sent.items():
        site.send(f"crm.{name}", *records)
    site.start()
    wait_until(done, "all is read", 4 * PATIENCE_S)

    keeper = Works()
    decode = keeper.codec.decoder(SourceRow)
    for message in site.read(ROWS):
        keeper.feed(ROWS, [site.decode(message.value())], key=message.key().decode())
    last = {f"A{number % ACCOUNTS}": f"t{number}" for number in good}
    assert codes == {-9: len(DEATHS)}
    for name in sources:
        rows = site.rows(name)
        values = [str(next(iter((row.fields or {}).values()))) for row in rows]
        assert Counter(set(values)) == Counter(f"t{number}" for number in good)
        assert len(rows) <= len(good) + len(DEATHS) * BATCH
        stored = {account: kept(decode, keeper.store.get(source_key(name, account))) for account in last}
        assert {account: next(iter((row.fields or {}).values())) for account, row in stored.items() if row} == last
        assert len(list(keeper.store.scan(source_key(name, "")))) == ACCOUNTS
    heads = [dict(one.headers()) for one in site.read("dead-letters.sources")]
    letters = {tuple(head[f"__connect.errors.{part}"] for part in ("topic", "partition", "offset")) for head in heads}
    assert len(letters) == 2 * (RECORDS - len(good))


def test_a_worker_that_was_stopped_for_too_long_writes_nothing_and_begins_again(site: Site) -> None:
    """Another may have its partitions by now and have written newer rows, behind which its own would come."""
    source = json_source("good")
    create_topic(site.servers, "crm.good")
    site.declare(source)
    site.send("crm.good", ("A1", b'{"tier": "old"}'))
    site.start()
    wait_until(lambda: site.values("good") == {"A1": "old"}, "the first is read", PATIENCE_S)
    [child] = site.supervisor.children
    assert child.process is not None
    stopped = child.process

    stopped.send_signal(signal.SIGSTOP)
    time.sleep(SESSION_TIMEOUT_MS / 1000 * 0.6)
    site.send("crm.good", ("A1", b'{"tier": "new"}'))
    stopped.send_signal(signal.SIGCONT)

    assert stopped.wait(PATIENCE_S) == EXIT_FATAL
    assert [row.fields for row in site.rows("good")] == [{"tier": "old"}]
    log = (site.supervisor.log_dir / "sources.log").read_text()
    assert "longer than half a session" in log

    def read() -> bool:
        site.supervisor.check()
        return site.unread(source) == 0

    wait_until(read, "the next one reads it", PATIENCE_S)
    assert site.values("good") == {"A1": "new"}
