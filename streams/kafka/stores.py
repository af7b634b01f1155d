"""Opens the stores of a worker, recovered from their changelog."""

from __future__ import annotations

import fcntl
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import KafkaException

from streams.core.errors import Misconfigured, Transient
from streams.kafka.cluster import Layout
from streams.kafka.recovery import Changelog, StoreAhead
from streams.kafka.store import MemoryStore, Origin, RocksStore, Store

log = structlog.get_logger(__name__)


class Stores:
    """One store per partition in ``directory/<partition>``; the directory belongs to one process at a time.

    Raises :class:`streams.core.errors.Misconfigured` when another process holds the directory.
    """

    def __init__(
        self, config: dict[str, Any], directory: Path, layout: Layout, changelog: str, *, rocks: bool, stateful: bool
    ) -> None:
        self._config = config
        self._directory = directory
        self._layout = layout
        self._changelog = changelog
        self._rocks = rocks
        self._stateful = stateful
        self._changelogs: dict[int, Changelog] = {}
        self._mutex = threading.Lock()
        if rocks:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = (directory / "lock").open("w")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Misconfigured(
                    f"{directory} is in use by another worker: give each worker of an app its own --instance"
                ) from None

    def _source(self, partition: int) -> Changelog:
        with self._mutex:
            if partition not in self._changelogs:
                self._changelogs[partition] = Changelog(self._config, self._origin(partition))
            return self._changelogs[partition]

    def _origin(self, partition: int) -> Origin:
        return Origin(
            cluster_id=self._layout.cluster_id,
            topic_id=self._layout.topic_ids[self._changelog],
            topic=self._changelog,
            partition=partition,
        )

    def open(self, partition: int, stopped: Callable[[], bool]) -> Store:
        """Open and recover; blocks. Raises Transient when Kafka does not answer, recovery.Stopped when told to."""
        if not self._stateful:
            return MemoryStore()
        store = self._new(partition)
        try:
            read = self._source(partition).recover(store, stopped)
        except StoreAhead as error:
            log.warning("store.wiped", partition=partition, reason=str(error))
            store.close()
            shutil.rmtree(self._directory / str(partition), ignore_errors=True)
            raise Transient(f"the store of partition {partition} was wiped; it is read again") from error
        except KafkaException as error:
            store.close()
            raise Transient(f"cannot read {self._changelog}[{partition}]: {error.args[0].str()}") from error
        except BaseException:
            store.close()
            raise
        log.info("store.recovered", topic=self._changelog, partition=partition, records=read)
        return store

    def _new(self, partition: int) -> Store:
        if not self._rocks:
            return MemoryStore()
        return RocksStore(self._directory / str(partition), self._origin(partition))

    def end(self, partition: int) -> int:
        try:
            return self._source(partition).end()
        except KafkaException as error:
            raise Transient(f"cannot ask the end of {self._changelog}[{partition}]: {error.args[0].str()}") from error

    def close(self) -> None:
        with self._mutex:
            for changelog in self._changelogs.values():
                changelog.close()
            self._changelogs.clear()
