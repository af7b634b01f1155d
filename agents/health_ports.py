"""Which port each worker of `curfew up` answers on: the one asked for and those after it, or any free ones."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

from agents.embedded.ports import FREE_RANGE
from streams.core.errors import Misconfigured


def choose(workers: Sequence[str], first: int, host: str) -> dict[str, int]:
    """Worker → port, in their order; ``first`` 0: free ones.

    Misconfigured for a port that is taken: a worker that finds it so would end, and be restarted, again and again.
    """
    if not first:
        # at random, so that two that begin at the same time do not find the same ones free
        free = (port for port in random.sample(FREE_RANGE, len(FREE_RANGE)) if not _taken(port, host))
        return dict(zip(workers, free, strict=False))
    wanted = range(first, first + len(workers))
    for port in wanted:
        if why := _taken(port, host):
            raise Misconfigured(
                f"health port {port} cannot be opened on {host}: {why}. {first} to {wanted.stop - 1} are needed for "
                f"{len(workers)} workers: choose another --health-port, or 0 for any free ones"
            )
    return dict(zip(workers, wanted, strict=True))


def _taken(port: int, host: str) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the workers do; ignores TIME_WAIT
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.strerror or str(error)
    return None
