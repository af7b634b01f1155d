"""`curfew acl`: what a worker must be allowed to do in a cluster that asks."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from agents.cli import choices, completion
from agents.cli.output import TableOrJson, TableOrJsonOption, show

app = typer.Typer()


@app.command()
def acl(
    names: Annotated[list[str] | None, typer.Argument(metavar="[WORKER]...", autocompletion=completion.workers)] = None,
    principal: Annotated[str, typer.Option(help="Who it is; * stands for the worker's name.")] = "User:curfew-*",
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Print the ACLs that workers and the clock need, as kafka-acls.sh commands or as JSON. Changes nothing.

    The worker sources also has to read the topics of its sources, which the manifest does not know.

    Example: curfew acl events dispatch --principal User:curfew
    """
    from agents.acl import CLOCK, rights
    from agents.worker import WORKERS
    from streams.kafka.manifest import Manifest
    from streams.settings import Settings

    known = (*WORKERS, CLOCK)
    manifest = Manifest.load()
    rows: list[dict[str, Any]] = []
    for name in names or known:
        choices.one_of(name, known, what="worker", option="WORKER")
        rows += [
            {
                "principal": principal.replace("*", name),
                "permission": "allow",
                "operation": one.operation,
                "resource_type": one.resource_type,
                "resource_name": one.resource_name,
                "pattern_type": "prefixed" if one.prefixed else "literal",
                "host": "*",
            }
            for one in rights(name, manifest)
        ]
    if style is TableOrJson.JSON:
        show(rows, style, columns=())
        return
    servers = shlex.quote(Settings().bootstrap_servers)
    for row in rows:
        typer.echo(
            f"kafka-acls.sh --bootstrap-server {servers} --add --allow-principal {shlex.quote(row['principal'])} "
            f"--operation {row['operation']} --{row['resource_type']} {shlex.quote(row['resource_name'])} "
            f"--resource-pattern-type {row['pattern_type']}"
        )
