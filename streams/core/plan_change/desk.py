"""The desk of one partition: takes what arrives, lets the machine decide, keeps rows and index in step with it.

Still pure: rows, index and time are given, effects are returned for the agent to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import assert_never

from streams.core.canonical import fingerprint
from streams.core.hooks import Hookpoint
from streams.core.ids import change_id
from streams.core.plan_change.context import newer
from streams.core.plan_change.due import Due, DueIndex, Window
from streams.core.plan_change.machine import (
    Acknowledged,
    Change,
    ChangeCancelled,
    ChangeOrdered,
    ChangeRepaired,
    ContextChanged,
    Effect,
    ExecutionFinished,
    Fact,
    Rules,
    SendCommand,
    SendReply,
    Step,
    TimePassed,
)
from streams.core.plan_change.matrix import MatrixElement
from streams.core.plan_change.messages import (
    Acknowledgement,
    CommandStep,
    Context,
    ExecutionResult,
    ExecutionVerdict,
    RequestKind,
    ValidatedRequest,
)
from streams.core.plan_change.progress import OVERDUE, actions, out
from streams.core.plan_change.rows import (
    CHANGE,
    HEARD,
    PARKED,
    Answer,
    Owner,
    Parked,
    Rows,
    change_key,
    context_key,
    heard_key,
    open_key,
    pack,
    parked_key,
    past_key,
    request_key,
    unpack_answer,
    unpack_change,
    unpack_context,
    unpack_owner,
    unpack_parked,
)
from streams.core.plan_change.step import step
from streams.core.plan_change.told import command, refused, rejection
from streams.core.plan_change.window import derived

# A repeated request is the same if everything but the caller's clock is.
_NOT_CONTENT = frozenset({"requested_at"})
# So much of one service may wait for a decision: all of it is one row, with the command of the first, and a row that is
# too large (1 MB) would stop the partition. What is larger cannot be asked; what comes on top is refused.
MAX_REQUEST_BYTES = 250_000
MAX_WAITING_BYTES = 500_000
MAX_WAITING = 100
# Due at the first tick, whatever it says.
_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC)
# The same, and before all else: requests that waited too find changes that have followed their accounts.
_FIRST = datetime(1969, 1, 1, tzinfo=UTC)


def dues(change: Change, before: Change | None = None) -> list[Due]:
    """When the row of ``change`` wants to be looked at, without what ``before`` wanted already."""
    known = set() if before is None else {(one.at, before.deadline_at, one.window) for one in actions(before)}
    id, deadline = f"{CHANGE}{change.service_id}", change.deadline_at
    return [
        Due(id=id, at=action.at, deadline=deadline, window=action.window)
        for action in actions(change)
        if (action.at, deadline, action.window) not in known
    ]


def rebuild(rows: Rows, window: int) -> DueIndex:
    """The index of a partition from its rows (a full scan: after a start or a decision that was thrown away)."""
    index = DueIndex(window)
    for key, value in rows.scan(CHANGE.encode()):
        change = derived(unpack_change(value))
        index.add(dues(change))
        index.mark(key.decode(), out(change))
    for _, value in rows.scan(PARKED.encode()):
        parked = unpack_parked(value)
        index.add(_parked_dues(parked))
    for key, _ in rows.scan(HEARD.encode()):
        index.add([_heard_due(key)])
    return index


def _parked_dues(parked: Parked) -> Iterator[Due]:
    """A command of ORDER hooks is sent again like any other; without one, the first tick is waited for."""
    at = _ANY_TIME if parked.command is None else parked.command.sent_at + OVERDUE
    yield Due(id=f"{PARKED}{parked.service_id}", at=at, deadline=at, window=None)


def _heard_due(key: bytes) -> Due:
    return Due(id=key.decode(), at=_FIRST, deadline=_FIRST, window=None)


def _owner(change: Change | None) -> Owner | None:
    """Whose open change it is; None if it is none."""
    if change is None or not change.is_open:
        return None
    return Owner(account_id=change.account_id, service_id=change.service_id)


class Desk:
    """Decisions of one partition at one instant. ``now`` is None before the first tick: then requests wait."""

    def __init__(
        self,
        rows: Rows,
        index: DueIndex,
        rules: Rules,
        element: Callable[[str], MatrixElement | None],
        now: datetime | None,
    ) -> None:
        self.rows = rows
        self.now = now
        self._index = index
        self._rules = rules
        self._element = element

    def request(self, validated: ValidatedRequest) -> list[Effect]:
        """Answer a request, or park it. Same content, same answer; other content under its id is refused."""
        request = validated.request
        known = self.rows.get(request_key(request.service_id, request.request_id))
        if known is not None:
            answer = unpack_answer(known)
            if answer.fingerprint != fingerprint(request, without=_NOT_CONTENT):
                return [refused(request, None, ("request_id_conflict",), self.now or request.requested_at)]
            return [] if answer.reply is None else [SendReply(reply=answer.reply)]
        size, waiting = len(pack(validated)), self.rows.get(parked_key(request.service_id))
        if size > MAX_REQUEST_BYTES:
            return self._refuse(validated, "request_too_large", self.now or request.requested_at)
        if waiting is None:
            effects = self._decide_all(request.service_id, (validated,))
        else:
            effects, parked = [], unpack_parked(waiting)
            if len(parked.requests) >= MAX_WAITING or len(waiting) + size > MAX_WAITING_BYTES:
                return self._refuse(validated, "too_many_waiting", self.now or request.requested_at)
            self._park(replace(parked, requests=(*parked.requests, validated)))
        if not any(isinstance(effect, SendReply) for effect in effects):
            self._remember(validated, None)
        return effects

    def undone(self, service_id: str) -> None:
        """A decision about the service was thrown away, with its rows: the index is about those that are there."""
        found = self.rows.get(change_key(service_id))
        self._index.mark(f"{CHANGE}{service_id}", None if found is None else out(derived(unpack_change(found))))

    def result(self, result: ExecutionResult) -> list[Effect]:
        """Take the answer to a command."""
        if result.step is CommandStep.ORDER:
            return self._order_hooks_answered(result)
        return self._apply(result.service_id, ExecutionFinished(result=result), self.now or result.finished_at)

    def acknowledge(self, acknowledgement: Acknowledgement) -> list[Effect]:
        """Take a commit of the billing store."""
        fact = Acknowledged(acknowledgement=acknowledgement)
        return self._apply(acknowledgement.service_id, fact, self.now or acknowledgement.committed_at)

    def context(self, contexts: Sequence[Context]) -> Iterator[list[Effect]]:
        """Take what pending changes depend on: of an account, those that are open. Before the first tick they wait."""
        news: dict[bytes, Context] = {}
        for context in contexts:
            key = context_key(context.account_id, context.service_id)
            row = self.rows.get(key)
            known = news.get(key) or (None if row is None else unpack_context(row))
            if known is None or known.revision < context.revision:
                news[key] = context
        if self.now is not None:
            for context in news.values():
                yield from self._follow(context, self.now)
        # At the end: after a crash between two slices, a context that is known would not be taken again.
        for key, context in news.items():
            if self.now is None:
                heard = heard_key(context.account_id, context.service_id)
                self.rows.put(heard, key)
                self._index.add([_heard_due(heard)])
            self.rows.put(key, pack(context))

    def _follow(self, context: Context, now: datetime) -> Iterator[list[Effect]]:
        services = self._open(context.account_id) if context.service_id is None else [context.service_id]
        for service_id in services:
            yield self._apply(service_id, ContextChanged(context=context), now)

    def _follow_heard(self, key: bytes, now: datetime) -> Iterator[list[Effect]]:
        """Let changes follow the newest of what came before the first tick; after a crash in between, again."""
        at = self.rows.get(key)
        found = None if at is None else self.rows.get(at)
        if found is not None:
            yield from self._follow(unpack_context(found), now)
            self.rows.delete(key)

    def _open(self, account_id: str) -> list[str]:
        """The services of the account that have an open change."""
        owners = (unpack_owner(value) for _, value in self.rows.scan(open_key(account_id, "")))
        return [one.service_id for one in owners if one.account_id == account_id]

    def due_work(self) -> Iterator[list[Effect]]:
        """All that is due now, earliest deadline first, while the window has room; one list of effects per row."""
        while self.now is not None and (due := self._index.take(self.now)) is not None:
            if due.id.startswith(HEARD):
                yield from self._follow_heard(due.id.encode(), self.now)
            elif due.id.startswith(PARKED):
                yield self._wake_parked(due.id.removeprefix(PARKED), self.now)
            else:
                fact = TimePassed(room=self._index.room)
                yield self._apply(due.id.removeprefix(CHANGE), fact, self.now)

    def _apply(self, service_id: str, fact: Fact, now: datetime) -> list[Effect]:
        found = self.rows.get(change_key(service_id))
        before = None if found is None else unpack_change(found)
        decided = step(before, fact, now, self._rules)
        self._keep(service_id, before, decided)
        return list(decided.effects)

    def _keep(self, service_id: str, before: Change | None, decided: Step) -> None:
        after = decided.change
        if after is None or after == before:
            return
        if decided.replaced is not None:
            self.rows.put(past_key(decided.replaced), pack(decided.replaced))
        was, now = _owner(before), _owner(after)
        # Put before the change, and removed after it: after a crash in between one too many costs a look, one too few
        # would leave a change that does not follow its account.
        if now is not None and now != was:
            self.rows.put(open_key(now.account_id, now.service_id), pack(now))
        self.rows.put(change_key(service_id), pack(after))
        if was is not None and now != was:
            self.rows.delete(open_key(was.account_id, was.service_id))
        id = f"{CHANGE}{service_id}"
        self._index.add(dues(after, before))
        self._index.mark(id, out(after, before, was_out=self._index.is_out(id, Window.RELEASE)))

    # -- requests that wait -----------------------------------------------------------------------------------------

    def _decide_all(self, service_id: str, requests: tuple[ValidatedRequest, ...]) -> list[Effect]:
        """Decide in order; at the first that has to wait, the rest waits behind it."""
        effects: list[Effect] = []
        for number, validated in enumerate(requests):
            if self.now is None:
                self._park(Parked(service_id=service_id, requests=requests[number:], command=None))
                return effects
            asked = self._ask_order_hooks(validated, self.now)
            if asked is not None:
                self._park(Parked(service_id=service_id, requests=requests[number:], command=asked.command))
                return [*effects, asked]
            effects += self._decide(validated, self.now)
        return effects

    def _refuse(self, validated: ValidatedRequest, reason: str, now: datetime) -> list[Effect]:
        """Say no without asking the machine."""
        request, found = validated.request, self.rows.get(change_key(validated.request.service_id))
        current = None if found is None else unpack_change(found)
        effects: list[Effect] = [refused(request, current, (reason,), now)]
        if request.kind is RequestKind.ORDER:
            effects += rejection(request, change_id(request.service_id, request.request_id), (reason,), now)
        self._remember_reply(validated, effects)
        return effects

    def _decide(self, validated: ValidatedRequest, now: datetime) -> list[Effect]:
        effects = self._apply(validated.request.service_id, self._fact(validated), now)
        self._remember_reply(validated, effects)
        return effects

    def _fact(self, validated: ValidatedRequest) -> ChangeOrdered | ChangeCancelled | ChangeRepaired:
        match validated.request.kind:
            case RequestKind.ORDER:
                key = validated.request.element_key
                element = None if key is None else self._element(key)
                return ChangeOrdered(validated=self._newer(validated), element=element)
            case RequestKind.CANCEL:
                return ChangeCancelled(validated=validated)
            case RequestKind.RETRY | RequestKind.RESOLVE:
                return ChangeRepaired(validated=validated)
            case _:
                assert_never(validated.request.kind)

    def _newer(self, validated: ValidatedRequest) -> ValidatedRequest:
        request = validated.request
        account = self.rows.get(context_key(request.account_id, None))
        service = self.rows.get(context_key(request.account_id, request.service_id))
        if account is None and service is None:
            return validated
        return newer(
            validated,
            None if account is None else unpack_context(account),
            None if service is None else unpack_context(service),
        )

    def _ask_order_hooks(self, validated: ValidatedRequest, now: datetime) -> SendCommand | None:
        """The command for the ORDER hooks, if there are some and the order would be accepted without them."""
        fact = self._fact(validated)
        if not isinstance(fact, ChangeOrdered) or fact.element is None:
            return None
        if not self._rules.hooks.at(Hookpoint.ORDER, fact.element.key):
            return None
        found = self.rows.get(change_key(validated.request.service_id))
        before = None if found is None else unpack_change(found)
        candidate = step(before, fact, now, self._rules).change
        if candidate is None or candidate.request_id != validated.request.request_id:
            return None
        return command(candidate, CommandStep.ORDER, now)

    def _order_hooks_answered(self, result: ExecutionResult) -> list[Effect]:
        found = self.rows.get(parked_key(result.service_id))
        parked = None if found is None else unpack_parked(found)
        if parked is None or parked.command is None or parked.command.command_id != result.command_id:
            return []
        first, rest = parked.requests[0], parked.requests[1:]
        now = self.now or result.finished_at
        if result.verdict is ExecutionVerdict.PROCEEDED:
            effects = self._decide(first, now)
        else:
            effects = self._refuse(first, result.reason or "order_hook_failed", now)
        self.rows.delete(parked_key(result.service_id))
        return effects + self._decide_all(result.service_id, rest)

    def _wake_parked(self, service_id: str, now: datetime) -> list[Effect]:
        found = self.rows.get(parked_key(service_id))
        if found is None:
            return []
        parked = unpack_parked(found)
        if parked.command is None:
            self.rows.delete(parked_key(service_id))
            return self._decide_all(service_id, parked.requests)
        if parked.command.sent_at + OVERDUE > now:
            return []
        again = replace(parked.command, sent_at=now)
        self._park(replace(parked, command=again))
        return [SendCommand(command=again)]

    def _park(self, parked: Parked) -> None:
        self.rows.put(parked_key(parked.service_id), pack(parked))
        self._index.add(_parked_dues(parked))

    def _remember_reply(self, validated: ValidatedRequest, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SendReply):
                self._remember(validated, effect)

    def _remember(self, validated: ValidatedRequest, told: SendReply | None) -> None:
        request = validated.request
        answer = Answer(
            fingerprint=fingerprint(request, without=_NOT_CONTENT), reply=None if told is None else told.reply
        )
        self.rows.put(request_key(request.service_id, request.request_id), pack(answer))
