"""What a person does from the board: every action is in the audit trail before it happens, with who asked for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from agents.board import redrive
from agents.cli.plan_changes.requests import new_request
from agents.cli.plan_changes.sending import exchange
from agents.config_changes import AUDIT
from agents.config_records import write_keyed
from streams.codec import Codec, Registry
from streams.core.audit import AuditEntry
from streams.core.messages import Reply, Request, RequestKind, Resolution
from streams.settings import Settings

#: Of what an entry of the audit trail speaks.
CHANGE, LETTER = "plan-change", "dead-letter"
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
        after = {"action": repair, **_plain(request)}
        self._write([self._entry(CHANGE, change["service_id"], by, change, after)])
        return exchange(self._settings, self._codec, request, REPLY_S)

    def dry_run(self, places: Sequence[str]) -> list[redrive.Step]:
        """What a redrive of these letters would do; nothing is sent."""
        return redrive.plan(self._settings, self._codec, places)

    def redrive(self, places: Sequence[str], by: str) -> list[redrive.Step]:
        """Send them back to where they came from; those that are refused are in the answer, and not sent."""
        steps = redrive.plan(self._settings, self._codec, places)
        wanted = [one for one in steps if one.refused is None]
        self._write(
            [
                self._entry(LETTER, one.place, by, None, {"action": "redrive", "to": one.topic, "replays": one.replays})
                for one in wanted
            ]
        )
        redrive.send(self._settings, wanted)
        return steps

    def _entry(self, what: str, name: str, by: str, before: Any, after: Any) -> AuditEntry:
        now = datetime.now(UTC)
        return AuditEntry(
            at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            by=by,
            what=what,
            name=name,
            before=None if before is None else _text(before),
            after=_text(after),
        )

    def _write(self, entries: Sequence[AuditEntry]) -> None:
        """They are durable when this returns: nothing is done that is not in the trail."""
        keyed = [(f"{one.what}/{one.name}", one) for one in entries]
        write_keyed(self._settings, self._codec, AUDIT, keyed)


def _plain(value: object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
