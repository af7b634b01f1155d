"""Rows of the plan changes' store, and how they are read and written: MessagePack of the dataclasses.

``change/<service>`` is the latest change of the service, so that the open one is one look-up;
``past/<service>/<change>`` are those before it; ``request/<service>/<request>`` remembers answers;
``parked/<service>`` holds requests that wait;
``open/<account>/<service>`` is there while the latest change of the service is open, for news of the account;
``trace/<service>`` is the trace of the request that was accepted last, where traces are made;
``context/<account>`` and ``context/<account>/<service>`` the last change of what pending changes depend on;
``heard/<account>`` and ``heard/<account>/<service>`` are there while open changes have not followed it yet, for lack
of a business time: the key of its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from streams.core.plan_change.machine import Change
from streams.core.plan_change.messages import Context, ExecuteCommand, Reply, ValidatedRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANGE = "change/"
PAST = "past/"
REQUEST = "request/"
PARKED = "parked/"
CONTEXT = "context/"
HEARD = "heard/"
OPEN = "open/"
TRACE = "trace/"


class Rows(Protocol):
    """The rows of one partition, with what this decision has written so far."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def delete(self, key: bytes) -> None: ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was asked under a request id (as a fingerprint of the content) and what was answered; None until decided."""

    fingerprint: str
    reply: Reply | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """Requests of one service in their order, so that a cancel cannot overtake its order.

    ``command``: the first one waits for its ORDER hooks. None: there is no business time yet.
    """

    service_id: str
    requests: tuple[ValidatedRequest, ...]
    command: ExecuteCommand | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose open change there is. In the value, since ids may have slashes of their own."""

    account_id: str
    service_id: str


def change_key(service_id: str) -> bytes:
    """Key of the latest change of a service."""
    return f"{CHANGE}{service_id}".encode()


def past_key(change: Change) -> bytes:
    """Key of a change that another one has replaced."""
    return f"{PAST}{change.service_id}/{change.change_id}".encode()


def request_key(service_id: str, request_id: str) -> bytes:
    """Key of an answer."""
    return f"{REQUEST}{service_id}/{request_id}".encode()


def parked_key(service_id: str) -> bytes:
    """Key of the waiting requests of a service."""
    return f"{PARKED}{service_id}".encode()


def context_key(account_id: str, service_id: str | None) -> bytes:
    """Key of the last context of an account, or of one of its services."""
    return f"{CONTEXT}{account_id}{'' if service_id is None else f'/{service_id}'}".encode()


def heard_key(account_id: str, service_id: str | None) -> bytes:
    """Key of the row that says that this context waits for the first tick."""
    return f"{HEARD}{account_id}{'' if service_id is None else f'/{service_id}'}".encode()


def open_key(account_id: str, service_id: str) -> bytes:
    """Key of the row that says that there is an open change; without a service, the beginning of the account's keys."""
    return f"{OPEN}{account_id}/{service_id}".encode()


def trace_key(service_id: str) -> bytes:
    """Key of the trace to which what is due of the service is linked."""
    return f"{TRACE}{service_id}".encode()


pack = msgspec.msgpack.Encoder().encode
unpack_change = msgspec.msgpack.Decoder(Change).decode
unpack_answer = msgspec.msgpack.Decoder(Answer).decode
unpack_context = msgspec.msgpack.Decoder(Context).decode
unpack_owner = msgspec.msgpack.Decoder(Owner).decode
unpack_parked = msgspec.msgpack.Decoder(Parked).decode
