"""Server-side request forgery in production mode, judged by the sockets: to which addresses is anything connected?"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from streams.core.delivery.made import decode_health, endpoint_key
from streams.core.delivery.messages import Verdict
from streams.core.delivery.status import status
from streams.core.subscriptions import Webhook
from streams.sinks.webhook import Exchange
from tests.delivery.plant import Plant, event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, sender
from tests.support.certificates import certificates

UNIT = "11111111-2222-3333-4444-555555555555"
HOST = "hook.example"
LOOPBACK = "127.0.0.0/8"
Names = dict[str, list[str]]


class Sockets:
    """The destination of every connection that is tried; one to somewhere else than loopback is not made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.destinations: list[str] = []
        self._names: Names = {}
        connect = BaseSelectorEventLoop.sock_connect

        async def noted(loop: Any, sock: socket.socket, address: Any) -> None:
            self.destinations.append(str(address[0]))
            if not str(address[0]).startswith("127."):
                raise ConnectionRefusedError("this test stays on its machine")
            await connect(loop, sock, address)

        async def resolved(_: Any, host: str, port: int = 0, family: Any = 0) -> list[dict[str, Any]]:
            found = self._names.get(host)
            if found is not None:
                address = found.pop(0) if len(found) > 1 else found[0]
                kind = socket.AF_INET6 if ":" in address else socket.AF_INET
                return [{"hostname": host, "host": address, "port": port, "family": kind, "proto": 0, "flags": 0}]
            answers: list[dict[str, Any]] = await real(_, host, port, family)
            return answers

        real: Any = aiohttp.ThreadedResolver.resolve
        monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", noted)
        monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolved)
        monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)

    def name(self, host: str, *addresses: str) -> None:
        """What look-ups of ``host`` say, one after the other; the last one for ever."""
        self._names[host] = list(addresses)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Sockets:
    return Sockets(monkeypatch)


def send(url: str, **webhook: Any) -> Exchange:
    async def main() -> Exchange:
        client = sender(development=False)
        try:
            wanted = subscription(webhook=Webhook(url=url, secret_ref=SECRET_REF, **webhook))
            return await client.send(wanted, UNIT, 1, event(1))
        finally:
            await client.close()

    return asyncio.run(main())


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "172.16.0.1", "192.168.1.1", "[fc00::1]",  # private
        "127.0.0.1", "localhost", "[::1]",  # loopback
        "169.254.1.1", "[fe80::1]",  # link-local
        "169.254.169.254", "100.100.100.200", "192.0.0.192", "[fd00:ec2::254]",  # metadata services
        "100.64.0.1", "100.127.255.255",  # CGNAT
        "[64:ff9b::a9fe:a9fe]", "[64:ff9b::10.0.0.1]", "[64:ff9b:1::1]",  # NAT64
        "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]",  # IPv4 in IPv6
        "2130706433", "2852039166", "127.1", "10.1",  # decimal, short
        "0177.0.0.1", "012.0.0.1", "0x7f.0.0.1", "0x7f000001",  # octal, hexadecimal
        "0.0.0.0", "0", "[::]", "224.0.0.1", "255.255.255.255", "[ff02::1]",  # unspecified, multicast, broadcast
    ],
)  # fmt: skip
def test_no_spelling_of_an_inner_address_is_ever_connected(sockets: Sockets, host: str) -> None:
    """Whatever the resolver makes of the text. Some spellings are refused as URLs before anything is looked up; the
    reason tells neither path nor query."""
    exchange = send(f"https://{host}/secret-path?token=t0k3n")

    assert sockets.destinations == []
    assert exchange.verdict is Verdict.FAILED
    assert exchange.reason in ("address_refused", "url_refused"), exchange.detail
    assert "secret-path" not in (exchange.detail or ""), "paths and queries may be secrets of the receiver"


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "::1", "fe80::1", "::ffff:10.0.0.1", "64:ff9b::a00:1"],
)
def test_no_name_of_an_inner_address_is_ever_connected(sockets: Sockets, address: str) -> None:
    """As the names of metadata services are, and any name that somebody points there."""
    sockets.name("metadata.example", address)

    exchange = send("https://metadata.example/latest/meta-data")

    assert sockets.destinations == []
    assert exchange.reason == "address_refused"


def test_what_is_connected_is_the_very_address_that_was_looked_up(sockets: Sockets) -> None:
    """A second look-up would say something else; there is none."""
    sockets.name("rebind.example", "1.1.1.1", "169.254.169.254")

    exchange = send("https://rebind.example/")

    assert sockets.destinations == ["1.1.1.1"]
    assert exchange.reason == "connection"


