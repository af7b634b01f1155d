"""The events worker as a contender: built like any other, with a group and a changelog of its own, no registry."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from streams.codec import Codec, LocalIds, LocalSchemas
from streams.kafka.runtime import Runtime
from streams.settings import Settings

if TYPE_CHECKING:
    from agents.bench.contenders import Task

#: Of several workers none knows when the others are done: it ends when nothing has come for so long.
SILENCE_S = 3.0


def tell(**what: object) -> None:
    """One JSON line past whatever took hold of ``sys.stdout``."""
    os.write(1, json.dumps(what).encode() + b"\n")


def run(task: Task) -> None:
    """Say ``ready`` with the number of partitions when it changes; at the end records, seconds and processor seconds
    from the first chunk in hand on.

    With ``task.records`` it ends when that many are handled and committed; with 0 it ends after a silence.
    """
    from agents.worker import build
    from streams.telemetry import configure_logging

    settings = Settings(bootstrap_servers=task.servers, data_dir=Path(task.directory), hooks=(), log_level="warning")
    configure_logging(settings)
    schemas = LocalSchemas()
    codec = Codec(LocalIds(schemas), schemas)
    runtime = build(settings, "events", instance=task.instance, codec=codec, group=task.group, changelog=task.changelog)
    assert isinstance(runtime, Runtime)

    async def watch() -> None:
        partitions, counters = 0, runtime.counters
        first = last = (0, 0.0, 0.0)
        while True:
            await asyncio.sleep(0.001)  # outside of the hot path: an event would have to be set in it
            now = (counters.records, time.perf_counter(), time.process_time())
            if len(tuple(runtime.partitions)) != partitions:
                partitions = len(tuple(runtime.partitions))
                tell(ready=partitions)
            if not counters.records:
                continue
            if not first[0]:
                first = last = now
            if now[0] != last[0] or not runtime.idle:
                last = now
            elif (now[0] >= task.records) if task.records else now[1] - last[1] > SILENCE_S:
                break
        end = now if task.records else last
        tell(records=end[0] - first[0], seconds=end[1] - first[1], cpu=end[2] - first[2])
        runtime.stop()

    runtime.background(watch)
    sys.exit(runtime.run())
