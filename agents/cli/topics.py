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
    differences = kafka_admin.diff(manifest, kafka_admin.admin_client(Settings().kafka()))
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
    """Create missing topics and correct settings. Nothing is deleted; exit code 3 if a partition count differs.

    Example: curfew topics apply --dry-run
    """
    manifest = Manifest.load().with_queues(*queue or ())
    admin = kafka_admin.admin_client(Settings().kafka())
    differences = kafka_admin.diff(manifest, admin)
    if dry_run:
        _show(differences, style)
        note(f"{len(differences)} differences; nothing was changed (--dry-run)")
        return
    refused = kafka_admin.apply(manifest, admin, differences)
    _show(differences, style)
    note(f"{len(differences) - len(refused)} done, {len(refused)} left, {len(manifest.topics)} topics in the manifest")
    if refused:
        raise typer.Exit(Exit.LIMIT)


def _show(differences: list[kafka_admin.Difference], style: TableOrJson) -> None:
    if differences or style is TableOrJson.JSON:
        rows = [{"topic": one.topic, "kind": type(one).__name__, "difference": str(one)} for one in differences]
        show(rows, style, columns=("topic", "difference"))
