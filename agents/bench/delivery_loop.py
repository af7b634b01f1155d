"""The other side of the delivery bench: a bare client loop that sends the same webhooks and remembers nothing.

The same session, headers, bodies, signing, receiver and number of open requests as the dispatch worker; no queue, rows,
order, retries or results. The bodies are in its hands from the start. Run as a process, with a :class:`Task` as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import aiohttp
import msgspec
import uvloop

from agents.bench import delivery_events as events
from streams.kafka.garbage import collect_seldom
from streams.sinks import webhook_body, webhook_signature
from streams.sinks.secrets import Secrets
from streams.sinks.webhook import USER_AGENT, open_session
from streams.sinks.webhook_guard import Policy


class Task(msgspec.Struct, frozen=True):
    """``count`` webhooks from the ``first``-th event on to ``url``, ``concurrency`` open at once."""

    url: str
    first: int
    count: int
    concurrency: int


async def run(task: Task) -> None:
    """Send all, and say what it took."""
    subscription = events.subscription(events.MAIN, events.QUEUE, task.url, task.concurrency)
    key = Secrets().resolve(events.SECRET_REF)
    webhooks = [
        (event.event_id, webhook_body.render(event, subscription))
        for event in events.make(task.first, task.count, datetime.now(UTC))
    ]
    left = iter(webhooks)
    refused = 0

    async def send(session: aiohttp.ClientSession, webhooks: Iterator[tuple[str, bytes]]) -> None:
        nonlocal refused
        for unit_id, body in webhooks:
            signed = webhook_signature.headers([key], webhook_signature.message_id(unit_id), datetime.now(UTC), body)
            headers = {"content-type": "application/json", "user-agent": USER_AGENT, "curfew-attempt": "1", **signed}
            async with session.post(task.url, data=body, headers=headers, allow_redirects=False) as response:
                await response.read()
                refused += response.status != 200

    began, cpu = time.perf_counter(), time.process_time()
    async with open_session(Policy(loopback=True)) as session:
        await asyncio.gather(*(send(session, left) for _ in range(task.concurrency)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    os.write(1, json.dumps({"seconds": seconds, "cpu_s": cpu, "refused": refused}).encode() + b"\n")


if __name__ == "__main__":
    collect_seldom()  # as in a worker
    uvloop.run(run(msgspec.json.decode(sys.argv[1], type=Task)))
