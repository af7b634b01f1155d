"""`curfew doctor`: everything that a night needs, looked at from here; each fault with its remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from agents.cli.output import Exit, TableOrJson, TableOrJsonOption, note, show

if TYPE_CHECKING:
    from agents.doctor.checks import Check, Finding

app = typer.Typer()


@app.command()
def doctor(
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a part that does not answer is down.", min=1)
    ] = 20,
    style: TableOrJsonOption = TableOrJson.TABLE,
) -> None:
    """Check broker, topics, registry, billing store, clocks, time zones, secrets and workers; say what to do.

    Changes nothing but one empty record in clock.probes, by which the broker tells its time. Exit code 0: well; 3:
    there are faults; 1: a part does not answer, so that not everything could be looked at.

    Example: curfew doctor -f json
    """
    from agents.doctor.checks import examine
    from streams.settings import Settings

    found = examine(checks(), Settings(), timeout_s=timeout)
    show([asdict(one) for one in found], style, columns=("check", "status", "finding", "remedy"))
    if (code := exit_code(found)) is not Exit.OK:
        note("not everything answers" if code is Exit.FAILURE else "there are faults: do what is under remedy")
        raise typer.Exit(code)


def checks() -> tuple[Check, ...]:
    """In the order in which they are shown."""
    from agents.doctor import clocks, kafka, parts
    from agents.doctor.checks import Check

    return (
        Check(name="kafka", look=kafka.broker),
        Check(name="registry", look=parts.registry),
        Check(name="database", look=parts.database),
        Check(name="time zones", look=clocks.zones),
        Check(name="topics", look=kafka.topics, needs="kafka"),
        Check(name="partitioner", look=kafka.partitioner, needs="kafka"),
        Check(name="clock", look=clocks.clock, needs="kafka"),
        Check(name="time zones of rows", look=clocks.zones_of_rows, needs="kafka"),
        Check(name="workers", look=kafka.groups, needs="kafka"),
        Check(name="schemas", look=parts.schemas, needs="registry"),
        Check(name="ticks", look=clocks.ticks, needs="kafka"),
        Check(name="secrets", look=parts.secrets, needs="kafka"),
    )


def exit_code(found: Sequence[Finding]) -> Exit:
    """What is down hides faults, so it counts more."""
    states = {str(one.status) for one in found}
    if "down" in states:
        return Exit.FAILURE
    return Exit.LIMIT if "fault" in states else Exit.OK
