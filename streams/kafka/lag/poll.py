"""One look at all consumer groups of a cluster, and what is remembered from look to look.

::

    survey (topics, groups) ── commits (offsets topic, else asked for) ── ends ── members ── first unread ── judged

No consumer group is joined and nothing is written. What one look may cost is bounded: what does not fit is taken up by
the next one, and says so.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from streams.core.lag.report import ClusterLag, GroupLag, Member, PartitionState, Place, group_lag
from streams.core.lag.rules import DEFAULT_LIMITS, Limits, Status
from streams.core.lag.track import LOOKS, Ends, Track
from streams.kafka.admin import admin_client
from streams.kafka.lag.commits import FETCH_S, CommitSource
from streams.kafka.lag.first_unread import FirstUnreadReader, Question
from streams.kafka.lag.group_members import MemberReader
from streams.kafka.lag.survey import Group, Survey, ends, survey

#: Looks in which a group that was only asked for is not listed, until it counts as deleted.
GONE_AFTER: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one look may take, in seconds and requests; each default names what it prevents."""

    #: Without the offsets topic groups are asked one by one.
    fetch_s: float = FETCH_S
    #: First unread records that are read, those of partitions that seem ill first.
    first_unread: int = 1_000
    first_unread_s: float = 2.0
    #: Groups whose members are asked for; each is a request.
    describe: int = 500
    #: Where partitions start changes with retention only.
    starts_every_s: float = 60.0


