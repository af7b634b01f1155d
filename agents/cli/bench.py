"""``curfew bench``: throughput and recovery against peers; a million changes for one midnight, SIMs, webhooks."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from agents.cli.output import Exit
from streams.settings import Settings

app = typer.Typer(help="Measure throughput and recovery against peers in the same run.", no_args_is_help=True)

Rounds = Annotated[int, typer.Option(min=1, help="alternating rounds; the median of the ratios counts")]
Json = Annotated[bool, typer.Option("--json", help="print the result as JSON on standard output")]
Keep = Annotated[bool, typer.Option("--keep", help="leave data and logs where they are")]
DataDir = Annotated[
    Path | None, typer.Option(help="where they are; default bench/ in the data directory", file_okay=False)
]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name:<40} {value:,}" if isinstance(value, int | float) else f"{name:<40} {value}")


@app.command()
def stream(
    rounds: Rounds = 3,
    records: Annotated[int, typer.Option(min=1_000, help="records per round; stock Faust gets a tenth")] = 300_000,
    as_json: Json = False,
) -> None:
    """Decode, look up in the store, encode with headers, produce, commit: one worker.

    Against a raw confluent-kafka loop (flush and commit per 500) and stock Faust (topic.send awaited, uvloop).

    Example: curfew bench stream --json
    """
    from agents.bench.field import open_field

    with open_field(os.environ.get("CURFEW_BOOTSTRAP_SERVERS"), _say) as field:
        source, target = field.topic("in"), field.topic("out")
        changelog = field.topic("store-changelog", **{"cleanup.policy": "compact"})
        _say(f"writing {records:,} records")
        field.fill(source, records)
        field.fill_store(changelog)
        for number in range(1, rounds + 1):
            _say(f"round {number} of {rounds}")
            task: dict[str, Any] = {"source": source, "target": target, "changelog": changelog, "records": records}
            field.run("curfew", "stream-curfew", **task)
            field.run("confluent_loop", "stream-confluent", **task)
            field.run("stock_faust", "stream-faust", **{**task, "records": records // 10})
        _show(
            {
                "records_per_second": field.report(),
                "ratio_to_confluent_loop": field.ratio("curfew", "confluent_loop"),
                "ratio_to_stock_faust": field.ratio("curfew", "stock_faust"),
                "rounds": rounds,
            },
            as_json,
        )


@app.command()
def tables(
    rounds: Rounds = 3,
    puts: Annotated[int, typer.Option(help="puts per round; stock Faust gets a tenth")] = 200_000,
    rows: Annotated[int, typer.Option(help="rows to recover")] = 1_000_000,
    as_json: Json = False,
) -> None:
    """Puts with changelog, and recovery of a million rows, with both stores, against stock Faust.

    Recovery by stock Faust takes minutes per round. Example: curfew bench tables --rounds 1 --json
    """
    from agents.bench.field import open_field

    with open_field(os.environ.get("CURFEW_BOOTSTRAP_SERVERS"), _say) as field:
        source, empty = field.topic("in"), field.topic("empty")
        _say(f"writing {puts:,} records and {rows:,} changelog rows")
        field.fill(source, puts)
        # Stock Faust names the changelog of a table called "rows" after its app, which is its group.
        full = field.topic("rows-changelog", **{"cleanup.policy": "compact"})
        field.fill_changelog(full, rows)
        for number in range(1, rounds + 1):
            _say(f"round {number} of {rounds}")
            for store in ("memory", "rocksdb"):
                own = field.topic(f"changelog-{store}", **{"cleanup.policy": "compact"})
                field.run(
                    f"puts_curfew_{store}", "puts-curfew", source=source, changelog=own, records=puts, store=store
                )
                field.run(f"puts_faust_{store}", "puts-faust", source=source, records=puts // 10, store=store)
                field.run(
                    f"recovery_curfew_{store}", "recovery-curfew",
                    source=empty, changelog=full, records=rows, store=store,
                )  # fmt: skip
                field.run(
                    f"recovery_faust_{store}", "recovery-faust",
                    source=empty, group=full.removesuffix("-rows-changelog"), records=rows, store=store,
                )  # fmt: skip
        ratios = {
            f"{what}_ratio_to_stock_faust": min(
                field.ratio(f"{what}_curfew_{store}", f"{what}_faust_{store}") for store in ("memory", "rocksdb")
            )
            for what in ("puts", "recovery")
        }
        _show({"records_per_second": field.report(), **ratios, "rounds": rounds}, as_json)


@app.command()
def codec(
    rounds: Annotated[int, typer.Option(min=1, help="alternating rounds; the median of the ratios counts")] = 15,
    as_json: Json = False,
) -> None:
    """Records to Avro and back: the compiled writers and readers against fastavro, in this process, without Kafka.

    Example: curfew bench codec --json
    """
    from agents.bench.codec import measure

    _show(measure(rounds), as_json)


@app.command()
def events(
    rounds: Rounds = 3,
    records: Annotated[int, typer.Option(min=1_000, help="object changes per round")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1.0, help="how long latency is measured")] = 20.0,
    as_json: Json = False,
) -> None:
    """Object changes in, enriched events in their queue: the events worker as it is, with rows, changelog and commits.

    Against `bench stream` in alternating rounds; the latency at half of the measured rate; and the processor time per
    record of two workers against one. Always on an embedded Kafka. Example: curfew bench events --json
    """
    from agents.bench.events import Bench
    from agents.bench.field import open_field

    with open_field(None, _say) as field:
        bench = Bench(field=field, records=records, say=_say)
        bench.prepare()
        for number in range(1, rounds + 1):
            _say(f"round {number} of {rounds}")
            bench.round()
        bench.latency(seconds)
        _show({**bench.report(), "rounds": rounds}, as_json)


@app.command()
def midnight(
    changes: Annotated[int, typer.Option(min=100, help="pending changes, all for one midnight")] = 1_000_000,
    minutes: Annotated[float, typer.Option(help="wall time from all being due to midnight")] = 30.0,
    keep: Keep = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """One million pending changes for one midnight: how long until all are persisted, and how much slack is left.

    On an embedded Kafka with fresh data, with real worker processes. Exits with 1 if a change is missed or lost. A
    million changes take about an hour and 8 GB of disk. Example: curfew bench midnight --changes 20000 --json
    """
    from agents.bench.ground import Ground
    from agents.bench.midnight import Midnight, Options

    options = Options(changes=changes, minutes=minutes)
    _on_ground(
        lambda ground: Midnight(options=options, ground=ground, say=_say).run(),
        lambda directory: Ground(directory, _say),
        data_dir, keep=keep, as_json=as_json,
    )  # fmt: skip


@app.command()
def dormancy(
    sims: Annotated[int, typer.Option(min=100, help="SIMs, each of a service of its own")] = 1_000_000,
    usages: Annotated[int, typer.Option(min=100, help="usage records over ninety days, some late, some of one day")] = (
        5_000_000
    ),
    keep: Keep = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """A million SIMs and five million usage records: every dormancy event, compared with a count day by day.

    On an embedded Kafka with fresh data, with a real usage worker. Exits with 1 if an event is missing, wrong or told
    twice, or if a SIM is written more than once for a day. Example: curfew bench dormancy --sims 50000 --usages 250000
    """
    from agents.bench.dormancy import WORKER, Dormancy, Options
    from agents.bench.ground import Ground

    options = Options(sims=sims, usages=usages)
    _on_ground(
        lambda ground: Dormancy(options=options, ground=ground, say=_say).run(),
        lambda directory: Ground(directory, _say, workers=(WORKER,)),
        data_dir, keep=keep, as_json=as_json,
    )  # fmt: skip


@app.command()
def delivery(
    requests: Annotated[int, typer.Option(min=100, help="webhooks of each side, over all rounds")] = 50_000,
    rounds: Rounds = 5,
    concurrency: Annotated[int, typer.Option(min=1, help="open requests per endpoint, on both sides")] = 16,
    fan_out: Annotated[int, typer.Option(min=1, help="events for each of a hundred endpoints, per measurement")] = 60,
    seconds: Annotated[float, typer.Option(min=1.0, help="how long latency is measured")] = 20.0,
    keep: Keep = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Webhooks from the queue to a local receiver, durable, against a bare aiohttp loop that remembers nothing.

    Then the time from queue to attempt at half of that rate, and what 99 endpoints keep while one never answers. On an
    embedded Kafka with fresh data, with real workers. Exits with 1 if the ratio is below 0.4, if the others keep less
    than 0.9, or if a webhook is lost or sent twice. Example: curfew bench delivery --requests 10000 --json
    """
    from agents.bench.delivery import WORKERS, Delivery, Options
    from agents.bench.delivery_events import SECRET, SECRET_VALUE
    from agents.bench.ground import Ground

    options = Options(requests=requests, rounds=rounds, concurrency=concurrency, fan_out=fan_out, seconds=seconds)
    _on_ground(
        lambda ground: Delivery(options=options, ground=ground, say=_say).run(),
        lambda directory: Ground(directory, _say, workers=WORKERS, env={SECRET: SECRET_VALUE}),
        data_dir, keep=keep, as_json=as_json,
    )  # fmt: skip


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.0, help="wall time; at least six nights are played")] = 30.0,
    accounts: Annotated[
        int, typer.Option(min=50, help="accounts of the fleet; most services change every night")
    ] = 500,
    keep: Keep = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="where they are; default soak/ in the data directory", file_okay=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Virtual nights one after another with the same processes: does memory grow, does anything lag or get lost?

    On an embedded Kafka with fresh data, with all workers. Exits with 1 if a process grows by more than 1 % per night
    after the third, if the ledger has a difference, or if a change is missed. Example: curfew bench soak --minutes 5
    """
    from agents.bench.soak import Options, Soak
    from agents.demo.fleet import generate
    from agents.demo.place import Place
    from agents.embedded import DEFAULT_KAFKA_VERSION

    _on_ground(
        lambda place: Soak(options=Options(minutes=minutes), place=place, fleet=generate(accounts, 1), say=_say).run(),
        lambda directory: Place(directory, DEFAULT_KAFKA_VERSION, lambda text: None),
        data_dir or Settings().data_dir / "soak", keep=keep, as_json=as_json,
    )  # fmt: skip


def _on_ground(
    run: Callable[[Any], dict[str, Any]],
    make: Callable[[Path], Any],
    data_dir: Path | None,
    *,
    keep: bool,
    as_json: bool,
) -> None:
    """Run a bench of whole workers, show its report, leave nothing behind; exits with 1 when it does not hold."""
    from agents.problems import explain
    from streams.telemetry import configure_logging

    for number in (signal.SIGTERM, signal.SIGINT):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, _interrupt)
    configure_logging(Settings(log_level="error"), app="bench")  # what matters is on the screen and in the logs
    directory = data_dir or Settings().data_dir / "bench"
    ground = make(directory)
    failure: Exception | None = None
    report: dict[str, Any] = {}
    try:
        report = run(ground)
    except Exception as error:
        failure = error
    finally:
        running = ground.close()
    if running:
        _say(f"still running: {', '.join(running)}")
    if failure is not None:
        _say(f"{explain(failure)}\nlogs and data: {directory}")
        raise typer.Exit(Exit.FAILURE)
    _show(report, as_json)
    if keep:
        _say(f"logs and data: {directory}")
    else:
        ground.delete()
    if running or not report["holds"]:
        raise typer.Exit(Exit.FAILURE)


@app.command()
def lag(
    groups: Annotated[int, typer.Option(min=1, help="consumer groups")] = 1_000,
    partitions: Annotated[int, typer.Option(min=1, help="partitions of each group")] = 10,
    topics: Annotated[int, typer.Option(min=1, help="topics that the groups are spread over")] = 20,
    rounds: Rounds = 3,
    as_json: Json = False,
) -> None:
    """One look of the lag monitor at a thousand groups, against asking them one by one in the same run.

    Exits with 1 if a look takes more than ten seconds. Example: curfew bench lag --json
    """
    from agents.bench.field import open_field
    from agents.bench.lag import Bench

    with open_field(os.environ.get("CURFEW_BOOTSTRAP_SERVERS"), _say) as field:
        made = Bench(field.servers, groups=groups, partitions=partitions, topics=topics, say=_say)
        result = made.run(rounds)
    _show(result, as_json)
    if not result["holds"]:
        raise typer.Exit(Exit.FAILURE)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, so that everything is stopped on the way out."""
    raise KeyboardInterrupt
