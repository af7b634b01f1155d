"""`curfew queues`: the topics that subscribers read."""

from __future__ import annotations

from typing import Annotated

import typer

from agents.cli.output import TableOrJson, TableOrJsonOption, note, show
from streams.codec import Registry
from streams.codec.registration import register_all
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import QUEUE_PREFIX, Manifest
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="List and create the queues that subscribers read.")


@app.command("list")
def list_queues(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List the queues of the cluster, and those of the manifest that are not there yet.

    Example: curfew queues list -f json
    """
    admin = kafka_admin.admin_client(kafka_admin.answering(Settings().kafka()))
    counts = kafka_admin.partition_counts(admin)
    names = {name.removeprefix(QUEUE_PREFIX) for name in counts if name.startswith(QUEUE_PREFIX)}
    rows = [
        {"queue": name, "topic": QUEUE_PREFIX + name, "partitions": counts.get(QUEUE_PREFIX + name)}
        for name in sorted(names | set(Manifest.load().queues))
    ]
    show(rows, style, columns=("queue", "topic", "partitions"))


@app.command()
def create(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """Create queues: the topic queue.NAME, and the schema of its values in the registry. Twice is no mistake.

    Example: curfew queues create field-service
    """
    settings = Settings()
    manifest = Manifest.load().with_queues(*names)
    admin = kafka_admin.admin_client(kafka_admin.answering(settings.kafka()))
    existing = kafka_admin.partition_counts(admin)
    topics = [manifest.topic(QUEUE_PREFIX + name) for name in names]
    subjects = {subject: schema for subject, schema in manifest.subjects().items() if _is_for(subject, names)}
    register_all(Registry(settings.schema_registry_url), subjects)
    kafka_admin.create_topics(admin, [topic for topic in topics if topic.name not in existing])
    for topic in topics:
        note(f"{topic.name}: {'was there already' if topic.name in existing else 'created'}")


def _is_for(subject: str, names: list[str]) -> bool:
    return any(subject == f"{QUEUE_PREFIX}{name}-value" for name in names)
