"""The ledger upstream of the queues: what became of every record that the events worker has taken,

    input  = applied + stale + duplicate + dead
    raised = routed + unrouted

The checker folds the records of a topic by itself, in their order, and compares with what the worker has left behind: a
record counts if the row of its object has come to its revision, an event if a queue has it. "unrouted" is the one term
that only the worker can know, as it depends on the routes of that moment; it is taken from its counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.core.detectors import detect
from streams.core.events import Finding
from streams.core.invoice_due import first_delivery
from streams.core.rows import Kind, object_key

#: What is not known: the object's state before the first record of it that was read.
_BEFORE_THAT: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One topic. ``missing`` are the places of records that are nowhere; ``lag``: what the worker has still to take."""

    topic: str
    input: int
    applied: int
    stale: int
    duplicate: int
    dead: int
    missing: tuple[str, ...]
    lag: int

    @property
    def difference(self) -> int:
        return len(self.missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """Events of one type that come from one topic. ``missing``: in no queue and not unrouted; of several that are in no
    queue it cannot be said which ones those are, so all are named."""

    topic: str
    type: str
    raised: int
    routed: int
    unrouted: int
    missing: tuple[str, ...]

    @property
    def difference(self) -> int:
        return self.raised - self.routed - self.unrouted


@dataclass(slots=True, eq=False)
class Fold:
    """The records of one topic, in the order of each partition. ``kind`` None: findings, which are all new."""

    topic: str
    kind: Kind | None
    lag: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    #: Event id → type, of what the records must have raised.
    raised: dict[str, str] = field(default_factory=dict)
    _newest: dict[tuple[int, bytes], tuple[int, str]] = field(default_factory=dict)
    _current: dict[tuple[int, bytes], Any] = field(default_factory=dict)
    _unread: list[str] = field(default_factory=list)

    def put_aside(self) -> None:
        """A record that lies in the dead letters."""
        self.counts["dead"] += 1

    def unread(self, place: str) -> None:
        """A record that nobody can read and that lies in no dead letter."""
        self._unread.append(place)

    def found(self, finding: Finding) -> None:
        self.counts["applied"] += 1
        self.raised[finding.event_id] = finding.type

    def changed(self, partition: int, place: str, change: Any) -> None:
        """A change of an object: news, older than what is known, or the same again."""
        assert self.kind is not None
        key = partition, object_key(self.kind, change.subject.id)
        known, _ = self._newest.get(key, (0, ""))
        if change.revision <= known:
            self.counts["duplicate" if change.revision == known else "stale"] += 1
            return
        self.counts["applied"] += 1
        before = self._current.get(key, None if change.revision == 1 else _BEFORE_THAT)
        current = change.current
        if before is not _BEFORE_THAT:  # else: what it means may depend on what was known, so it is not guessed
            self.raised |= {one.event_id: one.type for one in detect(self.kind, change, before)}
            if self.kind is Kind.INVOICE and current is not None and before is not None:
                current = first_delivery(before, current)
        self._newest[key], self._current[key] = (change.revision, place), current

    @property
    def objects(self) -> Iterable[tuple[int, bytes]]:
        """Partition and row key of the objects that the records are about."""
        return self._newest.keys()

    def input(self, revision: Callable[[tuple[int, bytes]], int]) -> Input:
        """``revision``: of the row of an object, 0 where there is none."""
        lost = [place for key, (newest, place) in self._newest.items() if revision(key) < newest]
        counts = self.counts
        return Input(
            topic=self.topic,
            input=counts.total() + len(self._unread),
            applied=counts["applied"] - len(lost),
            stale=counts["stale"],
            duplicate=counts["duplicate"],
            dead=counts["dead"],
            missing=tuple(sorted([*lost, *self._unread])),
            lag=self.lag,
        )

    def events(self, in_queues: set[str], unrouted: Mapping[str, int]) -> list[Raised]:
        """``in_queues``: event ids. ``unrouted``: type → how many the worker has counted for this topic, ever."""
        absent: dict[str, list[str]] = {}
        types = Counter(self.raised.values())
        for event_id, type in self.raised.items():
            if event_id not in in_queues:
                absent.setdefault(type, []).append(event_id)
        found = []
        for type, raised in sorted(types.items()):
            here = absent.get(type, [])
            excused = min(len(here), unrouted.get(type, 0))
            missing = tuple(sorted(here)) if len(here) > excused else ()
            found.append(
                Raised(topic=self.topic, type=type, raised=raised, routed=raised - len(here), unrouted=excused,
                       missing=missing)
            )  # fmt: skip
        return found
