"""`curfew produce`: JSON lines → records, each checked before it leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaError, KafkaException, Producer

from agents.cli import choices, completion
from agents.cli.output import Exit, note
from agents.record_json import Outgoing, parse_line
from streams.codec import Codec, Registry
from streams.kafka.admin import admin_client, answering, require_topics
from streams.kafka.manifest import QUEUE_PREFIX, Manifest, Topic
from streams.kafka.partitioner import PARTITIONER
from streams.settings import Settings

MAX_BYTES = 1_000_000  # of the client and, with a little more, of a broker that nobody has told otherwise
FLUSH_TIMEOUT_S = 60.0  # longer than librdkafka needs to give up on a broker that is gone

app = typer.Typer()


@app.command()
def produce(
    topic: Annotated[
        str, typer.Argument(help="A topic of the manifest, or queue.NAME.", autocompletion=completion.topics)
    ],
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Report bad lines and go on with the next.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line, send nothing.")] = False,
    style: Annotated[str, typer.Option("--format", "-f", help="Only json: what consume -f json prints.")] = "json",
) -> None:
    r"""Write JSON lines from stdin as records: {"key": …, "value": {…}, "headers": [\[name, text]]}.

    Values are checked as the worker that reads the topic does; the first bad line ends it, nothing of that line is
    sent. Exit code 2 for a topic that the manifest does not know.

    Example: curfew produce billing.service --dry-run < docs/examples/services.jsonl
    """
    if style != "json":
        raise typer.BadParameter("produce reads json only", param_hint="--format")
    settings = Settings()
    manifest = Manifest.load()
    if topic not in manifest.topics and not topic.startswith(QUEUE_PREFIX):
        choices.refuse(f"{choices.unknown('topic', topic, manifest.topics)}; see `curfew topics list`")
    target = manifest.topic(topic)
    codec = Codec(Registry(settings.schema_registry_url))
    sender = None
    if not dry_run:
        config = answering(settings.kafka())
        require_topics(admin_client(config), [topic])  # the client would wait for it, silently, until it gives up
        sender = _Sender(config, target)
    read, bad, sent = 0, 0, 0
    try:
        for number, record in _records(sys.stdin, target, codec):
            problem: object = record
            if isinstance(record, Outgoing):
                problem = sender.send(record) if sender is not None else None
            if problem is None:
                read += 1
                continue
            bad += 1
            note(f"line {number}: {problem}")
            if not skip_bad:
                break
    finally:  # also when Ctrl-C or a broken registry ends it: what was accepted is sent, and counted
        sent = sender.finish() if sender is not None else 0
        note(f"{read} lines are good; nothing was sent (--dry-run)" if dry_run else f"{sent} records sent to {topic}")
    if bad or (sent < read and not dry_run):
        raise typer.Exit(Exit.FAILURE)


def _records(lines: Iterable[str], topic: Topic, codec: Codec) -> Iterable[tuple[int, Outgoing | ValueError]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                record: Outgoing | ValueError = parse_line(line, topic, codec)
            except ValueError as error:
                record = error
            yield number, record


class _Sender:
    """Counts what the broker has acknowledged; a failed delivery is reported once per reason."""

    def __init__(self, config: dict[str, Any], topic: Topic) -> None:
        self._topic = topic.name
        self._delivered = 0
        self._reasons: dict[str, int] = {}
        self._producer = Producer(
            {
                **config,
                "partitioner": PARTITIONER,
                "acks": "all",
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "allow.auto.create.topics": False,
            }
        )

    def send(self, record: Outgoing) -> str | None:
        """Blocks while the queue is full, so that a file larger than memory can be piped in.

        Returns why Kafka will not take the record, None when it is on its way.
        """
        options: dict[str, Any] = {}
        if record.partition is not None:
            options["partition"] = record.partition
        if record.timestamp_ms is not None:
            options["timestamp"] = record.timestamp_ms
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    on_delivery=self._on_delivery,
                    **options,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                size = len(record.value or b"")
                return f"the value has {size:,} bytes, Kafka takes about {MAX_BYTES:,}: make it smaller"
        self._producer.poll(0)
        return None

    def finish(self) -> int:
        """How many records the broker has; notes for those that it has not."""
        waiting = self._producer.flush(FLUSH_TIMEOUT_S)
        for reason, count in self._reasons.items():
            note(f"{count} records were not delivered: {reason}")
        if waiting:
            note(
                f"{waiting} records were not acknowledged within {FLUSH_TIMEOUT_S:.0f} s; they may or may not be there"
            )
        return self._delivered

    def _on_delivery(self, error: Any, _message: Any) -> None:
        if error is None:
            self._delivered += 1
        else:
            self._reasons[error.str()] = self._reasons.get(error.str(), 0) + 1
