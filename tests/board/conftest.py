"""One night with its board, and a dead letter that can be cured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from agents.board.server import build
from streams.core.errors import Poison
from streams.core.plan_change.matrix import MissedPolicy
from streams.kafka import dead_letters
from streams.kafka.chunks import Record
from tests.board.serving import serving
from tests.e2e import nights
from tests.e2e.application import Application, created
from tests.plan_changes.makers import a_request, an_element
from tests.support.brokers import private

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
#: Accounts that have not paid: the hook of docs/examples/night aborts their changes.
UNPAID = {"kette-1": "kette", "liberty-1": "liberty", "norte-1": "norte", "norte-2": "norte"}
SERVICES = {f"padaria-{number}": f"A{number}" for number in range(1, 13)} | UNPAID
#: The account of the dead letter.
LETTER = "vila-nova"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """The application at noon, and its board. ``unpaid`` is the file of those who have not paid."""

    application: Application
    url: str
    unpaid: Path


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    """Sixteen changes are ordered for midnight; three of their accounts have not paid."""
    directory = tmp_path_factory.mktemp("board")
    unpaid = directory / "unpaid.txt"
    unpaid.write_text("\n".join(set(UNPAID.values())))
    env = {
        "CURFEW_HOOKS": '["night_hooks:HOOKS"]',
        "PYTHONPATH": str(ROOT / "docs" / "examples" / "night"),
        "UNPAID_BILLS": str(unpaid),
    }
    held = an_element(missed_policy=MissedPolicy.HOLD)
    stack = private(tmp_path_factory.mktemp("board-stack"))
    with stack, nights.night(stack, directory, SERVICES, elements=[held], env=env) as made:
        orders = [a_request(f"R-{one}", account_id=account, service_id=one) for one, account in SERVICES.items()]
        made.send("plan-change.requests", *((order.account_id, order) for order in orders))
        made.settle()
        put_aside(made)
        settings = made.settings.model_copy(update={"board_token": SecretStr(TOKEN)})
        with serving(build(settings, "127.0.0.1")) as url:
            yield Evening(application=made, url=url, unpaid=unpaid)


def put_aside(application: Application) -> None:
    """A letter of an older version, as it were: the workers that run can handle what that one put aside."""
    topic = "billing.account"
    value = application.codec.encode(topic, created(LETTER))
    record = Record(topic, 0, 0, LETTER.encode(), value, [("source", b"crm")], 0)
    cut, headers = dead_letters.envelope(record, Poison("invalid", "zone: this zone is not known"), "events")
    producer = Producer(application.kafka())
    producer.produce(dead_letters.topic("events"), key=record.key, value=cut, headers=list[Any](headers))
    assert producer.flush(30) == 0
