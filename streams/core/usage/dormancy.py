"""Dormant SIMs: which of a service's SIMs had no usage for so many days in which the service was active.

Pure. The unit is the **line**: a service with its SIMs, one row. Days are UTC days. The silence of a SIM begins at the
end of the last day with usage (or at its activation), and the time in which its service is Active adds up from there;
the SIM is dormant from the first UTC midnight at which ``days`` × 24 h are reached. An **episode** of dormancy is
identified by the beginning of its silence, so it has one id however often, and in whatever order, it is found.

Usage only moves dates. It writes a line at most once per SIM and day (a second record of a day says nothing new), and
it decides nothing but the end of an episode that was told. Whether there was an episode is judged when time has passed
(:func:`judge`), on all that is known by then: so it does not matter which of usage, SIM, state and product came first.
For that, a line remembers **gaps**: days without usage between two days with, long enough to be an episode by the
shortest rule, until they are judged. Usage that is late splits a gap that is not judged yet; inside an episode that was
told it corrects it (``sim.active_again`` with ``correction``); anything older changes nothing, told is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta

from streams.core.catalogue import CATALOGUE
from streams.core.event_rules import DORMANT as DORMANT_RULE
from streams.core.event_rules import EventRule
from streams.core.events import Finding, Value
from streams.core.graph import plain
from streams.core.ids import event_id, instant_text
from streams.core.objects import ServiceState
from streams.core.rows import Kind
from streams.core.usage.objects import About, Sim, SimChange, UsageContext

#: Of a SIM whose product has no rule of its own, when no rule without a product says otherwise.
DEFAULT_DAYS = 30
#: A line is read and written as one row: a service with more SIMs than this is a fleet, and each SIM needs its own.
MAX_SIMS = 100
#: A service that is switched on and off forever must not grow its row forever; the oldest pauses are forgotten.
MAX_TURNS = 200
#: Gaps that cannot be judged yet, because the SIM is not defined; the oldest are forgotten.
MAX_GAPS = 20

DORMANT, ACTIVE_AGAIN = "sim.dormant", "sim.active_again"
#: Track of the usage that names no SIM: it counts for every SIM of the service.
ANY_SIM = ""

_DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """No usage after day ``after`` (an ordinal; None: since the activation) and before ``until``, the usage that ended
    it."""

    after: int | None
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """Days with usage, as far as they matter: the last one (an ordinal), and the long gaps before it in their order."""

    last: int
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimState:
    """One SIM of a line. ``dormant``: when the silence of the episode began that was told and has not ended.

    ``known_since``: when its first change occurred; silence before that does not count, or a fleet that is brought in
    would be dormant at the first tick. ``judged``: gaps that end on or before this day (an ordinal) have been judged.
    """

    revision: int
    known_since: datetime
    sim: Sim | None
    dormant: datetime | None = None
    judged: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A service with its SIMs and tracks (by SIM, :data:`ANY_SIM` for usage that names none).

    The service was Active or not before the first of ``turns`` (``was_active``), and from each turn on as it says.
    Nothing is judged while ``state_revision`` is 0: whether the service is active is not known.
    """

    service_id: str
    state_revision: int = 0
    was_active: bool = False
    turns: tuple[tuple[datetime, bool], ...] = ()
    plan_revision: int = 0
    product_id: str | None = None
    sims: dict[str, SimState] = field(default_factory=dict)
    tracks: dict[str, Track] = field(default_factory=dict)


class Rules:
    """Days until a SIM is dormant, by product; compiled from the event rules as they are."""

    def __init__(self, rules: Iterable[EventRule] = ()) -> None:
        # Of two rules for one product the last by name counts: any order would do, but it must be the same everywhere.
        mine = sorted((rule for rule in rules if rule.type == DORMANT_RULE), key=lambda rule: rule.name)
        self._days = {rule.product_id: rule.days if rule.active else None for rule in mine}
        self._days.setdefault(None, DEFAULT_DAYS)
        #: The shortest of them: a gap of less is no episode by any rule.
        self.shortest = min((days for days in self._days.values() if days is not None), default=DEFAULT_DAYS)

    def days(self, product_id: str | None) -> int | None:
        """Days for SIMs of this product; None: never."""
        return self._days[product_id if product_id in self._days else None]


