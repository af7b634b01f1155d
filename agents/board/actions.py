"""What a person does from the board: every action is in the audit trail before it happens, with who asked for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from agents.configuration.changes import AUDIT
from agents.configuration.records import write_keyed
from agents.delivery import redrive
from agents.delivery.redrive import LETTER
from agents.plan_changes.requests import exchange, new_request
from streams.codec import Codec, Registry
from streams.core.audit import AuditEntry
from streams.core.ids import derive
from streams.core.plan_change.messages import Reply, Request, RequestKind, Resolution
from streams.settings import Settings
from streams.topics import REQUESTS

#: Of what an entry of the audit trail speaks.
CHANGE = "plan-change"
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

    def repair(self, change: Mapping[str, Any], repair: str, request_id: str, by: str) -> Reply | None:
        """Retry or resolve the change as it was when the person looked at it; None when nobody has answered yet.

        The same ``request_id`` again (a page that is sent twice) is the same request and gets the same answer.
        """
        request = self._request(change, repair, request_id)
        self._write([self._entry(CHANGE, change["service_id"], by, change, _asked(repair, request))])
        return exchange(self._settings, self._codec, request, REPLY_S)

    def repair_all(self, changes: Sequence[Mapping[str, Any]], repair: str, once: str, by: str) -> None:
        """The same for many; nobody waits for the answers, the board shows what comes of them.

        Ids follow from ``once``, so that a page that is sent twice asks once.
        """
        asked = [(one, self._request(one, repair, derive("board", once, one["service_id"]))) for one in changes]
        self._write(
            [self._entry(CHANGE, one["service_id"], by, one, _asked(repair, request)) for one, request in asked]
        )
        write_keyed(self._settings, self._codec, REQUESTS, [(what.account_id, what) for _, what in asked])

    def _request(self, change: Mapping[str, Any], repair: str, request_id: str) -> Request:
        kind, resolution = REPAIRS[repair]
        return new_request(
            kind,
            change["service_id"],
            change["account_id"],
            request_id=request_id,
            channel=CHANNEL,
            expected_revision=change["revision"],
            resolution=resolution,
        )

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


def _asked(repair: str, request: Request) -> dict[str, Any]:
    return {"action": repair, **msgspec.to_builtins(request)}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
