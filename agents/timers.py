"""Due work of a worker: looks at its timers when time has passed, in slices, and tells the clock what comes next.

How an app uses it (the rows are those of :mod:`streams.core.timers`)::

    due = DueWork(codec, fire, virtual=settings.clock is ClockMode.VIRTUAL)
    runtime.agent("usage", topics=[...], handler=handler, open=due.open)
    runtime.agent("ticks", topics=[TICKS], handler=due.run)

    def handler(batch):                       # every handler of the app is a generator and ends like this
        due.timers(batch).set("sim-1", at)    # whatever the records mean for timers
        yield from due.run(batch)             # and then all that is due

    def fire(batch, timers, timer):           # one timer has come: emit, put rows, set it again if it goes on
        ...

An app that has more to do between firing and reporting calls :meth:`DueWork.fire` and :meth:`DueWork.report` itself.

The app has to be a reader of ``clock.ticks`` in schemas/topics.toml and its agent of the ticks makes sure that time
passes; every other handler runs the due work too, or a timer that a record has put into the past would wait for a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from agents.due_report import DueReport
from streams.codec import Codec
from streams.core.timers import Timer, TimerIndex, Timers, rebuild
from streams.kafka.chunks import Batch

#: Timers between two points of durability. More, and a crash repeats more; fewer, and each costs a round trip.
SLICE = 500
#: With the wall's clock a batch fires so many slices and leaves the rest to the next one (there is a tick each second):
#: a million timers of one midnight must not keep a partition from its records for minutes.
SLICES_PER_BATCH = 4

Fire: TypeAlias = Callable[[Batch, Timers, Timer], None]

_INDEX = "timers"


class DueWork:
    """The timers of one app, shared by all its handlers.

    ``virtual``: the clock stands still until the work of a tick is done, so all of it is done at once. ``close`` is
    called after each slice, e.g. to put rows that have to be in front of others.
    """

    def __init__(
        self,
        codec: Codec,
        fire: Fire,
        *,
        virtual: bool,
        close: Callable[[Batch, Timers], None] = lambda batch, timers: None,
    ) -> None:
        self._due_report = DueReport(codec)
        self._fire = fire
        self._close = close
        self._virtual = virtual

    def open(self, batch: Batch) -> None:
        """Build the index from the rows; give it to the runtime as ``open`` of one agent."""
        batch.memory[_INDEX] = rebuild(batch.rows)

    def timers(self, batch: Batch) -> Timers:
        """The timers of this batch's partition."""
        index: TimerIndex = batch.memory[_INDEX]
        return Timers(batch.rows, index)

    def run(self, batch: Batch) -> Iterator[None]:
        """Fire what is due, slice by slice, and report the next instant; nothing happens before the first tick."""
        yield from self.fire(batch)
        self.report(batch)

    def is_ready(self, batch: Batch) -> bool:
        """Whether time counts: there was a tick, and the rows know what was sent before it.

        A worker that was away finds the newest tick at once, and what was paid meanwhile only after a while. A virtual
        clock moves only when everything is done, so there the rows are never behind.
        """
        return batch.now is not None and (self._virtual or batch.caught_up)

    def is_due(self, batch: Batch) -> bool:
        """Whether something is left to be fired."""
        return batch.now is not None and self.timers(batch).index.is_due(batch.now)

    def fire(self, batch: Batch) -> Iterator[None]:
        """Fire what is due, slice by slice, as much as one batch may."""
        if batch.now is None or not self.is_ready(batch):
            return
        timers, slices = self.timers(batch), 0
        while timers.index.is_due(batch.now) and (self._virtual or slices < SLICES_PER_BATCH):
            if slices:
                yield
            slices += 1
            for _ in range(SLICE):
                timer = timers.take(batch.now)
                if timer is None:
                    break
                self._fire(batch, timers, timer)
            self._close(batch, timers)

    def report(self, batch: Batch) -> None:
        """Tell the clock when this partition wants the next tick, if that has changed."""
        if batch.now is not None:
            self._due_report.tell(batch, self.timers(batch).index.next_at())
