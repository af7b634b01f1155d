"""Who may read the board and who may act: real HTTP, no Kafka needed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from agents.board.access import COOKIE, MOST_FAILURES, Access
from agents.board.actions import Actions
from agents.board.app import Board
from agents.board.memory import Memory
from agents.board.panels import nights
from agents.board.reading import Reading
from agents.board.server import LOCAL_NAMES, build
from agents.embedded.ports import free_port
from streams.core.errors import Misconfigured
from streams.core.plan_change.machine import State
from streams.settings import Settings
from tests.board.serving import serving
from tests.plan_changes.makers import pending
from tests.support.kafka_io import TIMEOUT_SECONDS, wait_until

TOKEN = "correct-horse-battery"
CHANGE = nights.waiting_row(replace(pending(), state=State.FAILED))

Open = Callable[..., httpx.Client]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Serve a board that knows one failed change, and a browser's connection to it. No Kafka is there."""
    with ExitStack() as running:

        def serve(token: str | None = TOKEN, *, private: bool = False) -> httpx.Client:
            memory = Memory()
            memory.keep("change", {"S1": CHANGE})
            memory.put("letters", {"word": "OK", "letters": 0, "by_reason": [], "newest": []})
            memory.fail("groups", "no broker <b>answers</b>")
            settings = Settings(bootstrap_servers="127.0.0.1:1", data_dir=tmp_path)
            access = Access(None if token is None else SecretStr(token), private=private)
            board = Board(memory, Reading(memory, ()), Actions(settings), access, hosts=LOCAL_NAMES)
            url = running.enter_context(serving(board))
            return running.enter_context(httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS))

        yield serve


def own(client: httpx.Client) -> dict[str, str]:
    """What a browser adds to a form of the board itself."""
    return {"Origin": str(client.base_url).rstrip("/")}


def login(client: httpx.Client, token: str = TOKEN, name: str = "maria") -> httpx.Response:
    return client.post("/login", data={"token": token, "name": name}, headers=own(client))


def retry(client: httpx.Client, **headers: str) -> httpx.Response:
    form = {"repair": "retry", "revision": "1", "request_id": "00000000-0000-4000-8000-000000000001"}
    return client.post("/changes/S1", data=form, headers=headers)


def test_without_a_token_the_board_is_read_only_and_says_so(opened: Open) -> None:
    """It can be read, nobody can log in, and a change offers no buttons."""
    client = opened(token=None)

    assert "Read-only: no token is configured" in client.get("/").text
    assert "<button" not in client.get("/changes/S1").text
    assert login(client).status_code == 403
    refused = retry(client, **own(client))
    assert refused.status_code == 403
    assert "read-only" in refused.text


def test_an_action_needs_a_login(opened: Open) -> None:
    """From the right page, but by nobody."""
    client = opened()

    assert retry(client, **own(client)).status_code == 403
    assert "<button" not in client.get("/changes/S1").text


def test_an_action_has_to_come_from_the_board_itself(opened: Open) -> None:
    """Logged in, a form of another site is refused, and one of which nobody knows where it comes from."""
    client = opened()
    assert login(client).status_code == 303

    assert retry(client, Origin="https://evil.example").status_code == 403
    assert retry(client, Origin="null").status_code == 403
    assert retry(client).status_code == 403
    assert client.post("/logout").status_code == 403


def test_an_action_that_may_be_done_is_told_when_kafka_is_away(opened: Open) -> None:
    """It passes the door, and then says in words what is missing; nothing is left pending."""
    client = opened()
    login(client)

    answer = retry(client, **own(client))

    assert answer.status_code == 503
    assert "no Kafka broker answers" in answer.text


@pytest.mark.parametrize("path", ["/changes/S1?repair=retry&revision=1", "/logout", "/letters/t/0/0?redrive=yes"])
def test_nothing_is_done_by_a_get(opened: Open, path: str) -> None:
    """A link, an image or a preview of a page can ask, and changes nothing: the session is still there."""
    client = opened()
    login(client)

    assert client.get(path).status_code in (200, 404, 405)
    assert "Acting as <strong>maria</strong>" in client.get("/").text


def test_the_cookie_is_for_this_board_alone(opened: Open) -> None:
    """No script reads it, no other site sends it, and it is not the token."""
    client = opened()

    cookie = login(client).headers["set-cookie"]

    assert cookie.startswith(f"{COOKIE}=")
    assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
    assert TOKEN not in cookie


def test_a_wrong_token_is_refused_and_ten_of_them_close_the_door(opened: Open) -> None:
    """Who guesses gets no try per millisecond, and the right token is no way to find that out."""
    client = opened()

    assert [login(client, token=f"guess-{n}").status_code for n in range(MOST_FAILURES)] == [403] * MOST_FAILURES

    assert login(client).status_code == 403


def test_after_logging_out_the_old_cookie_is_worth_nothing(opened: Open) -> None:
    """The session is ended here, not only in the browser."""
    client = opened()
    login(client)
    cookie = client.cookies[COOKIE]

    client.post("/logout", headers=own(client))

    client.cookies.set(COOKIE, cookie)
    assert retry(client, **own(client)).status_code == 403


def test_the_audit_trail_gets_a_name_or_there_is_no_session(opened: Open) -> None:
    """The token is shared, so the name is what says who it was."""
    client = opened()

    assert login(client, name="  ").status_code == 403


