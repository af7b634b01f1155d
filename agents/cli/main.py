"""The command ``curfew``: global options, and the modules in which its commands are.

A module is imported when one of its commands is used: ``curfew --help`` and shell completion must not wait for the
Kafka client, the registry's and the database's libraries.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from agents.cli.output import Exit, note
from streams import dev_stack

# name → module with `app`, and the line in the list of commands
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("agents.cli.worker", "Run all workers on this machine."),
    "worker": ("agents.cli.worker", "Run workers by name."),
    "clock": ("agents.cli.worker", "Write ticks: business time, the machine's or a virtual one."),
    "dev": ("agents.cli.dev", "A local Kafka and schema registry, without Docker or Java."),
    "demo": ("agents.cli.demo", "See a night of plan changes in a minute."),
    "topics": ("agents.cli.topics", "Compare the cluster's topics with the manifest, and correct them."),
    "schemas": ("agents.cli.schemas", "Check and register the Avro schemas."),
    "queues": ("agents.cli.queues", "The queues that subscribers read: list, create, who may read."),
    "events": ("agents.cli.events", "The catalogue of events, and which ones are published."),
    "sources": ("agents.cli.sources", "Tables of others that extend the parameters of events."),
    "routes": ("agents.cli.routes", "Which events go to which queues."),
    "subscriptions": ("agents.cli.subscriptions", "Who wants which events, how, and with which parameters."),
    "plan-changes": ("agents.cli.plan_changes", "Order, watch and resolve rate plan changes."),
    "board": ("agents.cli.board", "The operator's web page: midnights, dead letters, groups, subscriptions."),
    "watchdog": ("agents.cli.watchdog", "An independent eye on the deadlines, which tells people directly."),
    "canary": ("agents.cli.canary", "A real plan change every hour, measured end to end."),
    "dead-letters": ("agents.cli.dead_letters", "Records that could not be handled: look, and redrive."),
    "acl": ("agents.cli.acl", "What each worker must be allowed to do in Kafka."),
    "produce": ("agents.cli.produce", "Write records from JSON lines."),
    "consume": ("agents.cli.consume", "Read records of a topic."),
    "receive": ("agents.cli.receive", "Receive webhooks on this machine, verify and print them."),
    "billing": ("agents.cli.billing", "The billing store: tables, imports, counts, and whether the topics agree."),
    "lag": ("agents.cli.lag", "How far consumer groups are behind."),
    "monitor": ("agents.cli.monitor", "Watch all consumer groups, and serve metrics."),
    "ledger": (
        "agents.cli.ledger",
        "The account of completeness: published = delivered + pending + dead + filtered + discarded.",
    ),
    "bench": ("agents.cli.bench", "Measure throughput and recovery."),
    "doctor": ("agents.cli.doctor", "Check broker, registry, database, clock and topics, and say what to do."),
}


class _LazyGroup(TyperGroup):
    """Knows its commands by name; imports a module only for a command that is run or whose own help is shown."""

    _listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, (module, _) in COMMANDS.items() if importlib.util.find_spec(module) is not None]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.list_commands(ctx):
            return None
        module, line = COMMANDS[cmd_name]
        if self._listing:
            return TyperCommand(cmd_name, help=line)
        command = typer.main.get_command(importlib.import_module(module).app)
        found = command.commands.get(cmd_name) if isinstance(command, TyperGroup) else None
        command = found or command
        command.name = cmd_name
        # shell completion is installed once, for curfew itself
        command.params = [one for one in command.params if one.name not in ("install_completion", "show_completion")]
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Kafka stream processing for subscription billing: events, subscribers, rate plan changes before midnight.",
    epilog="Exit codes: 0 fine, 1 failure, 2 wrong usage, 3 a limit is exceeded or something has drifted.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"curfew {version('curfew-streams')}")
        raise typer.Exit


#: Commands that need no Kafka, or bring their own.
_WITHOUT_KAFKA = frozenset({"dev", "demo", "bench", "schemas", "receive"})


def _tell_of_a_stopped_stack(command: str | None) -> None:
    """Whoever has a Kafka of this directory means that one; another at the default address would be a surprise."""
    place = dev_stack.directory()
    if command in _WITHOUT_KAFKA or "--help" in sys.argv or not (place / "kafka.json").exists():
        return
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from streams.core.errors import Misconfigured
    from streams.settings import Settings

    try:
        settings = Settings()
    except (ValidationError, SettingsError, Misconfigured):  # the command itself says what is wrong
        return
    if "bootstrap_servers" not in settings.model_fields_set:
        note(
            f"note: the Kafka of {place} is not running, so this is about the one at {settings.bootstrap_servers}: "
            "`curfew dev start`, or set CURFEW_BOOTSTRAP_SERVERS"
        )


def _tell_of_misspelt_variables() -> None:
    """There are others than settings (secrets, for instance), so only what is nearly one is told."""
    ours = [name for name in os.environ if name.startswith("CURFEW_") and not name.startswith("CURFEW_SECRET")]
    if not ours:
        return
    import difflib

    from streams.settings import Settings

    known = [f"CURFEW_{name.upper()}" for name in Settings.model_fields]
    for name in ours:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        if name.upper() not in known and near:
            note(f"note: there is no setting {name}; did you mean {near[0]}?")


@app.callback()
def _global_options(
    ctx: typer.Context,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Kafka brokers, host:port, comma separated.", show_default=False)
    ] = None,
    schema_registry_url: Annotated[
        str | None, typer.Option(help="Registry with the Confluent API.", show_default=False)
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show stack traces of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # as environment, so that settings read later, here or in a child process, are the same
    given = {"BOOTSTRAP_SERVERS": bootstrap_servers, "SCHEMA_REGISTRY_URL": schema_registry_url}
    os.environ.update({f"CURFEW_{name}": value for name, value in given.items() if value is not None})
    if debug:
        os.environ["CURFEW_DEBUG"] = "1"
    _tell_of_misspelt_variables()
    _tell_of_a_stopped_stack(ctx.invoked_subcommand)


def main(arguments: list[str] | None = None) -> Any:
    """Run one command and leave the process with its exit code."""
    try:
        typer.main.get_command(app).main(args=arguments, prog_name="curfew")
    except Exception as error:
        from agents.problems import explain

        print(explain(error), file=sys.stderr)
        sys.exit(Exit.FAILURE)


if __name__ == "__main__":
    main()