class LagPoller:
    """Looks at a cluster again and again; raises Transient from :meth:`look` when Kafka does not answer.

    ``wanted`` says of a group's name whether it is looked at. Use it from one thread.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        *,
        wanted: Callable[[str], bool] = lambda group: True,
        limits: Limits = DEFAULT_LIMITS,
        budget: Budget | None = None,
        use_topic: bool = True,
    ) -> None:
        self._config = dict(config)
        self._wanted = wanted
        self._limits = limits
        self._budget = budget or Budget()
        self._use_topic = use_topic
        self._admin = admin_client(self._config)
        self._first = FirstUnreadReader(self._config)
        self._member_reader = MemberReader(self._config)
        self._source = self._new_source()
        self._begin("")

    def _begin(self, cluster_id: str) -> None:
        """Forget everything: it was about another cluster, or from another source."""
        self._cluster_id = cluster_id
        self._tracks: dict[str, dict[Place, Track]] = {}
        self._ends: dict[Place, Ends] = {}
        self._members: dict[str, tuple[Member, ...]] = {}
        self._described: dict[str, int] = {}
        self._listed: dict[str, int] = {}
        self._looks: deque[int] = deque(maxlen=LOOKS)
        self._number = 0
        self._read_once = False
        self._starts_at = float("-inf")

    def _new_source(self) -> CommitSource:
        return CommitSource(self._config, self._wanted, use_topic=self._use_topic, fetch_s=self._budget.fetch_s)

    def close(self) -> None:
        self._first.close()
        self._source.close()
        self._member_reader.close()

    def look(self) -> ClusterLag:
        """Everything as it is now."""
        watch = _Watch()
        found = survey(self._admin)
        if found.cluster_id != self._cluster_id:
            self._source.close()
            self._source = self._new_source()
            self._begin(found.cluster_id)
        listed = {name: one for name, one in found.groups.items() if self._wanted(name)}
        watch.lap("survey")
        why = self._source.why
        self._source.read(self._admin, found, listed)
        if self._source.why != why:  # a window of two kinds of times is none
            self._begin(self._cluster_id)
        watch.lap("commits")
        self._look_at_ends(found)
        watch.lap("ends")
        now_ms = int(time.time() * 1000)
        self._number += 1
        groups = self._apply(listed, now_ms)
        self._look_at_members([name for name, one in groups.items() if one.may_have_members])
        watch.lap("members")
        complete = self._source.is_complete(listed)
        # Until the topic has been read to its end once, what looks like a last commit may be one of last week.
        self._read_once = self._read_once or complete or self._source.why is not None
        judged: tuple[GroupLag, ...] = ()
        if self._read_once:
            self._looks.append(now_ms)
            judged = self._judge(groups, now_ms)
        watch.lap("judged")
        return ClusterLag(
            cluster_id=found.cluster_id,
            at_ms=now_ms,
            took_s=watch.total(),
            brokers=found.brokers,
            controller=found.controller,
            topics={name: self._with_ends(name, partitions) for name, partitions in found.topics.items()},
            groups=judged,
            source="offsets_topic" if self._source.why is None else "offset_fetch",
            why=self._source.why,
            complete=complete,
            looks_ms=tuple(self._looks),
            seconds=watch.laps,
        )

    # -- committed offsets ------------------------------------------------------------------------------------------

    def _apply(self, groups: Mapping[str, Group], now_ms: int) -> dict[str, Group]:
        """Put what was read into the tracks. Returns the groups, with those that have offsets and are not listed: a
        broker that has just started lists those first that it has loaded. The topic says when a group is gone; without
        it, it is gone after some looks."""
        source = self._source
        for key, order, offset, at_ms in source.commits:
            place = key.topic, key.partition
            if offset is None:
                tracks = self._tracks.get(key.group, {})
                tracks.pop(place, None)
                if not tracks:
                    self._tracks.pop(key.group, None)
            else:
                self._track(key.group, place).commit(offset, order=order, at_ms=at_ms, ends=self._ends_of(place))
        for group, offsets in source.answers.items():
            tracks = self._tracks.setdefault(group, {})
            for place in tracks.keys() - offsets.keys():
                del tracks[place]
            for place, offset in offsets.items():
                self._track(group, place).commit(offset, order=self._number, at_ms=now_ms, ends=self._ends_of(place))
        source.commits.clear()
        source.answers.clear()
        self._listed |= dict.fromkeys(groups, self._number)
        for group in [one for one, number in self._listed.items() if number < self._number - GONE_AFTER]:
            del self._listed[group]
            if source.why is not None:
                self._tracks.pop(group, None)
        unlisted = sorted(self._tracks.keys() - groups.keys())
        return {**groups, **{group: Group(state="unlisted", kind="unknown") for group in unlisted}}

    def _track(self, group: str, place: Place) -> Track:
        tracks = self._tracks.setdefault(group, {})
        return tracks.get(place) or tracks.setdefault(place, Track(inferred=self._source.why is not None))

    # -- ends and members -------------------------------------------------------------------------------------------

    def _ends_of(self, place: Place) -> Ends:
        return self._ends.get(place) or self._ends.setdefault(place, Ends())

    def _look_at_ends(self, found: Survey) -> None:
        places = [
            (topic, number)
            for topic, partitions in found.topics.items()
            if not topic.startswith("__")
            for number, one in partitions.items()
            if one.leader >= 0
        ]
        readable = ends(self._admin, places, committed=True)
        highest = ends(self._admin, places)
        starts: dict[Place, int] = {}
        unknown = self._ends.keys() >= highest.keys()
        if not unknown or time.monotonic() - self._starts_at > self._budget.starts_every_s:
            starts = ends(self._admin, places, start=True)
            self._starts_at = time.monotonic()
        at_ms = int(time.time() * 1000)
        for place, end in highest.items():
            one = self._ends_of(place)
            one.look(start=starts.get(place, one.start), end=end, readable=readable.get(place, end), at_ms=at_ms)
        for place in self._ends.keys() - {*places}:
            if place[0] not in found.topics:
                del self._ends[place]  # the topic is gone

    def _look_at_members(self, names: list[str]) -> None:
        """Those that were asked longest ago first."""
        for gone in self._members.keys() - {*names}:
            del self._members[gone]
            self._described.pop(gone, None)
        names.sort(key=lambda name: self._described.get(name, 0))
        for group, found in self._member_reader.read(names[: self._budget.describe]).items():
            self._members[group] = found
            self._described[group] = self._number

    def _with_ends(self, topic: str, partitions: Mapping[int, PartitionState]) -> dict[int, PartitionState]:
        return {
            number: replace(one, start=known.start, end=known.end)
            if (known := self._ends.get((topic, number))) is not None
            else one
            for number, one in partitions.items()
        }

    # -- judging ----------------------------------------------------------------------------------------------------

    def _judge(self, groups: Mapping[str, Group], now_ms: int) -> tuple[GroupLag, ...]:
        todo: list[tuple[str, Place, Track, Ends]] = []
        for group in groups:
            tracks = self._tracks.get(group, {})
            for member in self._members.get(group, ()):
                # assigned, but nothing committed yet: a group that never got anything done would show no lag
                for place in member.places - tracks.keys():
                    if place in self._ends:
                        self._track(group, place)
            for place, track in sorted(self._tracks.get(group, {}).items()):
                one = self._ends.get(place)
                if one is not None and one.history.newest is not None:  # else: the topic is gone, its offsets are not
                    track.remember(one)
                    todo.append((group, place, track, one))
        self._read_first_unread(todo, now_ms)
        partitions: dict[str, list[Any]] = {name: [] for name in groups}
        for group, (topic, number), track, one in todo:
            partitions[group].append(
                track.look(
                    topic, number, one, now_ms=now_ms, limits=self._limits, members=len(self._members.get(group, ())),
                    first=self._first.known(_question(topic, number, track, one), one),
                )
            )  # fmt: skip
        looks = tuple(self._looks)
        return tuple(
            group_lag(
                name,
                state=one.state,
                kind=one.kind,
                members=self._members.get(name) if one.may_have_members else (),
                partitions=tuple(partitions[name]),
                looks_ms=looks,
            )
            for name, one in sorted(groups.items())
        )

    def _read_first_unread(self, todo: list[tuple[str, Place, Track, Ends]], now_ms: int) -> None:
        """Where it would change a verdict first, then where the most is unread."""
        asked: dict[Question, tuple[bool, int, int]] = {}
        known = []
        for group, (topic, number), track, one in todo:
            unread = track.unread(one)
            if unread == 0:
                continue
            question = _question(topic, number, track, one)
            if self._first.known(question, one) is not None:
                known.append(question)
                continue
            ill = (
                track.look(
                    topic, number, one, now_ms=now_ms, members=len(self._members.get(group, ())), limits=self._limits
                ).status
                is not Status.OK
            )
            asked[question] = max(asked.get(question, (False, 0, 0)), (ill, unread, one.readable))
        first = sorted(asked, key=lambda question: asked[question][:2], reverse=True)[: self._budget.first_unread]
        self._first.read(
            [(one, asked[one][2]) for one in first], deadline=time.monotonic() + self._budget.first_unread_s
        )
        self._first.forget_all_but([*known, *first])


def _question(topic: str, partition: int, track: Track, ends: Ends) -> Question:
    return Question(topic, partition, ends.start if track.committed is None else track.committed)


def by_name(wanted: Iterable[str], unwanted: Iterable[str] = ()) -> Callable[[str], bool]:
    """A filter: the whole name is, or matches, one of the regular expressions ``wanted`` (none: all), and none of
    ``unwanted``. Raises re.error for what is no regular expression."""
    some, none = [re.compile(one) for one in wanted], [re.compile(one) for one in unwanted]

    def among(group: str, patterns: list[re.Pattern[str]]) -> bool:
        return any(group == one.pattern or one.fullmatch(group) for one in patterns)

    return lambda group: (not some or among(group, some)) and not among(group, none)


class _Watch:
    """How long the parts of a look take, in seconds."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name], self._last = round(now - self._last, 3), now

    def total(self) -> float:
        return round(time.monotonic() - self._began, 3)