@pytest.mark.parametrize("path", ["/", "/?format=json", "/panels/letters", "/static/board.css", "/nowhere", "/login"])
def test_every_answer_forbids_what_the_page_does_not_need(opened: Open, path: str) -> None:
    """No script but our own, no frame, nothing from another host, nothing kept; errors too."""
    answer = opened().get(path)

    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


def test_a_page_has_no_script_or_style_of_its_own(opened: Open) -> None:
    """The policy would forbid them: everything is in the files beside it."""
    page = opened().get("/").text

    assert "<style" not in page
    assert "style=" not in page
    assert "onclick" not in page
    assert page.count("<script") == 1


def test_the_name_of_another_site_that_points_here_is_refused(opened: Open) -> None:
    """DNS rebinding: the page of evil.example must not be able to read this one."""
    assert opened().get("/", headers={"Host": "evil.example"}).status_code == 400


def test_what_was_read_is_escaped(opened: Open) -> None:
    """An error, a key or a hook's reason may contain anything."""
    page = opened().get("/").text

    assert "no broker &lt;b&gt;answers&lt;/b&gt;" in page
    assert "<b>answers" not in page


def test_beyond_loopback_reading_needs_a_login_too(opened: Open) -> None:
    """A page leads to the form, a program is told."""
    client = opened(private=True)

    assert client.get("/").headers["location"] == "/login"
    assert client.get("/?format=json").status_code == 401
    assert client.get("/panels/letters", headers={"HX-Request": "true"}).status_code == 401
    assert client.get("/changes/S1").headers["location"] == "/login"
    login(client)
    assert client.get("/").status_code == 200


def test_an_address_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    """And a token that could be guessed is refused; neither error shows it."""
    settings = Settings(data_dir=tmp_path)

    with pytest.raises(Misconfigured, match="needs a login there"):
        build(settings, "0.0.0.0")
    with pytest.raises(Misconfigured, match="could be guessed") as caught:
        build(settings.model_copy(update={"board_token": SecretStr("hunter2")}), "127.0.0.1")
    assert "hunter2" not in str(caught.value)


def test_the_token_is_in_no_log(
    opened: Open, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Right or wrong: a wrong one is often the right one of another board."""
    client = opened()
    with caplog.at_level(logging.DEBUG):
        login(client)
        login(client, token="a-token-of-another-board")

    said = caplog.text + "".join(capsys.readouterr())
    assert "board.wrong_token" in said
    assert TOKEN not in said
    assert "a-token-of-another-board" not in said


def test_a_form_that_is_too_large_is_refused(opened: Open) -> None:
    """The login is open to everybody, so it must not fill the memory."""
    client = opened()

    answer = client.post("/login", content=b"token=" + b"x" * 100_000, headers=own(client))

    assert answer.status_code == 413


def test_a_change_that_has_moved_on_is_not_acted_upon(opened: Open) -> None:
    """The person looked at another revision."""
    client = opened()
    login(client)
    form = {"repair": "retry", "revision": "7", "request_id": "00000000-0000-4000-8000-000000000001"}

    assert client.post("/changes/S1", data=form, headers=own(client)).status_code == 409


def test_behind_a_proxy_reading_needs_a_login_too(tmp_path: Path) -> None:
    """It listens on loopback, but who can reach the proxy is not known."""
    with pytest.raises(Misconfigured, match=r"board\.example can be reached"):
        build(Settings(data_dir=tmp_path), "127.0.0.1", ("board.example",))


def test_the_command_serves_without_kafka_and_ends_by_sigterm(tmp_path: Path) -> None:
    """Pages say what cannot be read, and do not wait for it; nothing but what it says itself is in its log."""
    port, log = free_port(), tmp_path / "board.log"
    env = {**os.environ, "CURFEW_BOOTSTRAP_SERVERS": "127.0.0.1:1", "CURFEW_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "agents.cli.main", "board", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: "no Kafka" in _page(url) or "Cannot be read now" in _page(url), "the page says it")
        assert "Read-only" in _page(url)
        second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
        assert (second.returncode, second.stdout) == (1, "")
        assert "choose another --port" in second.stderr
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
    said = log.read_text()
    assert f"board on {url}, read-only" in said
    assert "Traceback" not in said


def _page(url: str) -> str:
    try:
        return httpx.get(url, timeout=TIMEOUT_SECONDS).text
    except httpx.ConnectError:  # it is starting
        return ""


def test_many_changes_are_never_abandoned_by_one_click(opened: Open) -> None:
    """Everything else may be done to all that wait for one reason, by somebody who has logged in."""
    client = opened()
    form = {"repair": "abandon", "once": "00000000-0000-4000-8000-000000000001", "state": "failed"}
    assert client.post("/waiting", data=form, headers=own(client)).status_code == 403
    login(client)

    assert client.post("/waiting", data=form, headers=own(client)).status_code == 400
    gone = client.post("/waiting", data=form | {"repair": "retry", "service_id": "S9"}, headers=own(client))
    assert gone.status_code == 409


def test_one_change_is_abandoned_only_after_a_question(opened: Open) -> None:
    """It cannot be taken back; the first click sends nothing, so that it does not even need Kafka."""
    client = opened()
    login(client)
    form = {"repair": "abandon", "revision": "1", "request_id": "00000000-0000-4000-8000-000000000001"}

    asked = client.post("/changes/S1", data=form, headers=own(client))

    assert asked.status_code == 200
    assert "It cannot be taken back" in asked.text
    assert client.post("/changes/S1", data=form | {"confirm": "yes"}, headers=own(client)).status_code == 503
