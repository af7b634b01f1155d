"""How far a worker is in each of its partitions, between two rebalances: what is done, and what may be committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from streams.kafka.chunks import Chunk
from streams.topics import TICKS

#: Buffered records of one worker; over it the fullest partitions are paused, which costs them a refetch.
BUFFER_BYTES = 64 << 20

#: (topic, number)
Partition = tuple[str, int]


class Progress:
    """Which chunks of a partition are done; only the unbroken prefix of done ones may be committed."""

    __slots__ = ("_added", "_chunks", "_end", "_told", "_wanted")

    def __init__(self, committed: int, end: int = 0) -> None:
        """``end``: where the partition ended when it was assigned, for :attr:`caught_up`."""
        self._chunks: deque[Chunk] = deque()
        self._end = self._told = self._added = committed
        self._wanted = end

    def add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._added = chunk.next_offset

    def reach_end(self, offset: int) -> None:
        """The partition ends at ``offset``, and all records in front of it have been added. The last of them may be far
        in front: where a producer uses transactions, the partition ends with a mark that is no record."""
        self._end = max(self._end, offset)

    @property
    def caught_up(self) -> bool:
        """Whether everything is done that was in the partition when it was assigned."""
        waiting = next((chunk for chunk in self._chunks if not chunk.done), None)
        return (max(self._added, self._end) if waiting is None else waiting.records[0].offset) >= self._wanted

    def committable(self) -> int | None:
        """The offset that may be committed now, or None when nothing new is done."""
        offset = self._told
        while self._chunks and self._chunks[0].done:
            offset = self._chunks.popleft().next_offset
        if not self._chunks:
            offset = max(offset, self._end)
        if offset == self._told:
            return None
        self._told = offset
        return offset

    @property
    def outstanding(self) -> int:
        return len(self._chunks)

    @property
    def told(self) -> int:
        """The offset that was given out to be committed last."""
        return self._told


class Assignment:
    """The partitions of one assignment. ``start``: where each begins; ``ends``: where each ended then; ``fresh``: those
    that the group has not committed yet."""

    def __init__(
        self, start: Mapping[Partition, int], ends: Mapping[Partition, int], fresh: Mapping[Partition, int]
    ) -> None:
        self._progress = {partition: Progress(offset, ends.get(partition, 0)) for partition, offset in start.items()}
        self._buffered = dict.fromkeys(start, 0)
        self._most = BUFFER_BYTES // max(1, len(start))
        self._paused: set[Partition] = set()
        self._uncommitted = dict(fresh)
        self._numbers = {number for _, number in start}
        #: Partition number → its topics of which not all is done that was there at the assignment.
        self._behind: dict[int, set[str]] = {}
        for (topic, number), progress in self._progress.items():
            if topic != TICKS and not progress.caught_up:  # time jumps to its newest tick, see BusinessTime
                self._behind.setdefault(number, set()).add(topic)

    # -- what happens -----------------------------------------------------------------------------------------------

    def add(self, chunk: Chunk) -> bool:
        """A chunk was fetched; True when its partition holds too much now and is to be paused."""
        partition = chunk.topic, chunk.partition
        self._progress[partition].add(chunk)
        self._buffered[partition] += chunk.size
        if self._buffered[partition] <= self._most or partition in self._paused:
            return False
        self._paused.add(partition)
        return True

    def done(self, chunk: Chunk) -> bool:
        """A chunk is durable; True when its partition was paused and is to be resumed."""
        partition = chunk.topic, chunk.partition
        self._buffered[partition] -= chunk.size
        self._note_caught_up(partition)
        if partition not in self._paused or self._buffered[partition] >= self._most // 4:
            return False
        self._paused.discard(partition)
        return True

    def reach_end(self, partition: Partition, offset: int) -> None:
        """All records in front of ``offset`` were added, and there are no more now."""
        if partition in self._progress:
            self._progress[partition].reach_end(offset)
            self._note_caught_up(partition)

    def _note_caught_up(self, partition: Partition) -> None:
        topic, number = partition
        behind = self._behind.get(number)
        if behind is not None and self._progress[partition].caught_up:
            behind.discard(topic)
            if not behind:
                del self._behind[number]

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        """Kafka has these."""
        for partition, offset in offsets.items():
            if self._uncommitted.get(partition) == offset:
                del self._uncommitted[partition]

    # -- how things are ---------------------------------------------------------------------------------------------

    def to_commit(self) -> dict[Partition, int]:
        """The offsets up to which all is done, and which are not :meth:`committed` yet."""
        for partition, progress in self._progress.items():
            offset = progress.committable()
            if offset is not None:
                self._uncommitted[partition] = offset
        return dict(self._uncommitted)

    def caught_up(self, number: int) -> bool:
        """Whether all is done that was in the topics of this partition number when it was assigned."""
        return number in self._numbers and number not in self._behind

    @property
    def outstanding(self) -> int:
        """Chunks that are not done."""
        return sum(progress.outstanding for progress in self._progress.values())

    @property
    def idle(self) -> bool:
        """Whether everything that was fetched so far is done and committed."""
        return not self._uncommitted and not self.outstanding

    def lags(self, ends: Mapping[Partition, int]) -> dict[Partition, int]:
        """Records that are not done, where the end is known."""
        return {
            partition: max(0, end - self._progress[partition].told)
            for partition, end in ends.items()
            if end >= 0 and partition in self._progress
        }


#: Of a worker that has no partitions: it may not write anything.
NOTHING = Assignment({}, {}, {})
