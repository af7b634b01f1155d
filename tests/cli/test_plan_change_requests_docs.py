"""docs/plan-change-requests.md, as far as it can be checked without a cluster: its JSON and its reasons."""

from __future__ import annotations

import json
import re
from pathlib import Path

from agents.plan_changes.reasons import _ACCOUNT, _REPAIR, _REQUEST
from agents.record_json import parse_line
from streams.codec import Codec, LocalIds, LocalSchemas
from streams.core.plan_change.messages import Reply, Request, RequestKind, Resolution
from streams.kafka.manifest import Manifest

PAGE = (Path(__file__).parents[2] / "docs" / "plan-change-requests.md").read_text()
LINES = re.findall(r"```json\n(.*?)\n```", PAGE)


def test_every_example_is_a_record_that_produce_takes() -> None:
    """All kinds are there, keyed by their account."""
    schemas = LocalSchemas()
    codec, topics = Codec(LocalIds(schemas), schemas), Manifest.load().topics
    kinds, replies = set(), 0
    for line in LINES:
        is_request = "kind" in json.loads(line)["value"]
        topic = topics["plan-change.requests" if is_request else "plan-change.replies"]
        record = parse_line(line, topic, codec)
        assert record.value is not None
        if is_request:
            request = codec.decode(record.value, Request)
            kinds.add(request.kind)
            assert record.key == request.account_id.encode()
        else:
            replies += 1
            reply = codec.decode(record.value, Reply)
            assert record.key == reply.account_id.encode()

    assert (kinds, replies) == (set(RequestKind), 2)
    assert [one for one in Resolution if f"`{one}`" not in PAGE] == []


def test_every_reason_of_a_reply_is_on_the_page() -> None:
    """A CRM has to know what it can get."""
    assert [code for code in _ACCOUNT | _REQUEST | _REPAIR if f"| `{code}` |" not in PAGE] == []
