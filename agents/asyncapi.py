"""``docs/asyncapi.yaml`` from the manifest and the schemas: AsyncAPI 3 with Kafka bindings. ``make docs`` writes it.

``python -m agents.asyncapi DIRECTORY`` writes this document and the pages of events and settings.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from agents import catalogue_page, settings_page
from streams.codec import LocalSchemas
from streams.kafka.manifest import Manifest, Topic

#: Writers that are not Curfew: what they write Curfew receives; everything else it sends.
OUTSIDE: Final = frozenset({"billing", "crm"})
_BINDING: Final = "0.5.0"
_AVRO: Final = "application/vnd.apache.avro;version=1.9.0"
_EVENT_HEADERS: Final = {
    "ce_id": "the event's id: the same again after a replay",
    "ce_type": "e.g. service.state_transitioned",
    "ce_source": "/curfew/events",
    "ce_specversion": "1.0",
    "ce_time": "business time, RFC 3339",
    "ce_subject": "kind and id of the object, e.g. service/svc-1",
    "content-type": "application/avro",
    "traceparent": "W3C trace context, where the change that caused it had one",
}
_HEAD: Final = "# Written by `make docs` from schemas/topics.toml and schemas/avro; do not edit.\n"


def document(manifest: Manifest, schemas: LocalSchemas) -> dict[str, Any]:
    """The document as plain values."""
    topics = [topic for topic in manifest.topics.values() if topic.value is not None]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Curfew",
            "version": version("curfew-streams"),
            "description": (
                "Values are Avro in the Confluent wire format: a zero byte, four bytes of schema id, the body. "
                "Keys are UTF-8 text. Records are partitioned by murmur2 of the key, as by Kafka's own clients."
            ),
            "license": {"name": "Apache 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/avro",
        "servers": {
            "kafka": {
                "host": "{bootstrap}",
                "protocol": "kafka",
                "variables": {"bootstrap": {"default": "127.0.0.1:9092", "description": "host:port of a broker"}},
                "bindings": {
                    "kafka": {
                        "schemaRegistryUrl": "http://127.0.0.1:8081/apis/ccompat/v7",
                        "schemaRegistryVendor": "confluent",
                        "bindingVersion": _BINDING,
                    }
                },
            }
        },
        "channels": {topic.name: _channel(topic) for topic in topics},
        "operations": {f"{_action(topic)}.{topic.name}": _operation(topic) for topic in topics},
        "components": {
            "messages": {
                name: _message(name, schemas, sorted({topic.key for topic in topics if topic.value == name}))
                for name in sorted({topic.value for topic in topics if topic.value is not None})
            }
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup]}
    if "retention.ms" in topic.kafka_config:
        configuration["retention.ms"] = int(topic.kafka_config["retention.ms"])
    key = f"key: {topic.key}" if topic.key else "no key"
    return {
        "address": topic.name,
        "description": f"{topic.about} ({key}; written by {topic.writer})",
        "messages": {_name(topic): {"$ref": f"#/components/messages/{topic.value}"}},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": configuration,
                "bindingVersion": _BINDING,
            }
        },
    }


def _operation(topic: Topic) -> dict[str, Any]:
    channel = f"#/channels/{topic.name}"
    return {
        "action": _action(topic),
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{_name(topic)}"}],
    }


def _action(topic: Topic) -> str:
    return "receive" if topic.writer in OUTSIDE else "send"


def _name(topic: Topic) -> str:
    return (topic.value or "").rpartition(".")[2]


def _message(name: str, schemas: LocalSchemas, keys: list[str]) -> dict[str, Any]:
    raw = schemas.newest(name).raw
    about = " or ".join(key for key in keys if key) or "none"
    found: dict[str, Any] = {
        "name": name,
        "summary": raw.get("doc", ""),
        "contentType": "application/avro",
        "payload": {"schemaFormat": _AVRO, "schema": raw},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": about},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "bindingVersion": _BINDING,
            }
        },
    }
    if name == "curfew.events.Event":
        properties = {header: {"type": "string", "description": text} for header, text in _EVENT_HEADERS.items()}
        required = [header for header in properties if header != "traceparent"]
        found["headers"] = {"type": "object", "required": required, "properties": properties}
    return found


def text(value: dict[str, Any]) -> str:
    """``value`` as YAML: block style, every text quoted as in JSON, so nothing is taken for a number or a date."""
    return _HEAD + "\n".join(_lines(value, 0)) + "\n"


def _lines(value: dict[str, Any] | list[Any], depth: int) -> Iterator[str]:
    pad = "  " * depth
    pairs = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    for key, item in pairs:
        lead = "-" if key is None else f"{key if re.fullmatch(r'[A-Za-z][A-Za-z0-9_.-]*', key) else json.dumps(key)}:"
        if isinstance(item, dict | list) and item:
            inner = list(_lines(item, depth + 1))
            if key is None:  # the first line of an item stands behind its dash
                yield f"{pad}- {inner[0].lstrip()}"
                yield from inner[1:]
            else:
                yield f"{pad}{lead}"
                yield from inner
        else:
            yield f"{pad}{lead} {json.dumps(item, ensure_ascii=False)}"


def documents() -> dict[str, str]:
    """Name of the file → its content, for everything that ``make docs`` writes."""
    manifest, schemas = Manifest.load(), LocalSchemas()
    return {
        "events.md": catalogue_page.page(),
        "settings.md": settings_page.page(),
        "asyncapi.yaml": text(document(manifest, schemas)),
    }


if __name__ == "__main__":
    for file, content in documents().items():
        Path(sys.argv[1], file).write_text(content, encoding="utf-8")
