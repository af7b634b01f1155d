"""The board beside running workers, by HTTP: what it reads, and what a redrive does. tests/board has a whole night."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agents.board.server import build
from agents.configuration.changes import AUDIT
from streams.core.audit import AuditEntry
from tests.board.serving import serving
from tests.e2e.application import Application, as_bytes, created, suspended
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOKEN = "a-token-of-the-tests"
PANELS = ("countdown", "nights", "letters", "groups", "subscriptions", "system")
#: Groups are read every ten seconds, and the machine may be busy.
READ_SECONDS = 240.0


@pytest.fixture(scope="module")
def client(application: Application) -> Iterator[httpx.Client]:
    """Somebody who has logged in."""
    settings = application.settings.model_copy(update={"board_token": SecretStr(TOKEN)})
    with (
        serving(build(settings, "127.0.0.1")) as url,
        httpx.Client(base_url=url, headers={"Origin": url}, timeout=TIMEOUT_SECONDS) as made,
    ):
        assert made.post("/login", data={"token": TOKEN, "name": "maria"}).status_code == 303
        yield made


def panel(client: httpx.Client, name: str) -> dict[str, Any]:
    """What it shows, once it has been read."""

    def read() -> dict[str, Any] | None:
        found: dict[str, Any] | None = client.get(f"/panels/{name}?format=json").json()["data"]
        return found

    wait_until(read, f"{name} has been read", READ_SECONDS)
    found = read()
    assert found is not None
    return found


def test_every_panel_is_read_and_is_on_the_page(client: httpx.Client) -> None:
    """All groups are there, and the parts that this process asks itself."""
    working = {"events", "plan-changes", "execution", "persistence", "delivery", "dispatch"}

    def parts() -> dict[str, str]:
        return {part["name"]: part["word"] for part in panel(client, "system")["parts"]}

    # each is read again and again: a part that was slow once is well at the next look
    wait_until(
        lambda: working <= {row["group"] for row in panel(client, "groups")["groups"]}, "all groups", READ_SECONDS
    )
    wait_until(lambda: {parts().get(name) for name in ("registry", "database")} == {"OK"}, "both answer", READ_SECONDS)
    wait_until(lambda: panel(client, "countdown")["clock_has_ticked"], "the clock has ticked", READ_SECONDS)
    assert all(panel(client, name)["word"] for name in PANELS)
    assert client.get("/?format=json").json().keys() == set(PANELS)
    page = client.get("/").text
    assert all(f'id="{name}-title"' in page for name in PANELS)


def test_what_is_delivered_is_counted(application: Application, client: httpx.Client) -> None:
    """A success of the last hour, of both subscriptions, with nothing left to do."""
    application.send("billing.account", ("board-1", created("board-1")), ("board-1", suspended("board-1")))

    def rows() -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in panel(client, "subscriptions")["subscriptions"]}

    def got(row: dict[str, Any]) -> bool:
        return bool(row["delivered_last_hour"]) and row["state"] == "active"

    wait_until(lambda: rows() and all(got(row) for row in rows().values()), "both have got it", READ_SECONDS)


def test_a_letter_that_cannot_be_cured_is_said_so_before_it_comes_back(
    application: Application, client: httpx.Client
) -> None:
    """The dry run sends nothing. The redrive is in the audit trail, counted in the record, done once; it comes back."""
    application.send("billing.account", ("board-2", b"no Avro"))
    application.settle()
    letter = next(one for one in application.dead_letters("events") if one.key() == b"board-2")
    place = f"{letter.topic()}/{letter.partition()}/{letter.offset()}"

    dry = client.post("/redrive", data={"place": place}).text
    assert "1 of 1 letter would be sent back" in dry
    assert "would come back:" in dry
    assert len(sent(application)) == 1

    once = dry.split('name="once" value="')[1].split('"')[0]
    form = {"place": place, "confirm": "yes", "once": once}
    assert "1 letter was sent back" in client.post("/redrive", data=form).text
    assert client.post("/redrive", data=form).status_code == 409

    application.settle()
    [_, again] = sent(application)
    assert again == (b"no Avro", {"replayed-from": place.encode(), "replay-count": b"1"})
    entries = [application.codec.decode(as_bytes(one.value()), AuditEntry) for one in application.records(AUDIT)]
    assert [(one.by, one.what) for one in entries if one.name == place] == [("maria", "dead-letter")]
    # the board may not have read the letter itself yet: it was sent back by its place
    wait_until(
        lambda: client.get(f"/letters/{place}?format=json").json().get("redriven"),
        "the letter says that it was sent",
        READ_SECONDS,
    )
    wait_until(lambda: newest(client).count("board-2") == 2, "it has come back", READ_SECONDS)


def newest(client: httpx.Client) -> list[str]:
    return [one["key"] for one in panel(client, "letters")["newest"]]


def sent(application: Application) -> list[tuple[Any, dict[str, Any]]]:
    """Values and headers of what the source topic has got under the letter's key."""
    records = (one for one in application.records("billing.account") if one.key() == b"board-2")
    return [(one.value(), dict(one.headers() or [])) for one in records]


@pytest.mark.parametrize("place", ["billing.account/0/0", "dead-letters.events/0", "dead-letters.events/x/y", ""])
def test_what_is_no_dead_letter_is_not_sent_anywhere(client: httpx.Client, place: str) -> None:
    """A form can be written by hand; it must not copy records from topic to topic."""
    assert client.post("/redrive", data={"place": place}).status_code == 400
