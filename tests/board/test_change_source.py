"""The panels of the next midnights while Kafka is away and after it, on a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.board.change_source import CHANGELOG, ChangeSource
from agents.board.memory import Memory
from agents.board.panels import countdown
from streams.core.errors import Transient
from streams.kafka.admin import admin_client, create_topics
from streams.kafka.manifest import Manifest
from streams.settings import Settings
from streams.topics import TICKS
from tests.support.brokers import Cluster
from tests.support.kafka_io import wait_until


@pytest.mark.kafka
def test_what_was_read_before_is_not_shown_as_fresh_when_kafka_is_away(
    private_kafka: Callable[..., Cluster], tmp_path: Path
) -> None:
    """Nothing comes then, as on a quiet evening; when it is back the same feed goes on."""
    cluster = private_kafka()
    assert cluster.address is not None
    settings = Settings(
        bootstrap_servers=cluster.address.bootstrap_servers,
        schema_registry_url=cluster.address.schema_registry_url,
        data_dir=tmp_path,
    )
    manifest = Manifest.load()
    create_topics(admin_client(settings.kafka()), [manifest.topic(name) for name in (CHANGELOG, TICKS)])
    source = ChangeSource(settings, Memory())
    try:
        assert source.read()[countdown.NAME]["zones"] == []

        cluster.kill_broker()
        with pytest.raises(Transient, match="is the broker well"):
            source.read()
        cluster.restart_broker()
        wait_until(lambda: _reads(source), "the panels are read again")
    finally:
        source.close()


def _reads(source: ChangeSource) -> bool:
    try:
        return bool(source.read())
    except Transient:
        return False
