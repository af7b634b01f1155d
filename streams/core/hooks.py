"""Hooks: user code at fixed points of a plan change, in a fixed order, with typed verdicts.

A hook's key is ``RATEPLAN.CHANGE.<POINT>`` (general) or ``RATEPLAN.CHANGE.<POINT>.<matrix key>``; both run, general
first, each by priority. A hook is a plain function; the execution agent runs it in a thread within its time budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from streams.core.errors import Misconfigured
from streams.core.money import Fee
from streams.core.objects import Membership
from streams.core.outcome import Outcome, Task
from streams.core.plan_change.messages import ExecuteCommand


class Hookpoint(StrEnum):
    """Where user code may take part."""

    ORDER = "RATEPLAN.CHANGE.ORDER"
    START = "RATEPLAN.CHANGE.START"
    PRIOR = "RATEPLAN.CHANGE.PRIOR"
    AFTER = "RATEPLAN.CHANGE.AFTER"
    POST = "RATEPLAN.CHANGE.POST"


class FailurePolicy(StrEnum):
    """What to do when a hook raises or runs out of its time."""

    ABORT = "abort"  # the change fails and waits for a person
    SKIP = "skip"  # as if the hook were not there
    RETRY = "retry"  # another attempt of the step, until the deadline allows no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What a hook wants altered; None and empty mean unchanged.

    At PRIOR it applies to the change before the core logic, at AFTER to its outcome. ``memberships`` replaces the new
    billing group members and is for AFTER only.
    """

    to_rate_plan_id: str | None = None
    to_product_id: str | None = None
    fees: tuple[Fee, ...] = ()
    tasks: tuple[Task, ...] = ()
    options_added: tuple[str, ...] = ()
    options_removed: tuple[str, ...] = ()
    memberships: tuple[Membership, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proceed:
    """Go on, nothing to alter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjust:
    """Go on with this alteration (PRIOR and AFTER)."""

    patch: Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """Do not go on; ``reason`` is a code that people will see."""

    reason: str


Verdict = Proceed | Adjust | Abort


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowContext:
    """What a hook sees. ``outcome`` is there at AFTER; ``notes`` are shared by the hooks of one step, in order.

    ``dry_run``: somebody asks what would happen. The hook answers as always, and does nothing outside.
    """

    hookpoint: Hookpoint
    command: ExecuteCommand
    outcome: Outcome | None
    notes: dict[str, str]
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """User code at ``key``. Lower ``priority`` runs first, equal ones by ``name``; ``budget_seconds`` is wall clock."""

    name: str
    key: str
    call: Callable[[WorkflowContext], Verdict]
    priority: int = 100
    budget_seconds: float = 5.0
    on_failure: FailurePolicy = FailurePolicy.ABORT

    def __post_init__(self) -> None:
        if not any(self.key == point or self.key.startswith(f"{point}.") for point in Hookpoint):
            known = ", ".join(Hookpoint)
            raise Misconfigured(
                f"hook {self.name!r} has key {self.key!r}; use one of {known}, optionally with .<matrix key>"
            )
        if self.budget_seconds <= 0:
            raise Misconfigured(f"hook {self.name!r} has a budget of {self.budget_seconds} s; give it more than 0")


@dataclass(frozen=True, slots=True)
class HookRegistry:
    """All hooks of a worker, by key. Build it with :meth:`of`."""

    by_key: dict[str, tuple[Hook, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, hooks: Iterable[Hook]) -> HookRegistry:
        """Sort ``hooks`` once. Raises Misconfigured when two have one name: verdicts are reported by name."""
        by_key: dict[str, list[Hook]] = {}
        names: set[str] = set()
        for hook in hooks:
            if hook.name in names:
                raise Misconfigured(f"two hooks are called {hook.name!r}; rename one of them")
            names.add(hook.name)
            by_key.setdefault(hook.key, []).append(hook)
        return cls(
            {key: tuple(sorted(found, key=lambda hook: (hook.priority, hook.name))) for key, found in by_key.items()}
        )

    def at(self, point: Hookpoint, element_key: str) -> tuple[Hook, ...]:
        """The hooks to run, in order: general ones first, then those of the matrix element."""
        return self.by_key.get(point, ()) + self.by_key.get(f"{point}.{element_key}", ())
