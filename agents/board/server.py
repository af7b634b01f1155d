"""Builds a board from the settings, and serves it until SIGTERM or SIGINT."""

from __future__ import annotations

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
    private = not is_loopback(host)
    if private and token is None:
        raise Misconfigured(
            f"{host} can be reached from other machines, so the board needs a login there: set board_token "
            "(CURFEW_BOARD_TOKEN), or leave --host away"
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
    hosts = (*LOCAL_NAMES, *((host,) if private else ()), *names)
    return Board(
        memory, Reading(memory, sources), Actions(settings), Access(token, private=private), hosts=hosts
    )  # fmt: skip


def serve(board: Board, host: str, port: int) -> None:
    """Until a signal."""
    config = uvicorn.Config(
        board.app, host=host, port=port, log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )  # fmt: skip
    uvicorn.Server(config).run()
