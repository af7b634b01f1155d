"""Which look answers whoever asks for one of now; without a broker, the order of looks alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agents.monitor.own import OwnPart
from agents.monitor.process import Monitor, Options
from streams.settings import Settings
from tests.support.kafka_io import TIMEOUT_SECONDS


class Slow(Monitor):
    """Its looks end when the test says so."""

    def __init__(self, settings: Settings, options: Options) -> None:
        super().__init__(settings, options)
        self.began = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)

    def look(self) -> None:
        self.began.release()
        self.may_end.acquire()


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    settings = Settings(bootstrap_servers="127.0.0.1:1", data_dir=tmp_path)
    with closing(Slow(settings, Options(own=False))) as monitor:
        yield monitor


def test_a_look_that_began_before_the_question_is_no_answer_to_it(slow: Slow) -> None:
    """It may have read the group before the commit that is asked for; the next one is the answer."""

    async def story() -> None:
        under_way = asyncio.create_task(slow.look_again())
        await asyncio.to_thread(slow.began.acquire)
        asked = asyncio.create_task(slow.looked_after_now())
        await asyncio.sleep(0)
        slow.may_end.release()
        await under_way
        await asyncio.sleep(0)
        assert not asked.done()
        slow.may_end.release()
        await slow.look_again()
        await asyncio.wait_for(asked, TIMEOUT_SECONDS)

    asyncio.run(story())


def test_a_question_between_two_looks_is_answered_by_the_next(slow: Slow) -> None:
    """Not by the one after it."""

    async def story() -> None:
        slow.may_end.release()
        await slow.look_again()
        asked = asyncio.create_task(slow.looked_after_now())
        await asyncio.sleep(0)
        slow.may_end.release()
        await slow.look_again()
        await asyncio.wait_for(asked, TIMEOUT_SECONDS)

    asyncio.run(story())


def test_what_could_not_be_counted_is_a_metric(tmp_path: Path) -> None:
    """Without a broker nothing can be; an alert rule needs more than a line in /health."""
    settings = Settings(bootstrap_servers="127.0.0.1:1", data_dir=tmp_path)
    own = OwnPart(settings, ledger_every_s=0.0)

    before = own.text
    own.problems["deadlines"] = "no broker"

    assert 'curfew_monitor_not_counted{what="deadlines"} 0' in before
    assert 'curfew_monitor_not_counted{what="deadlines"} 1' in own.text
    assert "ledger" not in own.text  # it was switched off: not counting it is no failure
