"""What the workers' changelogs say now: nothing is joined, nothing is committed, nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agents.cli.plan_changes.progress import progress

if TYPE_CHECKING:
    from agents.reconcile.letters import Letter
    from streams.core.plan_change.machine import Change
    from streams.kafka.scan import Scanner, Spans

#: Where the scheduler and the events app keep their rows.
CHANGES = "plan-changes-store-changelog"
OBJECTS = "events-store-changelog"
#: Where the persister puts outcomes that it cannot write.
DEAD_LETTERS = "dead-letters.persistence"

#: The bar moves once for so many records; for each one it would cost more than reading.
_STEP = 5_000


def read_changes(*, history: bool = False) -> list[Change]:
    """The latest change of every service; with ``history`` also those that later ones have replaced."""
    from streams.core.plan_change.rows import CHANGE, PAST, unpack_change

    prefixes = (CHANGE.encode(), PAST.encode()) if history else (CHANGE.encode(),)
    with _scanner() as scanner:
        latest = _latest(scanner, CHANGES, _existing(scanner, CHANGES), prefixes)
    return [unpack_change(value) for value in latest.values()]


def read_change(service_id: str) -> Change | None:
    """The latest change of one service: only its own partition is read."""
    from streams.core.plan_change.rows import change_key, unpack_change

    found = read_rows(CHANGES, service_id, [change_key(service_id)])
    return unpack_change(found[change_key(service_id)]) if found else None


def read_letters(change_ids: Collection[str]) -> dict[tuple[str, int], Letter]:
    """(change, revision) → the last dead letter that the persister made of its outcome, for these changes."""
    from agents.reconcile import letters
    from streams.codec import Codec, Registry
    from streams.settings import Settings

    codec = Codec(Registry(Settings().schema_registry_url))
    with _scanner() as scanner:
        found = letters.read_letters(scanner, scanner.spans(DEAD_LETTERS), codec, DEAD_LETTERS)
        return {(one.change_id, one.revision): one for one in found if one.change_id in change_ids}


def read_rows(changelog: str, partition_key: str | None, keys: Collection[bytes]) -> dict[bytes, bytes]:
    """Those rows of an app that exist among ``keys``.

    Rows lie where the records of ``partition_key`` go: a changelog has the partitions of the topics that its app reads.
    With None all partitions are read.
    """
    from streams.kafka.partitioner import partition_of

    with _scanner() as scanner:
        spans = _existing(scanner, changelog)
        mine = spans.keys() if partition_key is None else {partition_of(partition_key, len(spans))}
        wanted = {number: span for number, span in spans.items() if number in mine}
        latest = _latest(scanner, changelog, wanted, tuple(keys))
    return {key: latest[key] for key in keys if key in latest}


@contextmanager
def _scanner() -> Iterator[Scanner]:
    from streams.kafka.admin import answering
    from streams.kafka.scan import Scanner
    from streams.settings import Settings

    with Scanner(answering(Settings().kafka())) as scanner:
        yield scanner


def _existing(scanner: Scanner, topic: str) -> Spans:
    """What a topic holds; raises Misconfigured without the topic: then no row would look like no change."""
    from streams.core.errors import Misconfigured
    from streams.kafka.admin import missing_topics

    spans = scanner.spans(topic)
    if not spans:
        raise Misconfigured(missing_topics([topic]))
    return spans


def _latest(scanner: Scanner, topic: str, spans: Spans, prefixes: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """The last value of each key that begins with one of ``prefixes``; deleted rows are left out."""
    latest: dict[bytes, bytes] = {}
    with progress(f"reading {topic}", sum(span.end - span.start for span in spans.values())) as advance:
        for count, message in enumerate(scanner.read(topic, spans), 1):
            if count % _STEP == 0:
                advance(_STEP)
            key, value = message.key(), message.value()
            if not isinstance(key, bytes) or not key.startswith(prefixes):
                continue
            if isinstance(value, bytes):
                latest[key] = value
            else:
                latest.pop(key, None)
    return latest
