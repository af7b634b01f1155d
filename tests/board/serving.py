"""A board as `curfew board` serves it, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from agents.board.app import Board
from agents.embedded.ports import free_port
from tests.support.kafka_io import wait_until


@contextmanager
def serving(board: Board) -> Iterator[str]:
    """Its URL, while it runs."""
    port = free_port()
    config = uvicorn.Config(board.app, host="127.0.0.1", port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="board")
    thread.start()
    try:
        wait_until(lambda: server.started, "the board listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
