"""`curfew monitor`: watches all consumer groups, and serves metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from streams.settings import Settings
from streams.telemetry import configure_logging

#: kafka_exporter's port, which scrape configurations and dashboards expect.
PORT = 9308

app = typer.Typer()


@app.command()
def monitor(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Loopback port; 0: any free one.")] = PORT,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds from one look to the next.")] = 10.0,
    group: Annotated[list[str] | None, typer.Option(help="Only groups that match this regex; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Not those that match this one; repeatable.")] = None,
    allowed_lag: Annotated[int, typer.Option(min=0, help="Records that may wait at any time.")] = 0,
    patience: Annotated[float, typer.Option(min=0, help="Seconds that a record may wait without any alarm.")] = 60.0,
    cluster_name: Annotated[
        str, typer.Option(help="Label cluster_name of kafka-lag-exporter's metrics, and Burrow's name.")
    ] = "curfew",
    kafka_exporter: Annotated[
        bool, typer.Option("--kafka-exporter/--no-kafka-exporter", help="Metrics under kafka_exporter's names.")
    ] = True,
    kafka_lag_exporter: Annotated[
        bool, typer.Option("--kafka-lag-exporter/--no-kafka-lag-exporter", help="And under kafka-lag-exporter's.")
    ] = True,
    groups: Annotated[bool, typer.Option("--groups/--no-groups", help="And under Curfew's, with the status.")] = True,
    burrow: Annotated[bool, typer.Option("--burrow/--no-burrow", help="Burrow's JSON under /v3/kafka.")] = True,
    own: Annotated[
        bool, typer.Option("--own/--no-own", help="Curfew's own: ticks, deadlines, dead letters, deliveries, ledger.")
    ] = True,
    ledger_every: Annotated[float, typer.Option(min=0, help="Seconds between two ledgers; 0: none.")] = 600.0,
    offsets_topic: Annotated[
        bool, typer.Option("--offsets-topic/--no-offsets-topic", help="Read __consumer_offsets, or ask group by group.")
    ] = True,
) -> None:
    """Watch all consumer groups of the cluster; serve /metrics, /lag and /health on a loopback port.

    It joins no group and writes nothing. Metrics are answered from memory, also while Kafka is away; docs/metrics.md
    lists them. `curfew lag` asks a running monitor for the history.

    Example: curfew monitor --exclude 'console-consumer-.*'
    """
    from agents.cli.lag import name_filter
    from agents.monitor.process import Monitor, Options
    from streams.core.lag.rules import Limits
    from streams.metrics import Family

    settings = Settings()
    configure_logging(settings, app="monitor")
    switches = {
        Family.KAFKA_EXPORTER: kafka_exporter, Family.KAFKA_LAG_EXPORTER: kafka_lag_exporter, Family.GROUPS: groups
    }  # fmt: skip
    options = Options(
        wanted=name_filter(group, exclude),
        limits=Limits(allowed_lag=allowed_lag, patience_ms=int(patience * 1000)),
        every_s=every,
        port=port,
        cluster_name=cluster_name,
        families=frozenset(family for family, on in switches.items() if on),
        burrow=burrow,
        own=own,
        ledger_every_s=ledger_every,
        use_topic=offsets_topic,
        everything=not group and not exclude,
    )
    asyncio.run(Monitor(settings, options).run())
