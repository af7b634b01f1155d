"""The runs of `curfew subscriptions replay` in the ledger: each has an equation of its own,

    asked for = pending + delivered + dead + discarded

over the commands of ``delivery.replays`` that the delivery worker has come to; the later ones are lag.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.core.delivery.ledger import Balance, Evidence, balance
from streams.core.delivery.messages import Result
from streams.core.ids import replayed_unit_id, unit_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The balance of one run; its ``accepted`` are the commands, its ``filtered`` is 0."""

    name: str
    balance: Balance
    lag: int


@dataclass(slots=True, eq=False)
class RunAccount:
    """What is known of one run while the topics are read, as unit ids. ``nobodys`` were delivered, and are the replay
    of no event: commands are kept for a week only, so a unit without one is no fault."""

    asked: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    discarded: set[str] = field(default_factory=set)
    nobodys: set[str] = field(default_factory=set)
    lag: int = 0

    def deliver(self, result: Result, run: str) -> None:
        """A success of this run; its id has to follow from what it says that was sent."""
        original = unit_id(result.event_id, result.subscription_id, result.recipient)
        known = result.unit_id == replayed_unit_id(run, original)
        (self.delivered if known else self.nobodys).add(result.unit_id)

    @property
    def known(self) -> bool:
        """Whether anything can be said of it: dead letters are kept for longer than commands."""
        return bool(self.asked or self.lag or self.nobodys)

    def closed(self, name: str) -> Run:
        evidence = Evidence(
            accepted=dict.fromkeys(self.asked, True),
            pending=self.pending & self.asked,
            delivered=self.delivered & self.asked | self.nobodys,
            dead=self.dead & self.asked,
            discarded=self.discarded & self.asked,
        )
        return Run(name=name, balance=balance(evidence), lag=self.lag)
