"""Records to bytes and back: the compiled writers and readers against fastavro with the same objects, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from streams.codec import LocalSchemas
from streams.codec.codec import fastavro_reader, fastavro_writer
from streams.codec.golden import examples
from streams.codec.reader import compile_reader
from streams.codec.wire_types import wire_class
from streams.codec.writer import compile_writer
from streams.core.errors import CurfewError

#: What there is most of: a change comes in, an event goes out, an attempt is made of it, usage is counted.
SCHEMAS = (
    "curfew.billing.ServiceChange",
    "curfew.events.Event",
    "curfew.delivery.Attempt",
    "curfew.billing.Usage",
)
RECORDS = 2_000


def measure(rounds: int) -> dict[str, Any]:
    """Medians over ``rounds``: microseconds per record, and how many times as long fastavro takes."""
    schemas = LocalSchemas()
    report: dict[str, Any] = {}
    for name in SCHEMAS:
        parsed = schemas.newest(name).parsed
        cls: type[Any] = wire_class(name)
        plain_write, plain_read = fastavro_writer(parsed), fastavro_reader(cls, parsed)
        write, read = compile_writer(parsed), compile_reader(cls, parsed)
        if write is None or read is None:
            raise CurfewError(f"{name} has types that are not compiled, so there is nothing to compare")
        bodies = [example.encoded() for example in examples(schemas) if example.schema.name == name]
        objects = [plain_read(body) for body in bodies] * (RECORDS // len(bodies))
        bodies *= RECORDS // len(bodies)
        report[name] = {
            "write": _compare(write, plain_write, objects, rounds),
            "read": _compare(lambda body, read=read: read(body, 0), plain_read, bodies, rounds),  # type: ignore[misc]
        }
    ratios = [one["ratio_to_fastavro"] for both in report.values() for one in both.values()]
    return {"least_ratio_to_fastavro": min(ratios), "records": report}


def _compare(
    ours: Callable[[Any], object], plain: Callable[[Any], object], items: Sequence[Any], rounds: int
) -> dict[str, float]:
    pairs = [(_us_each(ours, items), _us_each(plain, items)) for _ in range(rounds)]
    return {
        "us": round(statistics.median(mine for mine, _ in pairs), 2),
        "fastavro_us": round(statistics.median(other for _, other in pairs), 2),
        "ratio_to_fastavro": round(statistics.median(other / mine for mine, other in pairs), 2),
    }


def _us_each(do: Callable[[Any], object], items: Sequence[Any]) -> float:
    began = time.process_time()
    for item in items:
        do(item)
    return (time.process_time() - began) / len(items) * 1e6