# -- room -------------------------------------------------------------------------------------------------------------


def with_room_for_sim(line: Line, sim_id: str) -> Line | None:
    """The line with room for a SIM, if need be without the one that left it first; None when all are there still.

    A line whose SIMs are swapped again and again is no fleet. What is forgotten is only which revision was its last.
    """
    if sim_id in line.sims or len(line.sims) < MAX_SIMS:
        return line
    gone = [(state.known_since, id) for id, state in line.sims.items() if state.sim is None]
    return _without(line, min(gone)[1]) if gone else None


def with_room_for_track(line: Line, sim_id: str | None) -> Line | None:
    """The line with room for the usage of one more SIM, if need be without the oldest track of a SIM that is not here;
    None when all tracks are of SIMs that are."""
    if (sim_id or ANY_SIM) in line.tracks or len(line.tracks) <= MAX_SIMS:
        return line
    here = {id for id, state in line.sims.items() if state.sim is not None} | {ANY_SIM}
    strangers = [(track.last, id) for id, track in line.tracks.items() if id not in here]
    if not strangers:
        return None
    tracks = {id: track for id, track in line.tracks.items() if id != min(strangers)[1]}
    return replace(line, tracks=tracks)


def _without(line: Line, sim_id: str) -> Line:
    return replace(
        line,
        sims={id: state for id, state in line.sims.items() if id != sim_id},
        tracks={id: track for id, track in line.tracks.items() if id != sim_id},
    )


# -- what arrives -----------------------------------------------------------------------------------------------------


def take_sim(line: Line, change: SimChange, *, here: bool) -> Line | None:
    """The line with this change of one of its SIMs; None if it is old. ``here``: the SIM is this service's now."""
    known = line.sims.get(change.subject.id)
    if known is not None and change.revision <= known.revision:
        return None
    sim = change.current if here else None
    if known is None or (known.sim is None and sim is not None):  # one that comes back begins anew
        state = SimState(revision=change.revision, known_since=change.occurred_at, sim=sim)
    elif sim is None:
        state = replace(known, revision=change.revision, sim=None, dormant=None)
    else:
        state = replace(known, revision=change.revision, sim=sim)
    return replace(line, sims={**line.sims, change.subject.id: state})


def take_context(line: Line, context: UsageContext) -> Line | None:
    """The line with this state or product of its service; None if it is old."""
    if context.about is About.PRODUCT:
        if context.revision <= line.plan_revision:
            return None
        return replace(line, plan_revision=context.revision, product_id=context.product_id)
    if context.revision <= line.state_revision:
        return None
    turns, was_active = line.turns, line.was_active
    if line.state_revision == 0:
        was_active = context.previous_state == ServiceState.ACTIVE
    active = context.state == ServiceState.ACTIVE
    if active != (turns[-1][1] if turns else was_active):
        at = max(context.since, turns[-1][0]) if turns else context.since
        turns = (*turns, (at, active))
    if len(turns) > MAX_TURNS:
        was_active, turns = turns[0][1], turns[1:]
    return replace(line, state_revision=context.revision, was_active=was_active, turns=turns)


def take_usage(line: Line, sim_id: str | None, at: datetime, rules: Rules) -> tuple[Line, list[Finding]] | None:
    """The line with usage at ``at``, and the ends of the episodes that it ends; None when it says nothing new."""
    key = sim_id or ANY_SIM
    before = line.tracks.get(key)
    track = _used(before, at, rules.shortest)
    if track is before:
        return None
    after = replace(line, tracks={**line.tracks, key: track})
    findings: list[Finding] = []
    for id, state in line.sims.items():
        if state.dormant is not None and key in (ANY_SIM, id) and _is_over(after, id, state):
            findings.append(_active_again(line, state, state.dormant, at, rules))
            ended = replace(state, dormant=None, judged=max(state.judged, _ordinal(at)))
            after = replace(after, sims={**after.sims, id: ended})
    return after, findings