def test_a_name_that_has_turned_inwards_since_it_was_looked_at_is_refused(sockets: Sockets) -> None:
    """A look-up when the subscription was saved would have seen a public address."""
    sockets.name("rebind.example", "1.1.1.1", "10.0.0.1")
    first = send("https://rebind.example/")
    second = send("https://rebind.example/")

    assert sockets.destinations == ["1.1.1.1"]
    assert (first.reason, second.reason) == ("connection", "address_refused")


@asynccontextmanager
async def secured(
    tmp_path: Path, answer: Callable[[web.Request], web.Response], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[int]:
    """The port of an HTTPS server on loopback whose certificate is for ``hook.example``, and is trusted."""
    authority, server = certificates(tmp_path, HOST)
    trusted = ssl.create_default_context(cafile=str(authority))
    monkeypatch.setattr(aiohttp.connector, "_SSL_CONTEXT_VERIFIED", trusted)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)

    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def deliver(port: int, host: str = HOST) -> Exchange:
    """To a subscription that admits loopback on purpose, as on-premises receivers are."""
    client = sender(development=False, networks=[LOOPBACK])
    webhook = Webhook(
        url=f"https://{host}:{port}/hook", secret_ref=SECRET_REF, allow_networks=(LOOPBACK,), allow_ports=(port,)
    )
    try:
        return await client.send(subscription(webhook=webhook), UNIT, 1, event(1))
    finally:
        await client.close()


def test_a_redirect_inwards_is_not_followed(sockets: Sockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver's own address is the only one that is connected."""
    sockets.name(HOST, "127.0.0.1")

    def inwards(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"location": "https://169.254.169.254/latest/meta-data"})

    async def main() -> Exchange:
        async with secured(tmp_path, inwards, monkeypatch) as port:
            return await deliver(port)

    exchange = asyncio.run(main())

    assert sockets.destinations == ["127.0.0.1"]
    assert (exchange.reason, exchange.status) == ("redirect", 307)


def test_the_name_is_kept_for_tls_though_an_address_is_connected(
    sockets: Sockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server with the right certificate gets the webhook; another name at the same address gets nothing."""
    sockets.name(HOST, "127.0.0.1")
    sockets.name("other.example", "127.0.0.1")
    hosts: list[str] = []

    def well(request: web.Request) -> web.Response:
        hosts.append(request.host.partition(":")[0])
        return web.Response()

    async def main() -> list[Exchange]:
        async with secured(tmp_path, well, monkeypatch) as port:
            return [await deliver(port), await deliver(port, "other.example")]

    right, wrong = asyncio.run(main())

    assert hosts == [HOST]
    assert (right.verdict, wrong.reason) == (Verdict.DELIVERED, "tls")


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked(
    sockets: Sockets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It would connect on our behalf, to whatever the name means there."""
    sockets.name(HOST, "127.0.0.1")
    sockets.name("inner.example", "10.0.0.1")
    proxied: list[Any] = []

    async def main() -> list[Exchange]:
        proxy = await asyncio.start_server(lambda reader, writer: proxied.append(writer), "127.0.0.1", 0)
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        try:
            async with secured(tmp_path, lambda request: web.Response(), monkeypatch) as port:
                return [await deliver(port), await deliver(port, "inner.example")]
        finally:
            proxy.close()

    outside, inside = asyncio.run(main())

    assert (outside.verdict, inside.reason) == (Verdict.DELIVERED, "address_refused")
    assert sockets.destinations == ["127.0.0.1"]
    assert proxied == []


def test_the_reason_of_a_refusal_is_in_the_status_of_the_subscription(sockets: Sockets) -> None:
    """As `curfew subscriptions show` makes it of the endpoint's row."""
    endpoint = Webhook(url="https://10.0.0.1/", secret_ref=SECRET_REF)

    async def main() -> Plant:
        plant = Plant(subscription(webhook=endpoint), sender=sender(development=False))
        await plant.dispatch(plant.attempts(plant.feed(event(1))))
        assert plant.dispatcher is not None
        await plant.maker._sender.close()
        return plant

    plant = asyncio.run(main())

    live = plant.catalogue.subscriptions["crm"]
    row = plant.rows_made.get(endpoint_key(live.id))
    assert row is not None
    shown = status(
        live, open_units=(), parked_keys=0, gone=None, health=decode_health(row),
        now_ms=int(plant.clock.now().timestamp() * 1000),
    )  # fmt: skip
    assert (shown.state, shown.reason is not None and "10.0.0.1 is private" in shown.reason) == ("failing", True)
    assert shown.endpoint is not None
    assert (shown.endpoint.failures_in_a_row, shown.endpoint.last_failure_reason) == (1, "address_refused")
    assert sockets.destinations == []
