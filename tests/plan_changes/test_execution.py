"""The executor on a lane as the runtime has it, with hooks that take their time, and a worker that has to let go."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from agents.plan_changes import execution
from agents.plan_changes.steps import CONCURRENT_HOOKS
from streams.core.hooks import Hook, Hookpoint, Proceed, Verdict, WorkflowContext
from streams.kafka.chunks import Chunk, Record
from streams.kafka.lanes import Agent, Lane
from streams.kafka.store import MemoryStore, Store
from streams.topics import COMMANDS, OUTCOMES
from tests.plan_changes.makers import a_command
from tests.plan_changes.plant import Plant
from tests.runtime.test_lanes import Refusing, Stores, works_of

COMMANDS_OF_A_CHUNK = 320
HOOK_S = 0.2


class Lasting(MemoryStore):
    """Its rows are there for the next lane, as if they had been recovered."""

    def close(self) -> None:
        pass


class Kept(Stores):
    """One store, whoever opens it."""

    def __init__(self) -> None:
        self.store = Lasting()

    def open(self, partition: int, stopped: Callable[[], bool]) -> Store:
        return self.store


class Slow:
    """A hook that takes its time; ``calls``: of which services it was called, ``twice``: beside itself for one."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.twice: set[str] = set()
        self._under_way: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, context: WorkflowContext) -> Verdict:
        service = context.command.service_id
        with self._lock:
            self.calls[service] += 1
            if service in self._under_way:
                self.twice.add(service)
            self._under_way.add(service)
        time.sleep(HOOK_S)
        with self._lock:
            self._under_way.discard(service)
        return Proceed()


class Night:
    """A chunk of commands, the store that its partition has, and what becomes of it on one lane after another."""

    def __init__(self, count: int, unreadable: int = 0) -> None:
        self.hook = Slow()
        self.stores = Kept()
        self.outbox = Refusing()
        self.outbox.waits = 1  # it delivers
        plant = Plant(hooks=(Hook(name="slow", key=Hookpoint.PRIOR, call=self.hook, budget_seconds=30.0),))
        self._ports = plant.ports
        commands = [a_command(service_id=f"S{number}", command_id=str(number)) for number in range(count)]
        values = [b"unreadable"] * unreadable + [plant.codec.encode(COMMANDS, one) for one in commands]
        keys = ["?"] * unreadable + [one.service_id for one in commands]
        self._records = [
            Record(COMMANDS, 0, offset, key.encode(), value, [], 0)
            for offset, (key, value) in enumerate(zip(keys, values, strict=True))
        ]

    def recorded(self) -> set[str]:
        return {key.decode().split("/")[1] for key, _ in self.stores.store.scan(b"result/")}

    def sent(self, topic: str) -> int:
        return self.outbox.sent.count(topic)

    async def on_a_lane(self, until: Callable[[], bool]) -> tuple[bool, float]:
        """Have it handled by a new worker until that is true; whether it was done, and how long the
        lane took to close."""
        chunk, done = Chunk(COMMANDS, 0, 1, self._records), list[Chunk]()
        with ThreadPoolExecutor(1) as threads:
            lane = Lane(works_of(threads, outbox=self.outbox, stores=self.stores, on_done=done.append), 0, 1)
            lane.put(chunk, Agent(execution.Execution(self._ports).commands))
            async with asyncio.timeout(60.0):
                while not done and not until():
                    await asyncio.sleep(0.02)
            began = time.monotonic()
            await lane.close()
            return chunk.done, time.monotonic() - began


def test_a_worker_that_lets_go_finishes_only_what_it_has_begun_and_the_next_one_begins_the_rest() -> None:
    """A rebalance waits a minute, the supervisor twenty seconds; a chunk with slow hooks may take longer."""
    night = Night(COMMANDS_OF_A_CHUNK, unreadable=1)

    done, took = asyncio.run(night.on_a_lane(lambda: bool(night.recorded())))
    first = set(night.hook.calls)
    put_aside, results, recorded = night.sent("dead-letters.test"), night.sent(OUTCOMES), night.recorded()
    done_next, _ = asyncio.run(night.on_a_lane(lambda: False))

    assert not done
    assert took < 5 * HOOK_S  # all of it takes ten times as long as a hook
    assert recorded == first
    assert (put_aside, results) == (0, len(first))
    assert CONCURRENT_HOOKS <= len(first) < COMMANDS_OF_A_CHUNK - CONCURRENT_HOOKS
    assert done_next
    assert set(night.hook.calls.values()) == {1}
    assert len(night.recorded()) == COMMANDS_OF_A_CHUNK
    assert night.sent(OUTCOMES) == len(first) + COMMANDS_OF_A_CHUNK  # what was recorded is sent again
    assert night.sent("dead-letters.test") == 1


def test_hooks_that_are_under_way_end_before_their_chunk_is_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka has not taken a part of the results: nothing new begins, and no hook is called beside itself."""
    monkeypatch.setattr(execution, "RECORD_EVERY_S", HOOK_S * 1.5)
    night = Night(CONCURRENT_HOOKS * 3)
    night.outbox.waits = 0  # the first delivery fails

    done, _ = asyncio.run(night.on_a_lane(lambda: False))

    assert done
    assert not night.hook.twice
    assert len(night.recorded()) == CONCURRENT_HOOKS * 3
    assert sum(night.hook.calls.values()) <= CONCURRENT_HOOKS * 5
