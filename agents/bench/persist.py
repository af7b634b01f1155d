"""Changes per second of ``persist`` against bare loops of the very same statements.

The statements and parameters of a real run are recorded and then sent through the bare driver to another, equal
database: once as they were (many rows per call), once one row per call, in the same transactions of 500 changes. The
bare loops verify nothing, decide nothing, and have all parameters in hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sqlalchemy import Engine, event

from agents.bench import orders
from streams.core import ids
from streams.core.outcome import seal
from streams.core.plan_change.execute import conclude, draft_of
from streams.core.plan_change.messages import CommandStep, ExecuteCommand, ExecutionResult, ExecutionVerdict
from streams.kafka.garbage import collect_seldom
from streams.sinks.billing import Fence, SqlBillingStore
from streams.sinks.billing.engine import open_engine, parse

CHANGES = 5_000
PER_TRANSACTION = 500
#: Each of ten transactions of each side; the first round is not counted.
ROUNDS = 8
REVISION = 1

#: What is compared, by the name in the report.
OURS, BARE, SINGLE = "persister", "bare_loop", "bare_loop_one_by_one"


def measure(new_database: Callable[[], str]) -> dict[str, Any]:
    """Medians over pairs of transactions; ``new_database`` gives the URL of an empty one at each call.

    The sides take turns within a few hundredths of a second, in this one process: whatever else the machine does is
    beside all of them, and a transaction that it hits makes one pair of many an odd one.
    """
    collect_seldom()  # as in a worker; for all sides, since they are in this process
    with _prepared(new_database()) as store:
        log = _recorded(store)
    pairs: dict[str, list[float]] = {OURS: [], BARE: [], SINGLE: []}
    for number in range(ROUNDS):
        found = _round(new_database, log, first=number % len(pairs))
        if number:
            for name, seconds in found.items():
                pairs[name] += seconds

    def ratio(to: str) -> float:
        return round(statistics.median(bare / ours for ours, bare in zip(pairs[OURS], pairs[to], strict=True)), 2)

    return {
        "persist_changes_per_second": {
            name: round(PER_TRANSACTION / statistics.median(seconds)) for name, seconds in pairs.items()
        },
        "persister_ratio_to_bare_loop": ratio(BARE),
        "persister_ratio_to_bare_loop_one_by_one": ratio(SINGLE),
    }


def _round(new_database: Callable[[], str], log: list[Any], *, first: int) -> dict[str, list[float]]:
    """Seconds of each transaction of each side, which take turns; ``first``: who begins, since whoever follows another
    one may find the caches cold."""
    with ExitStack() as stack:
        store = stack.enter_context(_prepared(new_database()))
        sides = {
            OURS: _persisting(store, store.take_fence("persistence", 0)),
            BARE: stack.enter_context(_replaying(new_database(), log, one_by_one=False)),
            SINGLE: stack.enter_context(_replaying(new_database(), log, one_by_one=True)),
        }
        names = [*sides][first:] + [*sides][:first]
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(0, CHANGES, PER_TRANSACTION):
            for name in names:
                seconds[name].append(next(sides[name]))
        return seconds


@contextmanager
def _prepared(url: str) -> Iterator[SqlBillingStore]:
    """A store with the plans that the changes start from."""
    store = SqlBillingStore(url)
    try:
        store.migrate()
        plans = (orders.plan(number, CHANGES) for number in range(CHANGES))
        store.load_plans(plans, occurred_at=orders.LONG_AGO)
        yield store
    finally:
        store.dispose()


def _persisting(store: SqlBillingStore, fence: Fence) -> Iterator[float]:
    """Seconds of each transaction of 500 changes; they are made just before it, as a worker decodes them."""
    for first in range(0, CHANGES, PER_TRANSACTION):
        results = [_result(number) for number in range(first, first + PER_TRANSACTION)]
        began = time.perf_counter()
        store.persist(results, now=lambda: orders.START, fence=fence)
        yield time.perf_counter() - began


def _recorded(store: SqlBillingStore) -> list[Any]:
    """What each of our transactions sends to the driver: (statement, parameters, many) and "commit" (there are two:
    one for the changes, one for the instant of the commit)."""
    log: list[Any] = []
    fence = store.take_fence("persistence", 0)

    def on_statement(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        # SQLAlchemy says "many" for its own multi-row INSERT too, which is one statement with one set of parameters.
        log.append((statement, parameters, many and isinstance(parameters, list)))

    def on_commit(_c: Any) -> None:
        log.append("commit")

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "commit", on_commit)
    try:
        for _ in _persisting(store, fence):
            log.append("done")
    finally:
        event.remove(Engine, "before_cursor_execute", on_statement)
        event.remove(Engine, "commit", on_commit)
    return log


@contextmanager
def _replaying(url: str, log: list[Any], *, one_by_one: bool) -> Iterator[Iterator[float]]:
    """Sends the recorded statements through the bare driver; gives the seconds of each of our transactions."""
    with _prepared(url):
        pass
    engine = open_engine(parse(url))
    raw = engine.raw_connection()
    try:
        yield _replayed(raw, log, one_by_one=one_by_one)
    finally:
        raw.close()
        engine.dispose()


def _replayed(raw: Any, log: list[Any], *, one_by_one: bool) -> Iterator[float]:
    cursor = raw.cursor()
    began = time.perf_counter()
    for entry in log:
        if entry == "done":
            yield time.perf_counter() - began
            began = time.perf_counter()
            continue
        if entry == "commit":
            raw.commit()
            continue
        statement, parameters, many = entry
        if not many:
            cursor.execute(statement, parameters)
        elif one_by_one:
            for row in parameters:
                cursor.execute(statement, row)
        else:
            cursor.executemany(statement, parameters)
        if cursor.description is not None:
            cursor.fetchall()


def _result(number: int) -> ExecutionResult:
    """The executor's result for the order of one service."""
    held, element = orders.plan(number, CHANGES), orders.ELEMENT
    change_id = ids.change_id(held.service_id, f"R{number:08}")
    command = ExecuteCommand(
        command_id=ids.command_id(change_id, REVISION, CommandStep.EXECUTE),
        step=CommandStep.EXECUTE,
        attempt=1,
        change_id=change_id,
        revision=REVISION,
        account_id=held.account_id,
        service_id=held.service_id,
        element_key=element.key,
        channel=element.channels[0],
        from_rate_plan_id=element.from_rate_plan_id,
        to_rate_plan_id=element.to_rate_plan_id,
        from_product_id=element.from_product_id,
        to_product_id=element.to_product_id,
        effective_date=orders.NIGHT,
        zone=orders.ZONE,
        effective_from=orders.DEADLINE,
        silent=False,
        apply_fees=True,
        options=(),
        fees=element.fees,
        options_added=element.options_added,
        options_removed=element.options_removed,
        memberships=held.memberships,
        options_held=held.options,
        sent_at=orders.START,
    )
    return ExecutionResult(
        command_id=command.command_id,
        step=command.step,
        attempt=command.attempt,
        change_id=change_id,
        revision=REVISION,
        account_id=held.account_id,
        service_id=held.service_id,
        verdict=ExecutionVerdict.SEALED,
        reason=None,
        retryable=False,
        sealed=seal(conclude(command, draft_of(command))),
        finished_at=orders.START,
    )
