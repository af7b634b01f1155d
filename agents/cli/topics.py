"""`curfew topics`: the cluster's topics against the manifest."""

from __future__ import annotations

from typing import Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Compare the cluster's topics with the manifest, and correct them.")

Queues = Annotated[
    list[str] | None, typer.Option("--queue", help="Another queue that should exist; may be repeated.", metavar="NAME")
]


@app.command("list")
def list_topics(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """List the topics of the manifest: key, value, writer, readers.

    Example: curfew topics list -f json
    """
    rows = [
        {
            "topic": topic.name,
            "key": topic.key or None,
            "value": topic.value,
            "partitions": topic.partitions,
            "cleanup": topic.cleanup,
            "retention_hours": topic.retention_hours if topic.cleanup == "delete" else None,
            "writer": topic.writer,
            "readers": list(topic.readers),
            "about": topic.about,
        }
        for topic in Manifest.load().topics.values()
    ]
    show(rows, style, columns=("topic", "key", "value", "partitions", "cleanup", "writer", "readers"))


@app.command()
def diff(queue: Queues = None, style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Show in what the cluster differs from the manifest; exit code 3 if it does.

    Example: curfew topics diff --queue field-service
    """
    manifest = Manifest.load().with_queues(*queue or ())
    admin = kafka_admin.admin_client(kafka_admin.answering(Settings().kafka()))
    differences = kafka_admin.diff(manifest, admin)
    _show(differences, style)
    if differences:
        raise typer.Exit(Exit.LIMIT)
    note(f"no difference in {len(manifest.topics)} topics")


@app.command()
def apply(
    queue: Queues = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, change nothing.")] = False,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Create missing topics and correct settings, and wait until every partition has a leader.

    Nothing is deleted. Exit code 3 if a partition count differs: that is left to a person.

    Example: curfew topics apply --dry-run
    """
    manifest = Manifest.load().with_queues(*queue or ())
    admin = kafka_admin.admin_client(kafka_admin.answering(Settings().kafka()))
    differences = kafka_admin.diff(manifest, admin)
    if dry_run:
        _show(differences, style)
        note(f"would be: {_counts(manifest, differences)}; nothing was changed (--dry-run)")
        return
    refused = kafka_admin.apply(manifest, admin, differences)
    kafka_admin.wait_for_leaders(admin, manifest.topics)
    _show(differences, style)
    note(_counts(manifest, differences))
    if refused:
        raise typer.Exit(Exit.LIMIT)


def _counts(manifest: Manifest, differences: list[kafka_admin.Difference]) -> str:
    """Each topic counts once: ``41 topics: 3 created, 1 altered, 37 unchanged``."""
    created = {one.topic for one in differences if isinstance(one, kafka_admin.Missing)}
    altered = {one.topic for one in differences if isinstance(one, kafka_admin.WrongConfig)}
    refused = {one.topic for one in differences if isinstance(one, kafka_admin.WrongPartitions)}
    # queues that people have made are compared too, though they are not in the manifest's file
    topics = manifest.topics.keys() | created | altered | refused
    unchanged = len(topics - created - altered - refused)
    left = f", {len(refused)} with another number of partitions, which only a person can decide" if refused else ""
    return f"{len(topics)} topics: {len(created)} created, {len(altered)} altered, {unchanged} unchanged{left}"


def _show(differences: list[kafka_admin.Difference], style: TableOrJson) -> None:
    if differences or style is TableOrJson.JSON:
        rows = [{"topic": one.topic, "kind": type(one).__name__, "difference": str(one)} for one in differences]
        show(rows, style, columns=("topic", "difference"))
