"""Debian's Burrow and `curfew monitor` on the same cluster, with groups of which it is known how they are.

::

    apt-get install burrow zookeeper        # Burrow 1.2.1; services that Debian may start are not needed: stop them
    python -m tests.lag.beside_burrow --minutes 10 --out /tmp/beside-burrow.json

Starts Kafka 3.9 (Burrow 1.2.1 cannot speak to Kafka 4), ZooKeeper, Burrow and the monitor on free ports, lets eleven
groups live for some minutes, asks both every ten seconds, and prints what they said. Results: docs/lag-vs-burrow.md.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from agents.embedded import Stack, StackConfig
from agents.embedded.ports import free_port
from tests.support.kafka_io import create_topic, wait_until

KAFKA = "3.9.2"
TURN_S = 0.5
ASK_EVERY_S = 10.0
#: From here on the ill groups are ill; before, all but the slow one are well.
TROUBLE_S = 120.0
TOML = """
[general]
pidfile="{directory}/burrow.pid"
[logging]
filename="{directory}/burrow.log"
level="info"
[zookeeper]
servers=["127.0.0.1:{zookeeper}"]
timeout=6
root-path="/burrow"
[client-profile.beside]
client-id="burrow"
kafka-version="2.1.0"
[cluster.c]
class-name="kafka"
servers=["{servers}"]
client-profile="beside"
topic-refresh=30
offset-refresh=10
[consumer.c]
class-name="kafka"
cluster="c"
servers=["{servers}"]
client-profile="beside"
[httpserver.default]
address="127.0.0.1:{http}"
[storage.default]
class-name="inmemory"
intervals=10
min-distance=1
expire-group=604800
"""


@dataclass
class Life:
    """A topic with one partition, its producer and its group. ``written`` are the offsets used, marks included."""

    servers: str
    name: str
    transactional: bool = False
    written: int = 0
    committed: int = -1
    was_at: int = -1

    def __post_init__(self) -> None:
        create_topic(self.servers, self.name)
        self._consumer = Consumer({"bootstrap.servers": self.servers, "group.id": f"g-{self.name}"})
        config: dict[str, Any] = {"bootstrap.servers": self.servers}
        if self.transactional:
            config["transactional.id"] = self.name
        self._producer = Producer(config)
        if self.transactional:
            self._producer.init_transactions(60)

    def write(self, count: int) -> None:
        if self.transactional:
            self._producer.begin_transaction()
        for _ in range(count):
            self._producer.produce(self.name, b"x")
        if self.transactional:
            self._producer.commit_transaction(60)
        self._producer.flush(60)
        self.written += count + self.transactional

    def commit(self, offset: int) -> None:
        self._consumer.commit(offsets=[TopicPartition(self.name, 0, offset)], asynchronous=False)
        self.committed = offset

    def close(self) -> None:
        self._consumer.close()


@dataclass
class Actor:
    """One group: what it does at a turn, and how it really is (None: well) at a second of the play."""

    name: str
    play: Callable[[Life, float, int], None]
    ill: Callable[[Life, float], str | None] = lambda life, at: None
    transactional: bool = False


def every(turns: int, turn: int) -> bool:
    return turn % turns == 0


def healthy(life: Life, at: float, turn: int) -> None:
    life.write(10)
    if every(4, turn):
        life.commit(life.written)


def in_flight(life: Life, at: float, turn: int) -> None:
    """As fast as its topic, five records behind at every single commit."""
    life.write(10)
    if every(4, turn):
        life.commit(life.written - 5)


def stopped(life: Life, at: float, turn: int) -> None:
    life.write(10)
    if every(4, turn) and at < TROUBLE_S:
        life.commit(life.written)


def stalled(life: Life, at: float, turn: int) -> None:
    life.write(10)
    if every(4, turn):
        life.commit(life.written if at < TROUBLE_S else life.committed)


def slow(life: Life, at: float, turn: int) -> None:
    life.write(10)
    if every(4, turn):
        life.commit(life.written // 2)


def rewound(life: Life, at: float, turn: int) -> None:
    """Set back to the beginning once, then three times as fast as its topic."""
    life.write(10)
    if not every(4, turn):
        return
    if at < TROUBLE_S:
        life.commit(life.written)
    elif life.was_at < 0:
        life.was_at = life.committed
        life.commit(0)
    else:
        life.commit(min(life.written, life.committed + 120))


def idle(life: Life, at: float, turn: int) -> None:
    if at < 60:
        healthy(life, at, turn)
    elif life.committed < life.written:
        life.commit(life.written)


def quiet(life: Life, at: float, turn: int) -> None:
    """A record a minute, committed eight seconds later; in between nothing."""
    if turn < 20:
        healthy(life, at, turn)
    elif every(120, turn):
        life.write(1)
    elif every(120, turn - 16) or turn == 20:
        life.commit(life.written)


def young(life: Life, at: float, turn: int) -> None:
    """Its first and only commit leaves thirty records, on which it works for a minute and a half; later once more."""
    phase = (turn - 200) % 600
    if turn >= 200 and phase == 0:
        life.write(60)
        life.commit(life.written - 30)
    elif turn >= 200 and phase == 180:
        life.commit(life.written)


def marks(life: Life, at: float, turn: int) -> None:
    """A transaction every fifteen seconds, read at once; the commit stands in front of its mark."""
    if every(30, turn):
        life.write(5)
    elif every(30, turn - 1):
        life.commit(life.written - 1)


def mark_for_ever(life: Life, at: float, turn: int) -> None:
    """The last transaction was read to its end; its mark stays unread, and the client goes on committing."""
    if at < 60:
        marks(life, at, turn)
    elif every(10, turn):
        life.commit(life.written - 1)


def after_trouble(word: str) -> Callable[[Life, float], str | None]:
    return lambda life, at: word if at >= TROUBLE_S else None


ACTORS = (
    Actor("healthy", healthy),
    Actor("in-flight", in_flight),
    Actor("idle", idle),
    Actor("quiet", quiet),
    Actor("young", young),
    Actor("marks", marks, transactional=True),
    Actor("mark-for-ever", mark_for_ever, transactional=True),
    Actor("stopped", stopped, after_trouble("STOP")),
    Actor("stalled", stalled, after_trouble("STALL")),
    Actor("slow", slow, lambda life, at: "WARN"),
    Actor(
        "rewound", rewound,
        lambda life, at: "REWIND" if life.committed < life.was_at else None,
    ),
)  # fmt: skip


@contextmanager
def process(log: Path, *command: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **env})
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def zookeeper_answers(port: int) -> bool:
    """Its port is open some seconds before it takes anybody."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"srvr")
            return b"Mode: standalone" in connection.recv(4096)
    except OSError:
        return False


