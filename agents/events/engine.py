"""Turns object changes and findings into events with parameters, and sends them to their queues.

Per record: decode → is it new (revision) → put the row → detect → enrich from the account's rows → route → emit. The
pure core decides all of it; this module decodes, fetches and encodes. The store of a partition has the objects of its
accounts; the catalogue and bill runs, which span accounts, are read whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

import structlog

from agents.events.contexts import Contexts
from agents.events.desk import Desk
from agents.events.feeds import FEEDS, Feed, check_key
from agents.events.invoice_timers import InvoiceTimers
from agents.events.limits import check_size
from agents.events.live_router import Catalogue, LiveRouter
from agents.events.usage_contexts import UsageContexts
from streams.codec import Codec
from streams.codec.rows import object_row_decoder, row_decoder
from streams.core.errors import Poison
from streams.core.events import Event, Finding
from streams.core.rows import CountRow, Kind, ObjectRow, count_key
from streams.core.sources import SourceRow
from streams.core.usage.objects import Sim
from streams.kafka.chunks import Batch
from streams.kafka.runtime import Runtime
from streams.settings import ClockMode
from streams.topics import FINDINGS, TICKS

log = structlog.get_logger(__name__)


class Ports(Protocol):
    """What the events worker needs of the outside.

    ``queues`` are the names of the queues that exist, ``partitions`` the number that the topics of this worker have.
    """

    @property
    def codec(self) -> Codec: ...

    @property
    def catalogue(self) -> Catalogue: ...

    @property
    def queues(self) -> Collection[str]: ...

    @property
    def partitions(self) -> int: ...


def attach(runtime: Runtime, ports: Ports) -> None:
    """Register the agents of the object changes, of the findings and of the ticks with ``runtime``."""
    events = Events(ports, virtual=runtime.settings.clock is ClockMode.VIRTUAL)
    runtime.agent("changes", topics=list(FEEDS), handler=events.changes, open=events.timers.open)
    runtime.agent("findings", topics=[FINDINGS], handler=events.findings)
    runtime.agent("ticks", topics=[TICKS], handler=events.timers.run)


class Events:
    """The handlers. Nothing is kept between chunks but compiled things: a chunk may be decided again.

    ``virtual``: time moves only when nothing is in flight.
    """

    def __init__(self, ports: Ports, *, virtual: bool = False) -> None:
        codec = ports.codec
        self.codec = codec
        self.catalogue = ports.catalogue
        self.router = LiveRouter(ports.catalogue, ports.queues)
        self.feeds = {
            topic: Feed(kind, codec.decoder(change), object_row_decoder(cls))
            for topic, (kind, change, cls) in FEEDS.items()
        }
        self.row_decoders: dict[str, Callable[[bytes], ObjectRow[Any]]] = {
            feed.kind: feed.row for feed in self.feeds.values()
        }
        self.row_decoders[Kind.SERVICE_SIM] = object_row_decoder(Sim)
        self.contexts = Contexts(codec, ports.partitions)
        self.usage_contexts = UsageContexts(codec)
        self.timers = InvoiceTimers(codec, ports.catalogue, lambda batch: Desk(self, batch), virtual=virtual)
        self.decode_finding = codec.decoder(Finding)
        self.encode_finding = codec.encoder(FINDINGS, Finding)
        self.decode_source_row = codec.decoder(SourceRow)
        self.decode_counts = row_decoder(CountRow)
        self.encoders: dict[str, tuple[str, Callable[[Event], bytes]]] = {}

    def changes(self, batch: Batch) -> Iterator[None]:
        """Follow the objects of one feed and raise what their changes mean; then all that is due."""
        feed, desk = self.feeds[batch.topic], Desk(self, batch)
        for record in batch.records:
            try:
                check_size(record, feed.kind)
                desk.follow(feed, record, feed.decode(record.value))
            except Poison as error:
                batch.dead_letter(record, error)
        desk.close()
        yield from self.timers.run(batch)

    def findings(self, batch: Batch) -> None:
        """Raise what others have found, with parameters from this partition's rows."""
        desk, decode = Desk(self, batch), self.decode_finding
        for record in batch.records:
            try:
                check_size(record)
                finding = decode(record.value)
                check_key(record, finding.key)
                desk.raise_events(record, (finding,))
            except Poison as error:
                batch.dead_letter(record, error)
        desk.close()

    def encoder(self, queue: str) -> tuple[str, Callable[[Event], bytes]]:
        """(topic, encoder) of a queue."""
        found = self.encoders.get(queue)
        if found is None:
            topic = f"queue.{queue}"
            found = self.encoders[queue] = topic, self.codec.encoder(topic, Event)
        return found


def totals(rows: Iterable[tuple[bytes, bytes]]) -> Counter[str]:
    """Sum of the count rows among ``rows`` (key, value): ``raised <type>``, ``unrouted <type>``, ``withheld <type>``,
    ``gaps <kind>``, ``unfit <route>`` (its filter had no answer). Give it the rows of all partitions, each partition's
    latest ones."""
    decode = row_decoder(CountRow)
    found: Counter[str] = Counter()
    for key, value in rows:
        if key.startswith(count_key("")):
            found.update(decode(value).counts)
    return found
