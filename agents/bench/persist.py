"""Changes per second of ``persist`` against bare loops of the very same statements.

The statements and parameters of a real run are recorded and then sent through the bare driver to another, equal
database: once as they were (many rows per call), once one row per call, in the same transactions of 500 changes. The
bare loops verify nothing, decide nothing, and have all parameters in hand.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from agents.bench import orders
from streams.core import ids
from streams.core.execute import conclude, draft_of
from streams.core.messages import CommandStep, ExecuteCommand, ExecutionResult, ExecutionVerdict
from streams.core.outcome import seal
from streams.sinks.billing import SqlBillingStore
from streams.sinks.billing.engine import open_engine, parse

CHANGES = 5_000
PER_TRANSACTION = 500
#: Five are too few where other work runs beside: the disk alone makes a round twice as long.
ROUNDS = 9
REVISION = 1


def measure(new_database: Callable[[], str]) -> dict[str, Any]:
    """Medians over alternating rounds; ``new_database`` gives the URL of an empty one at each call."""
    with _prepared(new_database()) as store:
        log = _recorded(store)
    seconds: dict[str, list[float]] = {"persister": [], "bare_loop": [], "bare_loop_one_by_one": []}
    for _ in range(ROUNDS):
        with _prepared(new_database()) as store:
            seconds["persister"].append(_persist(store))
        seconds["bare_loop"].append(_replayed(new_database(), log, one_by_one=False))
        seconds["bare_loop_one_by_one"].append(_replayed(new_database(), log, one_by_one=True))

    def ratio(to: str) -> float:
        """Round by round: a machine that gets slower meanwhile slows both sides of a pair."""
        return round(
            statistics.median(bare / ours for ours, bare in zip(seconds["persister"], seconds[to], strict=True)), 2
        )

    return {
        "persist_changes_per_second": {
            name: round(CHANGES / statistics.median(took)) for name, took in seconds.items()
        },
        "persister_ratio_to_bare_loop": ratio("bare_loop"),
        "persister_ratio_to_bare_loop_one_by_one": ratio("bare_loop_one_by_one"),
    }


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


def _persist(store: SqlBillingStore) -> float:
    """Seconds to persist all changes."""
    results = [_result(number) for number in range(CHANGES)]
    fence = store.take_fence("persistence", 0)
    began = time.perf_counter()
    for first in range(0, CHANGES, PER_TRANSACTION):
        store.persist(results[first : first + PER_TRANSACTION], now=lambda: orders.START, fence=fence)
    return time.perf_counter() - began


def _recorded(store: SqlBillingStore) -> list[Any]:
    """What one whole run sends to the driver: (statement, parameters, many) and "commit"."""
    log: list[Any] = []

    def on_statement(_c: Any, _cursor: Any, statement: str, parameters: Any, _x: Any, many: bool) -> None:
        # SQLAlchemy says "many" for its own multi-row INSERT too, which is one statement with one set of parameters.
        log.append((statement, parameters, many and isinstance(parameters, list)))

    def on_commit(_c: Any) -> None:
        log.append("commit")

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "commit", on_commit)
    try:
        _persist(store)
    finally:
        event.remove(Engine, "before_cursor_execute", on_statement)
        event.remove(Engine, "commit", on_commit)
    return log


def _replayed(url: str, log: list[Any], *, one_by_one: bool) -> float:
    """Seconds to send the recorded statements through the bare driver."""
    with _prepared(url):
        pass
    engine = open_engine(parse(url))
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        began = time.perf_counter()
        for entry in log:
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
        return time.perf_counter() - began
    finally:
        raw.close()
        engine.dispose()


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
