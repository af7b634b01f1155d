"""The board over a real night, in a real browser; tests/e2e/test_board.py asks it by HTTP."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from agents.configuration.changes import AUDIT
from streams.core.audit import AuditEntry
from tests.board.browser import SEEN_SECONDS, Browser, chromium
from tests.board.conftest import LETTER, SERVICES, TOKEN, UNPAID, Evening
from tests.e2e.nights import DEADLINE, NOON, pass_time
from tests.support.kafka_io import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.faults]

ZONE = "America/Sao_Paulo"


def audited(evening: Evening) -> list[AuditEntry]:
    """What people have done on the board."""
    codec = evening.application.codec
    values = (message.value() for message in evening.application.records(AUDIT))
    return [codec.decode(value, AuditEntry) for value in values if isinstance(value, bytes)]


@pytest.mark.timeout(540)
def test_a_night_in_a_browser(evening: Evening) -> None:
    """From PENDING to COMPLETED: a letter is redriven, a failed change retried, a held one finished late, by keyboard;
    no request leaves the host, and every page can be used by everybody."""
    application, everybody, letter = evening.application, len(SERVICES), place_of(evening, LETTER)
    with chromium() as browser:
        browser.open(f"{evening.url}/?every=2")
        browser.wait_for("2018-11-04", "#nights")
        browser.wait_for("12:00 h", "#countdown")
        look(browser, "board-noon")

        # who has not logged in may not act, whatever they send
        assert not browser.there("form")
        assert refused(browser, "/redrive", "place=dead-letters.events/0/0") == 403
        log_in(browser)
        assert refused(browser, "/changes/kette-1", "repair=abandon") == 409

        browser.wait_for(LETTER, "#letters")
        redrive(browser, letter)
        wait_until(lambda: known(evening, LETTER), "the account of the letter is known")

        # the evening: the page is only looked at
        browser.click("#pace-2")
        pass_time(application, NOON, DEADLINE - timedelta(hours=2))
        browser.wait_for(f"{len(UNPAID)} changes wait for a person", "#nights")
        done = everybody - len(UNPAID)
        wait_until(lambda: cells(browser)["completed"] == done, "the others are completed", SEEN_SECONDS)
        browser.wait_for("AT RISK", "#countdown")
        wait_until(lambda: browser.title.startswith("AT RISK"), "the tab says it too", SEEN_SECONDS)
        browser.wait_for("unpaid_bill", "#nights")
        look(browser, "board-at-risk")

        # all but one have paid by now: one is retried alone, the others together
        evening.unpaid.write_text("liberty")
        repair(browser, "kette-1", "retry", "board-change")
        application.settle()
        browser.wait_for("3 changes wait for a person", "#nights")
        repair_all(browser, "failed", "unpaid_bill", "retry")
        application.settle()
        browser.wait_for("1 change waits for a person", "#nights")
        wait_until(lambda: cells(browser)["completed"] == everybody - 1, "who has paid is completed", SEEN_SECONDS)

        evening.unpaid.write_text("")
        pass_time(application, DEADLINE - timedelta(hours=2), DEADLINE + timedelta(minutes=10))
        browser.wait_for("held", "#nights")
        browser.wait_for("LATE", "#countdown")
        wait_until(lambda: cells(browser)["effective"] == everybody - 1, "the others are effective", SEEN_SECONDS)
        assert cells(browser)["held"] == 1
        repair(browser, "liberty-1", "finish_late", None)
        pass_time(application, DEADLINE + timedelta(minutes=10), DEADLINE + timedelta(hours=1))
        wait_until(lambda: cells(browser)["effective"] == everybody, "everybody has the new plan", SEEN_SECONDS)
        look(browser, "board-morning")

        browser.paper(True)
        assert "Night's report" in browser.text()
        assert "Paused" not in browser.text("body")
        browser.picture("board-paper")

        strangers = [url for url in browser.requests() if not url.startswith((evening.url, "data:"))]
        assert strangers == []

    did = [
        (one.what, one.name, json.loads(one.after or "{}")["action"]) for one in audited(evening) if one.by == "maria"
    ]
    assert ("plan-change", "kette-1", "retry") in did
    assert [name for _, name, action in did if action == "retry"].count("norte-1") == 1
    assert ("plan-change", "liberty-1", "finish_late") in did
    assert ("dead-letter", letter, "redrive") in did


def repair_all(browser: Browser, state: str, reason: str, how: str) -> None:
    """Everything that waits for one reason."""
    browser.click(f'a[href="/waiting?state={state}&reason={reason}"]')
    browser.wait_for(f"3 {state} changes: {reason}")
    look(browser, None)
    browser.click(f'button[value="{how}"]')
    browser.wait_for("Asked for.")
    browser.click("main p:last-of-type a")
    browser.wait_for("2018-11-04", "#nights")


def place_of(evening: Evening, key: str) -> str:
    """Where the first letter of that key lies."""
    letters = evening.application.records("dead-letters.events")
    found = next(message for message in letters if message.key() == key.encode())
    return f"{found.topic()}/{found.partition()}/{found.offset()}"


def look(browser: Browser, name: str | None) -> None:
    """Light and dark: nothing that axe-core calls serious; and a picture."""
    for scheme in ("dark", "light"):
        browser.scheme(scheme)
        assert browser.violations() == []
        if name is not None:
            browser.picture(name if scheme == "light" else f"{name}-dark")


def refused(browser: Browser, path: str, form: str) -> int:
    """The status of a form that the page itself sends."""
    script = (
        "const [path, body] = arguments; return fetch(path, {method: 'POST', body, "
        "headers: {'Content-Type': 'application/x-www-form-urlencoded'}}).then(answer => answer.status)"
    )
    return int(browser.run(script, path, form))


def log_in(browser: Browser) -> None:
    browser.click(".who a")
    browser.wait_for("Log in to act")
    look(browser, None)
    browser.type("#name", "maria")
    browser.type("#token", TOKEN)
    browser.click(".login button")
    browser.wait_for("Acting as maria", "header")


def redrive(browser: Browser, place: str) -> None:
    """A letter is looked at, tried dry, sent back."""
    browser.click(f'a[href="/letters/{place}"]')
    browser.wait_for("this zone is not known")
    look(browser, "board-letter")
    browser.click('form[action="/redrive"] button')
    browser.wait_for("1 of 1 letter would be sent back. Nothing has been sent yet.")
    browser.wait_for("can be read by now")
    look(browser, "board-redrive")
    browser.click('button[name="confirm"]')
    browser.wait_for("1 letter was sent back.")
    browser.click("main p:last-of-type a")
    browser.wait_for("by maria", "#letters")


def repair(browser: Browser, service: str, how: str, name: str | None) -> None:
    browser.click(f'a[href="/changes/{service}"]')
    browser.wait_for(f"Change of service {service}")
    look(browser, name)
    browser.click(f'button[value="{how}"]')
    browser.wait_for("Accepted.")
    browser.click("main p:last-of-type a")
    browser.wait_for("2018-11-04", "#nights")


def known(evening: Evening, account: str) -> bool:
    """Whether the events workers have a row of it."""
    rows = evening.application.records("events-store-changelog")
    return f"account/{account}".encode() in {message.key() for message in rows}


def cells(browser: Browser) -> dict[str, int]:
    """The figures of the night, by the column's name."""
    script = (
        "const table = document.querySelector('#nights table');"
        "const names = [...table.tHead.rows[0].cells].map(one => one.innerText.toLowerCase());"
        "return [...table.tBodies[0].rows[0].cells].map((one, at) => [names[at], one.innerText])"
    )
    found = dict(browser.run(script))
    return {name: int(text.replace(",", "").replace("·", "0") or 0) for name, text in found.items() if name in _COUNTS}


_COUNTS = ("pending", "started", "executed", "persisted", "completed", "effective", "failed", "held", "missed")
