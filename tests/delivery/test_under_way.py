"""Who writes the results of attempts: chunks go side by side, one of them writes for all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from agents.delivery import under_way
from agents.delivery.under_way import UnderWay, Waiting

#: A test that waits for ever shall fail.
AT_MOST_S = 30.0


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, AT_MOST_S))


def waiting_for(all_of_them: UnderWay[str], *names: str) -> Waiting:
    """A chunk with these attempts, which begins those that are not under way."""
    chunk = Waiting()
    for name in names:
        all_of_them.wait_for(chunk, all_of_them.get(name) or all_of_them.begin(name, None))
    return chunk


def end(all_of_them: UnderWay[str], *names: str) -> None:
    for name in names:
        running = all_of_them.get(name)
        assert running is not None
        running.ended.set_result(name)


async def write(all_of_them: UnderWay[str]) -> list[str]:
    found = await all_of_them.take()
    all_of_them.written(found)
    return [running.ended.result() for running in found]


def test_the_chunk_whose_turn_it_is_writes_for_all_and_those_without_anything_left_are_done() -> None:
    async def main() -> None:
        desk: UnderWay[str] = UnderWay()
        first, second = waiting_for(desk, "a", "slow"), waiting_for(desk, "b", "c")
        assert await desk.turn(first)
        done = asyncio.ensure_future(desk.turn(second))
        await asyncio.sleep(0)
        end(desk, "a", "b", "c")

        assert await write(desk) == ["a", "b", "c"]
        assert await done is False  # although the writer goes on waiting

    run(main())


def test_when_the_writer_has_nothing_left_another_chunk_writes() -> None:
    async def main() -> None:
        desk: UnderWay[str] = UnderWay()
        first, second = waiting_for(desk, "a"), waiting_for(desk, "b")
        assert await desk.turn(first)
        turn = asyncio.ensure_future(desk.turn(second))
        end(desk, "a")
        assert await write(desk) == ["a"]
        assert not await desk.turn(first)
        desk.leave(first)

        assert await turn
        end(desk, "b")
        assert await write(desk) == ["b"]

    run(main())


def test_all_that_is_under_way_is_not_waited_for_and_neither_is_more_than_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(under_way, "GATHER_S", 10 * AT_MOST_S)
    monkeypatch.setattr(under_way, "ENOUGH", 2)

    async def main() -> None:
        desk: UnderWay[str] = UnderWay()
        assert await desk.turn(waiting_for(desk, "a", "b", "c"))
        end(desk, "b", "a")
        assert await write(desk) == ["b", "a"]
        end(desk, "c")
        assert await write(desk) == ["c"]

    run(main())


def test_what_could_not_be_written_is_taken_again_by_the_next_writer() -> None:
    async def main() -> None:
        desk: UnderWay[str] = UnderWay()
        first, second = waiting_for(desk, "a"), waiting_for(desk, "a", "b")
        assert await desk.turn(first)
        end(desk, "a", "b")
        desk.put_back(await desk.take())
        desk.leave(first)

        assert await desk.turn(second)
        assert await write(desk) == ["a", "b"]
        assert not await desk.turn(second)

    run(main())


def test_attempts_that_were_given_up_hold_no_chunk() -> None:
    """Their rows are not durable; the chunk that brought them is decided again."""

    async def main() -> None:
        desk: UnderWay[str] = UnderWay()
        waiting_for(desk, "a")
        other = waiting_for(desk, "a")
        assert await desk.turn(other)
        writing = asyncio.ensure_future(desk.take())
        await asyncio.sleep(0)
        desk.give_up(["a"])

        assert await writing == []
        assert not await desk.turn(other)
        assert desk.get("a") is None

    run(main())
