"""`curfew schemas`: our Avro schemas against the registry's."""

from __future__ import annotations

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show
from streams.codec import LocalSchemas, Registry
from streams.codec.registration import Finding, Standing, check_all, register
from streams.codec.released import changed, release
from streams.core.errors import Misconfigured
from streams.kafka import admin as kafka_admin
from streams.kafka.manifest import Manifest, managed
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Check and register the Avro schemas.")


@app.command("check")
def check_schemas(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Compare every subject with the registry; exit code 3 if a schema is incompatible, with field and reason.

    Example: curfew schemas check -f json
    """
    registry, schemas = Registry(Settings().schema_registry_url), LocalSchemas()
    findings = check_all(registry, _subjects(), schemas)
    _show(findings, style)
    if any(one.standing is Standing.INCOMPATIBLE for one in findings):
        raise typer.Exit(Exit.LIMIT)


@app.command("apply")
def apply_schemas(style: TableOrJsonOption = TableOrJson.TABLE) -> None:
    """Register all versions of all schemas, oldest first. Nothing is registered if one of them is incompatible.

    Example: curfew schemas apply
    """
    registry, schemas = Registry(Settings().schema_registry_url), LocalSchemas()
    findings = check_all(registry, _subjects(), schemas)
    _show(findings, style)
    if any(one.standing is Standing.INCOMPATIBLE for one in findings):
        note("nothing was registered: correct the incompatible schemas first")
        raise typer.Exit(Exit.LIMIT)
    register(registry, findings, schemas)
    todo = sum(one.standing is not Standing.UNCHANGED for one in findings)
    note(f"{todo} of {len(findings)} subjects got a schema")


@app.command("release")
def release_schemas() -> None:
    """Say that all schema files of this tree are in use from now on: schemas/released.lock pins their content.

    Example: curfew schemas release
    """
    if differing := changed():
        raise Misconfigured(f"released files were changed: {', '.join(differing)}; restore them and add a new version")
    added = release()
    note(f"released: {', '.join(added)}" if added else "every schema file has been released already")


def _subjects() -> dict[str, str]:
    """Subjects of the manifest, and of the queues that people have made since."""
    manifest = Manifest.load()
    admin = kafka_admin.admin_client(kafka_admin.answering(Settings().kafka()))
    existing = kafka_admin.partition_counts(admin)
    return managed(manifest, existing).subjects()


def _show(findings: list[Finding], style: TableOrJson) -> None:
    rows = [
        {
            "subject": one.subject,
            "schema": one.schema,
            "version": one.version,
            "standing": one.standing.value,
            "reasons": list(one.reasons),
        }
        for one in findings
    ]
    show(rows, style, columns=("subject", "schema", "version", "standing"))
    if style is TableOrJson.TABLE:
        for one in findings:
            for reason in one.reasons:
                note(f"{one.subject}: {reason}")
