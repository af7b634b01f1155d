"""What to do next in one partition: queues derived from the rows, kept in memory.

Entries are hints: each is checked against its row before anything is done, so stale and repeated ones are harmless. The
rows are thrown away when a chunk has to be decided again; the index is then rebuilt from what is left.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Final, TypeAlias

from streams.core.delivery.units import ENDPOINT, LANE, UNIT, Disabled, Rows, State, Table, Unit, decode
from streams.core.delivery.window import Window

#: (queue offset, unit id): the order in which units of a subscription are tried.
Place: TypeAlias = tuple[int, str]
#: Added to the offsets of replays: a replay of days goes behind what happens now, not before it.
AFTER_LIVE: Final = 1 << 62
#: (subscription id, ordering key)
Lane: TypeAlias = tuple[str, str]


@dataclass(slots=True, eq=False)
class Index:
    """``lanes``: open units of a key in queue order. Heaps: ``ready`` may be tried now, ``due`` later."""

    lanes: dict[Lane, deque[Place]] = field(default_factory=dict)
    ready: dict[str, list[Place]] = field(default_factory=dict)
    due: list[tuple[int, str, Place]] = field(default_factory=list)
    windows: dict[str, Window] = field(default_factory=dict)
    parked: set[Lane] = field(default_factory=set)
    disabled: dict[str, int] = field(default_factory=dict)
    sweep_bucket: int = 0
    swept_ms: int = 0
    #: When what is in flight was last looked at, and what was then: unit id → number of the attempt.
    asked_ms: int = 0
    flew: dict[str, int] = field(default_factory=dict)

    def join(self, unit: Unit) -> None:
        """Put ``unit`` at its place in its lane, if it waits in one."""
        if unit.lane is None:
            return
        place = place_of(unit)
        lane = self.lanes.setdefault((unit.subscription_id, unit.lane), deque())
        if not lane or lane[-1] < place:
            lane.append(place)
        elif place not in lane:
            # Only a redriven unit comes late; it goes to where it was.
            lane.insert(bisect_left(lane, place), place)

    def wait(self, unit: Unit, now_ms: int) -> None:
        """Make ``unit`` ready if it is due, otherwise remember when it will be."""
        place = place_of(unit)
        if unit.due_ms <= now_ms:
            heappush(self.ready.setdefault(unit.subscription_id, []), place)
        else:
            heappush(self.due, (unit.due_ms, unit.subscription_id, place))

    def wake(self, now_ms: int) -> None:
        """Move what has become due to ``ready``."""
        while self.due and self.due[0][0] <= now_ms:
            _, subscription_id, place = heappop(self.due)
            heappush(self.ready.setdefault(subscription_id, []), place)

    def head(self, lane: Lane, table: Table) -> Unit | None:
        """The first open unit of a lane; finished ones are dropped on the way."""
        places = self.lanes.get(lane)
        while places:
            unit = table.unit(places[0][1])
            if unit is not None:
                return unit
            places.popleft()
        self.lanes.pop(lane, None)
        return None

    def window(self, subscription_id: str) -> Window:
        """What is in flight of a subscription, and how much may be."""
        found = self.windows.get(subscription_id)
        if found is None:
            found = self.windows[subscription_id] = Window()
        return found


def place_of(unit: Unit) -> Place:
    """Its place among the units of its subscription."""
    return unit.offset + (AFTER_LIVE if unit.replay is not None else 0), unit.unit_id


def rebuild(rows: Rows) -> Index:
    """The index of all rows; the cost is that of the open units, since finished ones have another prefix."""
    index, table = Index(), Table(rows)
    waiting: list[Unit] = []
    for unit in sorted((decode(data, Unit) for _, data in rows.scan(UNIT)), key=place_of):
        index.join(unit)
        if unit.state is State.IN_FLIGHT:
            index.window(unit.subscription_id).flying.add(unit.unit_id)
        elif unit.lane is None:
            waiting.append(unit)
    for lane in list(index.lanes):
        head = index.head(lane, table)
        if head is not None and head.state is State.PENDING:
            waiting.append(head)
    for unit in waiting:
        # -1 is before every due instant: all go to the due heap, from which the next tick takes what is due.
        index.wait(unit, -1)
    for key, _ in rows.scan(LANE):
        subscription_id, lane_name = key[len(LANE) :].decode().split("/", 1)
        index.parked.add((subscription_id, lane_name))
    for key, data in rows.scan(ENDPOINT):
        index.disabled[key[len(ENDPOINT) :].decode()] = decode(data, Disabled).version
    return index
