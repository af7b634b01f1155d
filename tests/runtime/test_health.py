"""Where /health and /metrics listen."""

from __future__ import annotations

import asyncio
import socket

import httpx

from streams.kafka.health import Health


def test_health_listens_on_the_given_address_and_on_no_other() -> None:
    """127.0.0.2 is loopback as well on Linux, so nothing of the test can be reached from outside."""

    async def ask() -> tuple[int, int]:
        health = Health(0, lambda: (True, {}), host="127.0.0.2")
        await health.start()
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"http://127.0.0.2:{health.port}/health")
            with socket.socket() as elsewhere:
                return answer.status_code, elsewhere.connect_ex(("127.0.0.1", health.port or 0))
        finally:
            await health.stop()

    status, refused = asyncio.run(ask())

    assert status == 200
    assert refused != 0