def _is_over(line: Line, sim_id: str, state: SimState) -> bool:
    """Whether the silence that was told to be dormancy does not last any more."""
    silences = list(_silences(line, sim_id, state))
    return bool(silences) and all(since != state.dormant or until is not None for since, until in silences)


def _used(track: Track | None, at: datetime, shortest: int) -> Track:
    """``track`` with usage at ``at``; the same object when nothing changes."""
    day = _ordinal(at)
    if track is None:
        return Track(last=day, gaps=(Gap(after=None, until=at),))
    if day > track.last:
        gap = Gap(after=track.last, until=at)
        gaps = (*track.gaps, gap) if _length(gap) >= shortest else track.gaps
        return Track(last=day, gaps=gaps[-MAX_GAPS:])
    for number, gap in enumerate(track.gaps):
        if day < _ordinal(gap.until) and (gap.after is None or gap.after < day):
            parts = (Gap(after=gap.after, until=at), Gap(after=day, until=gap.until))
            kept = [part for part in parts if part.after is None or _length(part) >= shortest]
            return replace(track, gaps=(*track.gaps[:number], *kept, *track.gaps[number + 1 :])[-MAX_GAPS:])
    return track


def _length(gap: Gap) -> int:
    """Whole days without usage."""
    assert gap.after is not None
    return _ordinal(gap.until) - gap.after - 1


# -- what is judged ---------------------------------------------------------------------------------------------------


def judge(line: Line, now: datetime, rules: Rules) -> tuple[Line, list[Finding]]:
    """The episodes of this line that are known at ``now`` and were not told: each one's beginning and, where usage has
    ended it already, its end. The same line when there is none."""
    findings: list[Finding] = []
    after = line
    for id, state in line.sims.items():
        judged = state
        for since, due, until in _episodes(line, id, state, rules):
            if due > now:
                break
            if judged.dormant != since:
                findings.append(_dormant(line, state, since, due, rules))
                judged = replace(judged, dormant=since)
            if until is not None:
                findings.append(_active_again(line, state, since, until, rules))
                judged = replace(judged, dormant=None, judged=_ordinal(until))
        if judged is not state:
            after = replace(after, sims={**after.sims, id: judged})
    return (_pruned(after), findings) if after is not line else (line, findings)


def wake_at(line: Line, rules: Rules) -> datetime | None:
    """When this line has to be judged next; it may be past. None: only something else than time can change it."""
    dues = [
        due
        for id, state in line.sims.items()
        for since, due, _ in _episodes(line, id, state, rules)
        if since != state.dormant
    ]
    return min(dues, default=None)


def _episodes(
    line: Line, sim_id: str, state: SimState, rules: Rules
) -> Iterator[tuple[datetime, datetime, datetime | None]]:
    """(since, due, until) of the silences that are not judged and became, or will become, dormancy at ``due``."""
    days = rules.days(line.product_id)
    if days is None or line.state_revision == 0:
        return
    for since, until in _silences(line, sim_id, state):
        due = _due(line, since, days)
        if due is not None and (until is None or due <= until):
            yield since, due, until


def _silences(line: Line, sim_id: str, state: SimState) -> Iterator[tuple[datetime, datetime | None]]:
    """(since, until) of the long silences of a SIM that are not judged, in their order; the last one lasts (None)."""
    if state.sim is None or state.sim.activated_at is None:
        return
    begin = max(state.sim.activated_at, state.known_since)
    track = _track(line, sim_id)
    for gap in () if track is None else track.gaps:
        since = begin if gap.after is None else max(begin, _end_of(gap.after))
        if _ordinal(gap.until) > state.judged and gap.until > since:
            yield since, gap.until
    yield (begin if track is None else max(begin, _end_of(track.last))), None


