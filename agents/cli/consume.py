"""`curfew consume`: records of a topic, as people or programs read them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Annotated, Any, NoReturn

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from agents.cli import choices, completion
from agents.cli.output import Format, FormatOption, note
from agents.record_json import bytes_json, headers_json, value_json
from streams.codec import Codec, Registry
from streams.core.errors import Misconfigured, Transient
from streams.kafka.admin import answering, missing_topics
from streams.kafka.manifest import Manifest, Topic
from streams.kafka.positions import Position, parse_position
from streams.settings import Settings

TIMEOUT_S = 15.0
POLL_S = 0.5  # how long Ctrl-C may take to be noticed

app = typer.Typer()


@app.command()
def consume(
    topic: Annotated[str, typer.Argument(autocompletion=completion.topics)],
    offset: Annotated[
        str | None,
        typer.Option(
            "--offset",
            "-o",
            help="Where to start: beginning, end, an offset, @-1h, @2026-03-01T00:00:00Z; with :STOP also where to "
            "end, as in @-1h:end. Default: end, or beginning with -e or -n.",
            show_default=False,
        ),
    ] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="The same as -o beginning.")] = False,
    exit_at_end: Annotated[bool, typer.Option("--exit", "-e", help="Stop at the end instead of waiting.")] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="Stop after so many records.")] = None,
    group: Annotated[
        str | None,
        typer.Option(help="Read as a member of this group, commit what was printed.", autocompletion=completion.groups),
    ] = None,
    style: FormatOption = Format.TABLE,
) -> None:
    """Print the records of a topic. -f json is one line per record and loses nothing; produce reads it.

    Exit code 2 if nobody knows the topic.

    Example: curfew consume queue.customer-events -o @-1h:end -f json
    """
    settings = Settings()
    if from_beginning and offset is not None:
        raise typer.BadParameter("say either --from-beginning or --offset", param_hint="--from-beginning")
    if group is not None and (from_beginning or offset is not None):
        raise typer.BadParameter("a group goes on where it committed: leave the offset away", param_hint="--group")
    default = "beginning" if from_beginning or exit_at_end or count is not None else "end"
    try:
        start, stop = parse_position(offset or default)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--offset") from error
    codec = Codec(Registry(settings.schema_registry_url))
    known = Manifest.load().topics.get(topic)
    with closing(_consumer(settings, group)) as consumer:
        messages = (
            _group_messages(consumer, topic, exit_at_end)
            if group is not None
            else _messages(consumer, topic, start, stop or (Position("end") if exit_at_end else None))
        )
        printed = 0
        try:
            for message in messages:
                typer.echo(_line(message, codec, style, known))
                printed += 1
                if group is not None:
                    consumer.store_offsets(message)
                if printed == count:
                    break
        except KeyboardInterrupt:
            pass  # the usual way to end it
        if group is not None and printed:
            consumer.commit(asynchronous=False)
    note(f"{printed} records")


def _consumer(settings: Settings, group: str | None) -> Consumer:
    return Consumer(
        answering(settings.kafka())
        | {
            "group.id": group or f"curfew-consume-{uuid.uuid4()}",  # never committed, so no group comes of it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
        }
    )


def _messages(consumer: Consumer, topic: str, start: Position, stop: Position | None) -> Iterator[Message]:
    """From ``start`` to ``stop`` (exclusive; None = for ever) in all partitions."""
    partitions = _partitions(consumer, topic)
    begin = start.offsets(consumer, partitions, TIMEOUT_S)
    end = None if stop is None else stop.offsets(consumer, partitions, TIMEOUT_S)
    open_partitions = {number for number in begin if end is None or begin[number] < end[number]}
    consumer.assign([TopicPartition(topic, number, begin[number]) for number in sorted(open_partitions)])
    while open_partitions:
        message = consumer.poll(POLL_S)
        if message is None:
            continue
        number = int(message.partition() or 0)
        if _is_end(message):
            # also the end for a stop offset behind which there is nothing, as after a transaction or a compaction
            if end is not None and (message.offset() or 0) >= end[number]:
                open_partitions.discard(number)
        elif end is None or (message.offset() or 0) < end[number]:
            yield message
            if end is not None and (message.offset() or 0) + 1 >= end[number]:
                open_partitions.discard(number)
        else:
            open_partitions.discard(number)


def _group_messages(consumer: Consumer, topic: str, exit_at_end: bool) -> Iterator[Message]:
    _partitions(consumer, topic)  # says clearly that a topic does not exist; a subscription would wait for it
    consumer.subscribe([topic])
    ended: set[int] = set()
    while not exit_at_end or not ended or {each.partition for each in consumer.assignment()} - ended:
        message = consumer.poll(POLL_S)
        if message is None:
            continue
        if _is_end(message):
            ended.add(int(message.partition() or 0))
        else:
            yield message


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    try:
        found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    except KafkaException as error:
        raise Transient(f"no Kafka broker answers: {error.args[0].str()}; is bootstrap_servers right?") from error
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise KafkaException(found.error)
    if found.error is not None:
        _say_that_it_is_absent(consumer, topic)
    return [TopicPartition(topic, number) for number in found.partitions]


def _say_that_it_is_absent(consumer: Consumer, topic: str) -> NoReturn:
    """A topic that should be there is made; one that nobody knows is misspelt, which leaves with exit code 2."""
    known = Manifest.load().topics
    if topic in known:
        raise Misconfigured(missing_topics([topic]))
    existing = {name for name in consumer.list_topics(timeout=TIMEOUT_S).topics if not name.startswith("__")}
    seen = "`curfew topics list` and `curfew queues list` show them"
    choices.refuse(f"{choices.unknown('topic', topic, existing | known.keys())}; {seen}")


def _is_end(message: Message) -> bool:
    """Whether this says "end of the partition"; raises KafkaException for every other error."""
    error = message.error()
    if error is None:
        return False
    if error.code() == KafkaError._PARTITION_EOF:
        return True
    raise KafkaException(error)


def _line(message: Message, codec: Codec, style: Format, topic: Topic | None) -> str:
    value = value_json(codec, message.value(), topic=topic)
    body = value.get("value", value.get("value_base64"))
    if style is Format.RAW:
        return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    if style is Format.JSON:
        record: dict[str, Any] = {
            "topic": message.topic(),
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            **bytes_json("key", _as_bytes(message.key())),
            **value,
            "headers": headers_json(_header_pairs(message)),
        }
        return json.dumps(record, ensure_ascii=False)
    [key] = bytes_json("key", _as_bytes(message.key())).values()
    text = "(tombstone)" if message.value() is None else json.dumps(body, ensure_ascii=False)
    return f"{message.partition()}:{message.offset():<8} {key or '-':<24} {text}"


def _header_pairs(message: Message) -> list[tuple[str, bytes | None]]:
    pairs: Any = message.headers() or []  # a list of pairs whenever it comes from a consumer
    return [(name, _as_bytes(text)) for name, text in pairs]


def _as_bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
