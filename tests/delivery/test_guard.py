"""Server-side request forgery: which addresses and URLs are refused. The socket that would be connected decides."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest

from streams.core.delivery.messages import Verdict
from streams.core.subscription_rules import url_problems
from streams.core.subscriptions import Webhook
from streams.sinks.webhook_guard import Policy, admitted, refusal
from tests.delivery.plant import event, subscription
from tests.delivery.receiving import SECRET, SECRET_REF, sender

PRODUCTION = Policy(loopback=False)
UNIT = "11111111-2222-3333-4444-555555555555"

REFUSED = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.168.1.1", "198.18.0.1", "203.0.113.5", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd00:ec2::254",
    "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_inside_are_refused_in_production(address: str) -> None:
    """Private, loopback, link-local, metadata, shared, translated, multicast and reserved ranges, in every disguise."""
    assert refusal(address, PRODUCTION) is not None


@pytest.mark.parametrize("address", ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::1.1.1.1"])
def test_public_addresses_are_not_refused(address: str) -> None:
    """The neighbours of the refused ranges stay reachable."""
    assert refusal(address, PRODUCTION) is None


def test_development_admits_loopback_and_nothing_else() -> None:
    """A receiver on this machine is for development; the network around it is not."""
    development = Policy(loopback=True)

    assert refusal("127.0.0.1", development) is None
    assert refusal("::1", development) is None
    assert refusal("192.168.1.1", development) is not None
    assert refusal("169.254.169.254", development) is not None


def test_a_private_range_needs_the_subscription_and_the_worker_to_name_it() -> None:
    """A subscription cannot admit itself; a range outside of what the worker allows is dropped."""
    networks = admitted(["10.20.0.0/16", "192.168.0.0/16"], ["10.0.0.0/8"])
    policy = Policy(loopback=False, networks=networks)

    assert refusal("10.20.1.1", policy) is None
    assert refusal("10.21.1.1", policy) is not None
    assert refusal("192.168.1.1", policy) is not None
    assert admitted(["10.20.0.0/16"], []) == ()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"],
)
def test_in_production_no_spelling_of_loopback_reaches_a_listening_socket(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server listens on every address of this machine; https to it is refused before anything is connected."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    connections: list[Any] = []

    async def main() -> Any:
        listening = await asyncio.start_server(
            lambda reader, writer: connections.append(writer), host=None, port=0, family=socket.AF_INET
        )
        port = listening.sockets[0].getsockname()[1]
        webhook = Webhook(url=f"https://{host}:{port}/", secret_ref=SECRET_REF, allow_ports=(port,))
        client = sender(development=False)
        try:
            return await client.send(subscription(webhook=webhook), UNIT, 1, event(1))
        finally:
            await client.close()
            listening.close()

    exchange = asyncio.run(main())

    # Not canonical spellings are refused as URLs already, what is left by the address.
    assert exchange.verdict is Verdict.FAILED
    assert exchange.reason in ("address_refused", "url_refused")
    assert connections == []


def test_a_name_that_changes_between_look_up_and_connect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look-up gives a public address, the one before connecting a private one: no socket is ever made."""
    monkeypatch.setenv("CURFEW_SECRET_TEST", SECRET)
    answers = iter(["1.1.1.1", "169.254.169.254"])

    async def rebinding(self: Any, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        address = next(answers)
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", rebinding)
    made: list[Any] = []
    real = socket.socket

    def making(*args: Any) -> socket.socket:
        made.append(args)
        return real(*args)

    async def main() -> Any:
        await aiohttp.ThreadedResolver().resolve("rebind.example", 443)  # what a check of the name would have seen
        monkeypatch.setattr("streams.sinks.webhook_guard.socket.socket", making)
        client = sender(development=False)
        webhook = Webhook(url="https://rebind.example/", secret_ref=SECRET_REF)
        try:
            return await client.send(subscription(webhook=webhook), UNIT, 1, event(1))
        finally:
            await client.close()

    exchange = asyncio.run(main())

    assert exchange.reason == "address_refused"
    assert "169.254.169.254 is link-local" in (exchange.detail or "")
    assert made == []


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://example.com/", "http"),
        ("ftp://example.com/", "scheme"),
        ("https://user:pass@example.com/", "credentials"),
        ("https:///path", "host"),
        ("https://example.com:8443/", "port"),
        ("https://example.com/#part", "fragment"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/\r\nx: y", "control"),
        ("https://exämple.com/", "non-ASCII"),
        ("https://example.com/" + "a" * 2_048, "at most"),
        ("https://[::1", "no URL"),
        ("https://example.com:99999/", "no URL"),
    ],
)
def test_urls_that_may_not_be_saved_say_why(url: str, word: str) -> None:
    """One problem each, with a word that names it."""
    [problem] = url_problems(url, development=False)

    assert word in problem


def test_a_port_that_is_allowed_and_plain_http_in_development_are_fine() -> None:
    """The rules have their two exceptions and no third."""
    assert url_problems("https://example.com:8443/hook?x=1", development=False, allow_ports=(8443,)) == []
    assert url_problems("http://127.0.0.1:8080/", development=True) == []
