"""docs/subscriptions.md says what the code does: fields, defaults, limits, the example, headers, body, verification."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import standardwebhooks

from agents.configuration.subscriptions import read_subscriptions
from streams.core import subscription_rules as rules
from streams.core.delivery import endpoint, retries
from streams.core.errors import Misconfigured
from streams.core.subscription_rules import Known
from streams.core.subscriptions import Calculate, Email, Forward, Subscription, Webhook
from streams.filters import CelLanguage
from streams.sinks import webhook, webhook_body, webhook_signature
from streams.sinks.email_templates import Templates
from tests.delivery.plant import START, event, subscription

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/subscriptions.md").read_text(encoding="utf-8")
DERIVED = {"id", "version", "created_at"}
TABLES = {
    "[[subscription]]": Subscription,
    "[subscription.webhook]": Webhook,
    "[subscription.email]": Email,
    "[subscription.forward]": Forward,
    "[subscription.calculation]": Calculate,
}
SECRET = "whsec_" + "c2VjcmV0IG9mIGEgdGVzdCwgMzIgYnl0ZXMgbG9uZyE="


def rows(table: str) -> dict[str, str]:
    """Field → default, of the table below the line ``table``."""
    body = PAGE.split(f"\n`{table}`:\n\n")[1].split("\n\n")[0]
    return dict(re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", body, re.MULTILINE))


def written(default: Any) -> str:
    if default is MISSING:
        return "required"
    return "none" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize("table", TABLES)
def test_every_field_is_on_the_page_with_its_default(table: str) -> None:
    """And no other: what is derived nobody writes, and the actions have tables of their own."""
    elsewhere = DERIVED | {"webhook", "email", "forward", "calculation"} if table == "[[subscription]]" else set()
    known = {one.name: written(one.default) for one in fields(TABLES[table]) if one.name not in elsewhere}

    assert rows(table) == known


def test_the_limits_on_the_page_are_those_of_the_rules() -> None:
    """A number that changes in the code changes here."""
    longest = f"{endpoint.LONGEST_PAUSE_MS // 60_000} minutes"
    for limit in (
        f"1 to {rules.MAX_ATTEMPTS} whole numbers, 0 to {rules.MAX_DELAY_S:,}",
        f"1 to {rules.MAX_AGE_S:,} (30 days)",
        f"1 to {rules.MAX_CONCURRENCY}: requests",
        f"1 to {rules.MAX_PER_SECOND:,}: requests",
        f"up to {rules.MAX_URL_LENGTH:,} characters",
        f"within {webhook.TIMEOUT_S:.0f} seconds",
        f"Up to {retries.JITTER:.0%}".replace("%", " %"),
        f"more than {webhook_body.MAX_BODY_BYTES:,} bytes",
        f"for {endpoint.PAUSE_MS // 1000} seconds, then for longer, up to {longest}",
    ):
        assert limit in PAGE, limit
    assert endpoint.OPEN_AFTER == 10, "ten failures in a row"
    assert endpoint.TOLD_AT == (50, 70, 90, 100), "half of the time, 70 % and 90 %"


def test_the_example_on_the_page_can_be_saved_in_production(tmp_path: Path) -> None:
    """It is read as `apply` reads it."""
    file = tmp_path / "subscriptions.toml"
    file.write_text(re.findall(r"```toml\n(.*?)```", PAGE, re.S)[0], encoding="utf-8")
    known = Known(queues=("customer-events",), development=False, language=CelLanguage())

    assert list(read_subscriptions(file, known, {}, START, lambda reference: None)) == ["crm"]


def test_the_mail_of_its_page_can_be_saved_when_its_template_is_written(tmp_path: Path) -> None:
    """In the order of docs/email.md; without the template it is refused."""
    page = (ROOT / "docs/email.md").read_text(encoding="utf-8")
    file = tmp_path / "mail.toml"
    file.write_text(re.findall(r"```toml\n(.*?)```", page, re.S)[0], encoding="utf-8")
    before = Known(queues=("customer-events",), development=False, language=CelLanguage(), templates={"event": ()})
    with pytest.raises(Misconfigured, match="there is no template 'overdue'"):
        read_subscriptions(file, before, {}, START, lambda reference: None)

    subprocess.run(["bash", "-ec", re.findall(r"```sh\n(.*?)```", page, re.S)[0]], cwd=tmp_path, check=True)
    known = replace(before, templates=Templates(tmp_path / "templates").uses())

    assert list(read_subscriptions(file, known, {}, START, lambda reference: None)) == ["overdue-mail"]


def test_the_body_on_the_page_has_the_fields_of_a_body() -> None:
    """All of them, in their order."""
    [shown] = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    made = msgspec.json.decode(webhook_body.render(event(1), subscription()))

    assert list(json.loads(shown)) == list(made)
    assert list(json.loads(shown)["data"]) == list(made["data"])


def test_the_receiver_on_the_page_takes_what_is_signed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as it is written, with the library of Standard Webhooks."""
    monkeypatch.setenv("CURFEW_SECRET_CRM", SECRET)
    [source] = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/subscriptions.md", "exec"), names)
    handle: Callable[[bytes, dict[str, str]], int] = names["handle"]
    key = standardwebhooks.Webhook(SECRET)._whsecret
    body = webhook_body.render(event(1), subscription())
    headers = webhook_signature.headers([key], webhook_signature.message_id("unit"), datetime.now(UTC), body)

    assert handle(body, headers) == 204
    assert handle(body.replace(b"Suspended", b"Cancelled"), headers) == 401
    assert [header for header in headers if f"| `{header}` |" not in PAGE] == []
