"""The written catalogue is what the program does: `make docs` was run after the last change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from agents import settings_page
from agents.asyncapi import document, documents, text
from streams.codec import LocalSchemas
from streams.core.catalogue import CATALOGUE
from streams.kafka.manifest import Manifest
from streams.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["events.md", "settings.md", "asyncapi.yaml"])
def test_the_documents_are_current(name: str) -> None:
    """If not: `make docs`."""
    assert (DOCS / name).read_text(encoding="utf-8") == documents()[name], "run `make docs`"


def test_every_event_type_is_on_the_page() -> None:
    """With its facts."""
    page = documents()["events.md"]

    assert [name for name in CATALOGUE if f"| `{name}` |" not in page] == []
    facts = {fact for known in CATALOGUE.values() for fact in known.facts}
    assert [fact for fact in facts if f"| `facts.{fact}` |" not in page] == []


def test_every_setting_is_on_the_page_and_no_secret_is() -> None:
    """With the variable by which it is set."""
    page = documents()["settings.md"]

    assert [name for name in Settings.model_fields if f"| `{name}` | `CURFEW_{name.upper()}` |" not in page] == []
    secret = settings_page._default(FieldInfo(annotation=SecretStr, default=SecretStr("hunter2")))
    assert secret == "set"


def test_the_yaml_is_the_document() -> None:
    """A real parser reads back what was meant; nothing became a number, a date or a boolean."""
    meant = document(Manifest.load(), LocalSchemas())

    assert yaml.safe_load(text(meant)) == meant
    awkward: dict[str, Any] = {"a": ["2018-11-04", "yes", "1e3", None, {"b": [], "c": {}}, [1, "x: y # z"]], "1": "\n"}
    assert yaml.safe_load(text(awkward)) == awkward


def test_every_reference_leads_somewhere_and_every_topic_is_a_channel() -> None:
    """AsyncAPI 3: operations name messages of their channel, channels those of the components."""
    manifest = Manifest.load()
    made = document(manifest, LocalSchemas())

    for pointer in re.findall(r'"\$ref": "#/([^"]+)"', text(made)):
        place: Any = made
        for step in pointer.split("/"):
            place = place[step]
    assert made["channels"].keys() == {name for name, topic in manifest.topics.items() if topic.value is not None}
    assert made["operations"]["receive.billing.account"]["action"] == "receive"
    assert made["operations"]["send.queue.customer-events"]["action"] == "send"
