"""A board as `curfew board` serves it, in a thread of the test."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from agents.board.app import Board
from tests.support.kafka_io import wait_until


@contextmanager
def serving(board: Board) -> Iterator[str]:
    """Its URL, while it runs."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(board.app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="board")
    thread.start()
    try:
        wait_until(lambda: server.started, "the board listens")
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
