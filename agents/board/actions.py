"""What a person does from the board: every action is in the audit trail before it happens, with who asked for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from agents.cli.plan_changes.requests import new_request
from agents.cli.plan_changes.sending import exchange
from agents.config_changes import AUDIT
from agents.config_records import write_keyed
from streams.codec import Codec, Registry
from streams.core.audit import AuditEntry
from streams.core.messages import Reply, Request, RequestKind, Resolution
from streams.settings import Settings

#: Where a request comes from: an element allows some channels only, but repairs may come from any.
CHANNEL = "board"
#: Somebody waits in front of a browser.
REPLY_S = 20.0
#: What a person may decide: the name in the form → (kind of request, resolution).
REPAIRS: dict[str, tuple[RequestKind, Resolution | None]] = {
    "retry": (RequestKind.RETRY, None),
    "finish_late": (RequestKind.RESOLVE, Resolution.FINISH_LATE),
    "roll": (RequestKind.RESOLVE, Resolution.ROLL),
    "abandon": (RequestKind.RESOLVE, Resolution.ABANDON),
}


class Actions:
    """Blocking calls, each of which writes to Kafka; they raise a CurfewError when it does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._codec = Codec(Registry(settings.schema_registry_url))

    def repair(self, change: dict[str, Any], repair: str, request_id: str, by: str) -> Reply | None:
        """Retry or resolve the change as it was when the person looked at it; None when nobody has answered yet.

        The same ``request_id`` again (a page that is sent twice) is the same request and gets the same answer.
        """
        kind, resolution = REPAIRS[repair]
        request: Request = new_request(
            kind,
            change["service_id"],
            change["account_id"],
            request_id=request_id,
            channel=CHANNEL,
            expected_revision=change["revision"],
            resolution=resolution,
        )
        self.audit("plan-change", change["service_id"], by, before=change, after={"action": repair, **_plain(request)})
        return exchange(self._settings, self._codec, request, REPLY_S)

    def audit(self, what: str, name: str, by: str, *, before: Any, after: Any) -> None:
        """One entry; it is durable when this returns."""
        now = datetime.now(UTC)
        entry = AuditEntry(
            at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            by=by,
            what=what,
            name=name,
            before=_text(before),
            after=_text(after),
        )
        write_keyed(self._settings, self._codec, AUDIT, [(f"{what}/{name}", entry)])


def _plain(value: object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
