"""`curfew queues`: the topics that subscribers read."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from agents.cli import choices, completion
from agents.cli.output import TableOrJson, TableOrJsonOption, note, show
from streams.codec import Registry
from streams.codec.registration import register_all
from streams.core.errors import Misconfigured
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import QUEUE_PREFIX, Manifest, is_queue_name
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The queues that subscribers read: list, create, who may read.")


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
    manifest = Manifest.load()
    try:
        manifest = manifest.with_queues(*names)
    except Misconfigured as error:
        choices.refuse(str(error))
    settings = Settings()
    admin = kafka_admin.admin_client(kafka_admin.answering(settings.kafka()))
    existing = kafka_admin.partition_counts(admin)
    topics = [manifest.topic(QUEUE_PREFIX + name) for name in names]
    subjects = {subject: schema for subject, schema in manifest.subjects().items() if _is_for(subject, names)}
    register_all(Registry(settings.schema_registry_url), subjects)
    kafka_admin.create_topics(admin, [topic for topic in topics if topic.name not in existing])
    for topic in topics:
        note(f"{topic.name}: {'was there already' if topic.name in existing else 'created'}")


@app.command()
def acl(
    principal: Annotated[str, typer.Argument(metavar="PRINCIPAL", help="As Kafka knows it, e.g. User:partner.")],
    names: Annotated[list[str], typer.Argument(metavar="QUEUE...", autocompletion=completion.queues)],
    group: Annotated[
        str | None, typer.Option(help="Its consumer group; default is the principal's name.", show_default=False)
    ] = None,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Print the ACLs that an external reader of queues needs, as kafka-acls.sh commands or as JSON. Changes nothing.

    Reading implies describing in Kafka. The registry's schemas are read over HTTP, with the registry's own rules.

    Example: curfew queues acl User:partner customer-events
    """
    kind, separator, name = principal.partition(":")
    if not (kind and separator and name):
        choices.refuse(f"{principal!r} is no principal: Kafka writes it as User:{principal or 'partner'}")
    if wrong := [queue for queue in names if not is_queue_name(queue)]:
        choices.refuse(f"{wrong[0]!r} cannot be a queue's name; see `curfew queues list`")
    rows = [_acl(principal, "topic", QUEUE_PREFIX + queue) for queue in dict.fromkeys(names)]
    rows.append(_acl(principal, "group", group or name))
    if style is TableOrJson.JSON:
        show(rows, style, columns=())
        return
    for row in rows:
        typer.echo(
            f"kafka-acls.sh --bootstrap-server {shlex.quote(Settings().bootstrap_servers)} --add "
            f"--allow-principal {shlex.quote(principal)} --operation {row['operation']} "
            f"--{row['resource_type']} {shlex.quote(row['resource_name'])} "
            f"--resource-pattern-type {row['pattern_type']}"
        )


def _acl(principal: str, resource_type: str, resource_name: str) -> dict[str, str]:
    return {
        "principal": principal,
        "permission": "allow",
        "operation": "read",
        "resource_type": resource_type,
        "resource_name": resource_name,
        "pattern_type": "literal",
        "host": "*",
    }


def _is_for(subject: str, names: list[str]) -> bool:
    return any(subject == f"{QUEUE_PREFIX}{name}-value" for name in names)
