"""`curfew plan-changes`: order, watch and resolve rate plan changes, and say what would become of them."""

from __future__ import annotations

import typer

from agents.cli.plan_changes import board, changes, deadline, dry_run, eligible, requests

app = typer.Typer(no_args_is_help=True, help="Order, watch and resolve rate plan changes.")

for module in (requests, eligible, dry_run, changes, board, deadline):
    app.registered_commands += module.app.registered_commands
