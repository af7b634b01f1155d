"""Ahead-of-time caches: what a JVM learned about its classes in one run, kept for the next ones (JEP 483, 514).

They shorten the start of Kafka from about 3 s to 1.5 s. They are optional and made by `curfew dev prepare` only, since
making them takes longer than they save on a machine that starts the stack once. A JVM that finds a cache unfit (other
jars, other options) says so in its log and runs without it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from agents.embedded.download import Report, exclusive
from agents.embedded.jars import cache_dir
from agents.embedded.java import cache_file
from agents.embedded.lockfile import REGISTRY_VERSION
from agents.embedded.stack import Stack, StackConfig

# Java writes its cache while it ends; that took 12 s on two cores for both processes.
TRAINING_STOP_GRACE_SECONDS = 180.0


def prepare(kafka_version: str, report: Report) -> tuple[Path, ...]:
    """Download everything that a start needs and make the caches that are missing. Returns the caches.

    Starts a stack in a temporary directory and stops it, so it must run in the main thread. StackError when the
    download or the start fails.
    """
    wanted = tuple(cache_file(name) for name in (f"kafka-{kafka_version}", f"registry-{REGISTRY_VERSION}"))
    if all(path.exists() for path in wanted):
        report("everything is there already")
        return wanted
    with exclusive(cache_dir() / "prepare.lock", report):
        scratch = Path(tempfile.mkdtemp(dir=cache_dir(), prefix=".prepare."))
        try:
            config = StackConfig(
                data_dir=scratch / "data",
                kafka_version=kafka_version,
                stop_grace_seconds=TRAINING_STOP_GRACE_SECONDS,
                train_into=scratch,
            )
            stack = Stack(config, report)
            stack.start()
            report("writing the caches for a faster start (up to a minute) …")
            stack.stop()
            for path in wanted:
                path.parent.mkdir(exist_ok=True)
                os.replace(scratch / path.name, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return wanted
