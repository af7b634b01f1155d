"""The canary: every hour a real rate plan change of a service of our own goes the whole way, and is measured.

A change takes place at a midnight, and every hour it is midnight somewhere: there is one canary account with one
service in each of the 24 zones ``Etc/GMT±N``, named by the UTC hour of its midnight (:mod:`agents.canary.fleet`). Two
hours before it, its change is ordered, silent and without fees, from plan ``canary-a`` to ``canary-b`` or back: 24
changes a day.

This module decides, and is pure; :mod:`agents.canary.process` orders, reads what comes of it, and tells.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from streams.core import ids
from streams.core.plan_change.messages import Acknowledgement, AcknowledgementKind, Reply, Request, RequestKind
from streams.core.watch import release_at
from streams.core.watch_rules import Level, Verdict

PREFIX: Final = "canary-"
#: The two plans between which a canary goes there and back, each with the element that leads away from it.
PLANS: Final = ("canary-a", "canary-b")
ELEMENTS: Final = ("canary-a-to-b", "canary-b-to-a")
CHANNEL: Final = "canary"
LEAD: Final = timedelta(hours=1)
HOUR: Final = timedelta(hours=1)
_INSTANTS: Final = ("midnight", "ordered_at", "accepted_at", "due_at", "persisted_at", "effective_at")

#: An order is answered within seconds; more than this, and an order of a customer would wait as well.
ACCEPTED_WITHIN: Final = timedelta(minutes=10)
#: A change is persisted seconds after its release; this is the watchdog's patience too.
PERSISTED_WITHIN: Final = timedelta(minutes=10)
#: The world hears of it seconds after the deadline.
EFFECTIVE_WITHIN: Final = timedelta(minutes=10)
#: Probes that are remembered: a day and a night of them.
REMEMBERED: Final = 36
#: Seconds, upper bounds of the histograms; the last bucket has no bound.
BUCKETS_S: Final = (1, 2, 5, 10, 30, 60, 120, 300, 600)
#: The same from an order to its commit: it waits an hour for its start, and up to half an hour for its turn.
ROUND_TRIP_S: Final = (1800, 3600, 3900, 4200, 4500, 4800, 5100, 5400, 6000, 7200)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One change of one canary; instants are business time, None for what has not happened (yet)."""

    midnight: datetime
    element: str
    ordered_at: datetime
    request_id: str
    change_id: str | None = None
    refused: str | None = None
    accepted_at: datetime | None = None
    due_at: datetime | None = None
    persisted_at: datetime | None = None
    effective_at: datetime | None = None

    @property
    def service_id(self) -> str:
        return f"{PREFIX}{self.midnight:%H}"

    @property
    def missed(self) -> bool:
        return self.persisted_at is not None and self.persisted_at >= self.midnight

    def seconds(self) -> dict[str, float | None]:
        """How long each stage took, and what was left before the deadline."""
        return {
            "accepted_s": _between(self.ordered_at, self.accepted_at),
            "persisted_s": _between(self.due_at, self.persisted_at),
            "effective_s": _between(self.midnight, self.effective_at),
            "round_trip_s": _between(self.ordered_at, self.persisted_at),
            "margin_s": _between(self.persisted_at, self.midnight),
        }

    def row(self, now: datetime) -> dict[str, Any]:
        """For tables and JSON."""
        verdict = judge(self, now)
        found: dict[str, Any] = {name: _text(getattr(self, name)) for name in _INSTANTS}
        state = verdict.reason or ("effective" if self.effective_at else "on_its_way")
        return {
            "service_id": self.service_id,
            "state": state,
            **found,
            **self.seconds(),
            "detail": verdict.detail or None,
        }


