"""The rows of a store as its changelog has them now, for reports: a worker's own store belongs to the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from streams.kafka.scan import Scanner

#: (partition, key) → value.
Rows: TypeAlias = dict[tuple[int, bytes], bytes]


def rows(
    scanner: Scanner,
    topic: str,
    prefixes: tuple[bytes, ...],
    wanted: Callable[[bytes, bytes], bool] = lambda key, value: True,
    slim: Callable[[bytes, bytes], bytes] = lambda key, value: value,
) -> Rows:
    """Those whose keys begin with one of ``prefixes`` and that are ``wanted``; none where there is no such topic.

    What ``slim`` makes of a value is kept, where whole ones would be too much memory.

    Raises Transient when Kafka does not answer.
    """
    kept: Rows = {}
    for message in scanner.read(topic, scanner.spans(topic)):
        key, value = message.key(), message.value()
        assert isinstance(key, bytes)
        assert isinstance(value, bytes | None)
        where = message.partition() or 0, key
        if value is None or not key.startswith(prefixes) or not wanted(key, value):
            kept.pop(where, None)
        else:
            kept[where] = slim(key, value)
    return kept
