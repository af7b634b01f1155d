"""One night for all tests of the board that need one, and how dead letters come about that can be cured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from agents.board.server import build
from agents.embedded import Stack, StackConfig
from streams.core.matrix import MissedPolicy
from tests.board.serving import serving
from tests.e2e import nights
from tests.e2e.application import Application, created
from tests.plan_changes.makers import a_request, an_element

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
#: Accounts that have not paid: the hook of docs/examples/night aborts their changes.
UNPAID = {"kette-1": "kette", "liberty-1": "liberty"}
SERVICES = {f"padaria-{number}": f"A{number}" for number in range(1, 13)} | UNPAID
#: The account of the dead letter.
LETTER = "vila-nova"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evening:
    """The application at noon, and its board. ``unpaid`` is the file of those who have not paid."""

    application: Application
    url: str
    unpaid: Path

    def browser(self) -> httpx.Client:
        """A connection that has logged in."""
        client = httpx.Client(base_url=self.url, headers={"Origin": self.url}, timeout=60.0)
        assert client.post("/login", data={"token": TOKEN, "name": "maria"}).status_code == 303
        return client


@pytest.fixture(scope="package")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    """Fourteen changes are ordered for midnight; two of their accounts have not paid."""
    directory = tmp_path_factory.mktemp("board")
    unpaid = directory / "unpaid.txt"
    unpaid.write_text("\n".join(UNPAID.values()))
    env = {
        "CURFEW_HOOKS": '["night_hooks:HOOKS"]',
        "PYTHONPATH": str(ROOT / "docs" / "examples" / "night"),
        "UNPAID_BILLS": str(unpaid),
    }
    held = an_element(missed_policy=MissedPolicy.HOLD)
    stack = Stack(StackConfig(data_dir=tmp_path_factory.mktemp("board-stack")))
    with stack, nights.night(stack, directory, SERVICES, elements=[held], env=env) as made:
        orders = [a_request(f"R-{one}", account_id=account, service_id=one) for one, account in SERVICES.items()]
        made.send("plan-change.requests", *((order.account_id, order) for order in orders))
        made.settle()
        put_aside(made)
        settings = made.settings.model_copy(update={"board_token": SecretStr(TOKEN)})
        with serving(build(settings, "127.0.0.1")) as url:
            yield Evening(application=made, url=url, unpaid=unpaid)


def put_aside(application: Application) -> None:
    """An account in a schema that the registry did not know when it came, and knows since: its letter can be cured."""
    topic, name = "billing.account", "curfew.billing.AccountChange"
    known = application.codec.schemas.newest(name).raw
    [used] = {application.registry.id_for(f"{topic}-value", known)}
    value = application.codec.encode(topic, created(LETTER))
    assert int.from_bytes(value[1:5]) == used
    coming = application.registry.register("schemas-of-the-test", {**known, "doc": "to learn the last number"}) + 1
    application.send(topic, (LETTER, value[:1] + coming.to_bytes(4) + value[5:]))
    application.settle()
    assert application.registry.register("schemas-of-the-test-2", {**known, "doc": "the same with a comment"}) == coming