def _due(line: Line, since: datetime, days: int) -> datetime | None:
    """The first UTC midnight at which the service has been active for ``days`` since ``since``; None: it is not now."""
    left, active, at = days * _DAY, line.was_active, since
    for turn, becomes in line.turns:
        if turn > at:
            if active and turn - at >= left:
                break
            left -= turn - at if active else timedelta(0)
            at = turn
        active = becomes
    return _midnight(at + left) if active else None


def _track(line: Line, sim_id: str) -> Track | None:
    """The days with usage of a SIM: its own, and those of usage that names no SIM."""
    own, common = line.tracks.get(sim_id), line.tracks.get(ANY_SIM)
    if own is None or common is None:
        return common if own is None else own
    # Silence of both: the overlaps of their gaps. The one that ended first is silent until today, beyond its last day.
    first, second = (own, common) if own.last <= common.last else (common, own)
    overlaps = [
        Gap(after=_later(one.after, other.after), until=min(one.until, other.until))
        for one in (*first.gaps, Gap(after=first.last, until=_start_of(second.last + 1)))
        for other in second.gaps
        if _later(one.after, other.after, 0) < min(_ordinal(one.until), _ordinal(other.until))
    ]
    return Track(last=second.last, gaps=tuple(sorted(overlaps, key=lambda gap: gap.until)))


def _later(one: int | None, other: int | None, nothing: int | None = None) -> int:
    found = [day for day in (one, other) if day is not None]
    return max(found) if found else nothing  # type: ignore[return-value]


def _pruned(line: Line) -> Line:
    """Without the gaps that are judged for all SIMs, and the turns before all that can still be judged."""
    judged = min(state.judged for state in line.sims.values())
    tracks = {
        id: replace(track, gaps=tuple(gap for gap in track.gaps if _ordinal(gap.until) > judged))
        for id, track in line.tracks.items()
    }
    begin = min((_end_of(track.last) for track in tracks.values() if not track.gaps), default=_EPOCH)
    if any(track.gaps for track in tracks.values()) or any(_track(line, id) is None for id in line.sims):
        begin = _EPOCH
    was_active, turns = line.was_active, line.turns
    while turns and turns[0][0] <= begin:
        was_active, turns = turns[0][1], turns[1:]
    return replace(line, tracks=tracks, was_active=was_active, turns=turns)


# -- what is told -----------------------------------------------------------------------------------------------------


def _dormant(line: Line, state: SimState, since: datetime, due: datetime, rules: Rules) -> Finding:
    return _finding(DORMANT, line, state, since, due, rules, {})


def _active_again(line: Line, state: SimState, since: datetime, at: datetime, rules: Rules) -> Finding:
    days = rules.days(line.product_id)
    due = None if days is None else _due(line, since, days)
    facts: dict[str, Value] = {"usage_at": at, "correction": due is not None and at < due}
    return _finding(ACTIVE_AGAIN, line, state, since, at, rules, facts)


def _finding(
    type: str, line: Line, state: SimState, since: datetime, at: datetime, rules: Rules, facts: dict[str, Value]
) -> Finding:
    assert state.sim is not None
    days = rules.days(line.product_id)
    due = None if days is None else _due(line, since, days)
    return Finding(
        event_id=event_id(type, Kind.SIM, state.sim.id, instant_text(since)),
        type=type,
        occurred_at=at,
        subject_kind=Kind.SIM,
        subject_id=state.sim.id,
        account_id=state.sim.account_id,
        sequence=state.revision,
        current=plain(Kind.SIM, state.sim),
        facts={"days": days, "silent_since": since, "dormant_at": due, **facts},
        audience=CATALOGUE[type].audience,
    )


# -- days -------------------------------------------------------------------------------------------------------------


def _ordinal(at: datetime) -> int:
    return (at - _EPOCH).days + _EPOCH_ORDINAL


def _start_of(day: int) -> datetime:
    return _EPOCH + (day - _EPOCH_ORDINAL) * _DAY


def _end_of(day: int) -> datetime:
    return _start_of(day + 1)


def _midnight(at: datetime) -> datetime:
    """The first UTC midnight at or after ``at``."""
    return _EPOCH + -((_EPOCH - at) // _DAY) * _DAY