def next_midnight(now: datetime) -> datetime:
    """The next midnight of any canary whose start, an hour before it, is still to come."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour + LEAD + HOUR


def order(midnight: datetime, element: str, now: datetime) -> tuple[Probe, Request]:
    """The probe for ``midnight`` and its order; asked again after a crash, it is the same request."""
    service_id = f"{PREFIX}{midnight:%H}"
    request_id = ids.derive("canary", service_id, ids.instant_text(midnight), element)
    request = Request(
        request_id=request_id,
        kind=RequestKind.ORDER,
        account_id=service_id,
        service_id=service_id,
        element_key=element,
        effective_date=None,
        silent=True,
        apply_fees=False,
        options=(),
        channel=CHANNEL,
        expected_revision=None,
        requested_at=now,
    )
    return Probe(midnight=midnight, element=element, ordered_at=now, request_id=request_id), request


def answered(probe: Probe, reply: Reply) -> Probe:
    """What a reply makes of the probe that it answers."""
    if reply.request_id != probe.request_id or probe.change_id is not None:
        return probe
    if not reply.accepted or reply.change_id is None or reply.start_at is None or reply.deadline_at is None:
        return replace(probe, refused=", ".join(reply.reasons) or "refused")
    due = max(reply.decided_at, release_at(reply.change_id, reply.start_at, reply.deadline_at))
    return replace(probe, change_id=reply.change_id, refused=None, accepted_at=reply.decided_at, due_at=due)


def acknowledged(probe: Probe, acknowledgement: Acknowledgement) -> Probe:
    """What a commit of the billing store makes of the probe whose change it concerns."""
    if acknowledgement.change_id != ids.change_id(probe.service_id, probe.request_id):
        return probe
    match acknowledgement.kind:
        case AcknowledgementKind.PERSISTED:
            return replace(probe, persisted_at=probe.persisted_at or acknowledgement.committed_at)
        case AcknowledgementKind.RELEASED:
            return replace(probe, effective_at=probe.effective_at or acknowledgement.committed_at)
        case AcknowledgementKind.MISSED:
            return probe  # its deadline has passed without persisted_at: that says it


def judge(probe: Probe, now: datetime) -> Verdict:
    """Whether a probe is where it should be at ``now``."""
    for late, level, reason, what in (
        (probe.missed or (probe.persisted_at is None and now >= probe.midnight), Level.MISSED, "missed",
         "was not persisted before its midnight"),
        (probe.refused is not None, Level.AT_RISK, "refused", _refused(probe.refused or "")),
        (probe.accepted_at is None and now > probe.ordered_at + ACCEPTED_WITHIN, Level.AT_RISK, "not_answered",
         "was not answered"),
        (probe.due_at is not None and probe.persisted_at is None and now > probe.due_at + PERSISTED_WITHIN,
         Level.AT_RISK, "not_persisted", "is not persisted"),
        (probe.effective_at is None and now > probe.midnight + EFFECTIVE_WITHIN, Level.AT_RISK, "not_effective",
         "has not become effective"),
    ):  # fmt: skip
        if late:
            return Verdict(level=level, reason=reason, detail=f"the change of {probe.service_id} {what}")
    return Verdict(level=Level.OK)


def overall(probes: Sequence[Probe], now: datetime) -> tuple[Verdict, Probe | None]:
    """The worst of the probes that are on their way and of the newest one that is finished, with its probe: an old
    failure is over as soon as a later canary came through."""
    if not probes:
        return Verdict(level=Level.OK), None
    newest_first = sorted(probes, key=lambda probe: probe.midnight, reverse=True)
    looked_at: list[Probe] = []
    for probe in newest_first:
        looked_at.append(probe)
        if probe.effective_at is not None:
            break
    worst = max(looked_at, key=lambda probe: judge(probe, now).level)
    return judge(worst, now), worst


def histogram(seconds: Sequence[float | None]) -> dict[str, int]:
    """Cumulative counts by upper bound, as Prometheus has them: ``{"1": 0, …, "+Inf": 24}``."""
    known = [one for one in seconds if one is not None]
    return {**{str(bound): sum(one <= bound for one in known) for bound in BUCKETS_S}, "+Inf": len(known)}


def dump(probes: Sequence[Probe]) -> str:
    """The newest probes, for the book."""
    newest = sorted(probes, key=lambda probe: probe.midnight)[-REMEMBERED:]
    return json.dumps([asdict(probe) for probe in newest], default=datetime.isoformat)


def load(text: str | None) -> list[Probe]:
    """What :func:`dump` wrote."""

    def read(name: str, value: Any) -> Any:
        return datetime.fromisoformat(value) if name in _INSTANTS and value is not None else value

    return [Probe(**{name: read(name, value) for name, value in fields.items()}) for fields in json.loads(text or "[]")]


def _refused(reasons: str) -> str:
    if "account_unknown" in reasons:
        return "was refused, as there are no canaries: `curfew canary setup`; the one of the next hour is ordered then"
    return f"was refused: {reasons}"


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)


def _text(at: datetime | None) -> str | None:
    return None if at is None else ids.instant_text(at)
