"""Builds a board from the settings, and serves it until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from agents.board.access import SHORTEST, Access, is_loopback
from agents.board.actions import Actions
from agents.board.app import Board
from agents.board.change_source import ChangeSource
from agents.board.memory import Memory
from agents.board.panels.groups import GroupSource
from agents.board.panels.letters import LetterSource
from agents.board.panels.subscriptions import SubscriptionSource
from agents.board.panels.system import LedgerSource, SystemSource
from agents.board.reading import Reading
from streams.core.errors import Misconfigured
from streams.settings import Settings

#: Names under which this machine calls itself.
LOCAL_NAMES: Final = ("127.0.0.1", "localhost", "[::1]", "::1")
#: Connections that are open get so long to finish when the board is ended.
GRACE_S: Final = 3


def build(settings: Settings, host: str, names: tuple[str, ...] = ()) -> Board:
    """A board that reads this cluster; raises Misconfigured for a token or an address that would not be safe."""
    token = settings.board_token
    if token is not None and len(token.get_secret_value()) < SHORTEST:
        raise Misconfigured(
            f"board_token has fewer than {SHORTEST} characters, so it could be guessed. Make one with: "
            "head -c 24 /dev/urandom | base64"
        )
    # A name is a proxy's, and who can reach that is not known here.
    private = not is_loopback(host) or bool(names)
    if private and token is None:
        raise Misconfigured(
            f"{names[0] if names else host} can be reached from other machines, so the board needs a login there: set "
            "board_token (CURFEW_BOARD_TOKEN), or leave --host and --name away"
        )
    memory = Memory()
    sources = (
        ChangeSource(settings, memory),
        LetterSource(settings, memory),
        GroupSource(settings),
        SubscriptionSource(settings),
        SystemSource(settings, memory),
        LedgerSource(settings),
    )
    hosts = (*LOCAL_NAMES, *(() if is_loopback(host) else (host,)), *names)
    return Board(
        memory, Reading(memory, sources), Actions(settings), Access(token, private=private), hosts=hosts
    )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """The board's port; raises Misconfigured when it cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Misconfigured(f"cannot listen on {host}, port {port}: {error.strerror}; choose another --port") from error


def serve(board: Board, listening: socket.socket) -> None:
    """Until a signal."""
    config = uvicorn.Config(
        board.app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S
    )
    with listening:
        _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends with exit code 0 by SIGTERM, as all of our processes do; uvicorn's own would kill itself by the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.handle_exit, number, None)
        yield