def fetch(url: str) -> dict[str, Any] | None:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return dict(json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        return dict(json.loads(error.read()))
    except OSError:
        return None


def said(base: str, group: str) -> tuple[str, int | None]:
    """The word for the worst partition, and the lag."""
    found = fetch(f"{base}/v3/kafka/c/consumer/{group}/lag")
    status = (found or {}).get("status") or {}
    words = [one["status"] for one in status.get("partitions") or ()]
    return (words[0] if words else str(status.get("status", "no answer"))), status.get("totallag")


def play(servers: str, burrow: str, ours: str, seconds: float) -> list[dict[str, Any]]:
    lives = [(actor, Life(servers, actor.name, transactional=actor.transactional)) for actor in ACTORS]
    began, asked, turn, seen = time.monotonic(), 0.0, 0, list[dict[str, Any]]()
    while (at := time.monotonic() - began) < seconds:
        for actor, life in lives:
            actor.play(life, at, turn)
        if at - asked >= ASK_EVERY_S:
            asked = at
            for actor, life in lives:
                theirs, their_lag = said(burrow, f"g-{actor.name}")
                mine, my_lag = said(ours, f"g-{actor.name}")
                seen.append(
                    {
                        "at_s": round(at), "group": actor.name, "truth": actor.ill(life, at) or "OK", "burrow": theirs,
                        "burrow_lag": their_lag, "curfew": mine, "curfew_lag": my_lag,
                    }
                )  # fmt: skip
            print(f"{at:5.0f} s", {one["group"]: (one["burrow"], one["curfew"]) for one in seen[-len(lives) :]})
        turn += 1
        time.sleep(max(0.0, began + turn * TURN_S - time.monotonic()))
    for _, life in lives:
        life.close()
    return seen


def summary(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By group: false alarms (share of the answers while it was well) and seconds from trouble to the first alarm."""
    rows = []
    for name in dict.fromkeys(one["group"] for one in seen):
        answers = [one for one in seen if one["group"] == name]
        row: dict[str, Any] = {"group": name, "answers": len(answers)}
        ill_since = next((one["at_s"] for one in answers if one["truth"] != "OK"), None)
        for who in ("burrow", "curfew"):
            wrong = [one for one in answers if one["truth"] == "OK" and one[who] not in ("OK", "NOTFOUND")]
            # what was right a moment ago is no false alarm
            wrong = [one for one in wrong if ill_since is None or one["at_s"] < ill_since]
            row[f"{who}_false"] = len(wrong)
            row[f"{who}_false_words"] = sorted({one[who] for one in wrong})
            found = next((one for one in answers if one["truth"] != "OK" and one[who] not in ("OK", "NOTFOUND")), None)
            row[f"{who}_after_s"] = None if ill_since is None or found is None else found["at_s"] - ill_since
            row[f"{who}_words"] = list(dict.fromkeys(one[who] for one in answers if one["truth"] != "OK"))
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=Path("beside-burrow.json"))
    parser.add_argument("--burrow", default="/usr/bin/Burrow")
    parser.add_argument("--zookeeper", default="/usr/share/zookeeper/bin/zkServer.sh")
    given = parser.parse_args()
    with ExitStack() as running:
        directory = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="beside-burrow-")))
        config = StackConfig(data_dir=directory / "stack", kafka_version=KAFKA, with_registry=False)
        servers = running.enter_context(Stack(config)).bootstrap_servers
        zookeeper, http = free_port(), free_port()
        (directory / "zoo.cfg").write_text(
            f"tickTime=2000\ndataDir={directory / 'zookeeper'}\nclientPort={zookeeper}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        )
        running.enter_context(
            process(
                directory / "zookeeper.log", given.zookeeper, "start-foreground", str(directory / "zoo.cfg"),
                JMXDISABLE="true", ZOO_LOG_DIR=str(directory),
            )
        )  # fmt: skip
        wait_until(lambda: zookeeper_answers(zookeeper), "ZooKeeper answers", 120.0)
        Life(servers, "warm-up").commit(0)  # __consumer_offsets has to be there when Burrow starts
        (directory / "burrow.toml").write_text(
            TOML.format(directory=directory, zookeeper=zookeeper, http=http, servers=servers)
        )
        monitor = running.enter_context(
            process(
                directory / "monitor.log", sys.executable, "-m", "agents.cli.main", "monitor",
                "--port", "0", "--no-own", "--cluster-name", "c",
                CURFEW_BOOTSTRAP_SERVERS=servers, CURFEW_DATA_DIR=str(directory),
            )
        )  # fmt: skip
        burrow = running.enter_context(process(directory / "burrow.out", given.burrow, "--config-dir", str(directory)))
        state = directory / "monitor" / "state.json"
        try:
            wait_until(state.exists, "the monitor serves", 120.0)
            wait_until(lambda: fetch(f"http://127.0.0.1:{http}/v3/kafka/c/consumer"), "Burrow serves", 120.0)
            ours = json.loads(state.read_bytes())["url"]
            seen = play(servers, f"http://127.0.0.1:{http}", ours, given.minutes * 60)
        finally:
            for name in ("burrow.out", "burrow.log", "monitor.log"):
                log = directory / name
                print(
                    f"--- {name}",
                    *(log.read_text(errors="replace").splitlines()[-5:] if log.exists() else ()),
                    sep="\n",
                )
        assert monitor.poll() is None
        assert burrow.poll() is None
    given.out.write_text(json.dumps({"summary": summary(seen), "answers": seen}, indent=1))
    for row in summary(seen):
        print(row)


if __name__ == "__main__":
    main()
