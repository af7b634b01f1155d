"""Choose TCP ports on loopback."""

from __future__ import annotations

import random
import socket

from agents.embedded.errors import StackError

# Below the range (32768 and up on Linux) from which the kernel takes local ports of outgoing connections: a port chosen
# there may be taken by such a connection in the seconds until Java binds it.
FREE_RANGE = range(15_000, 30_000)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does; ignores connections in TIME_WAIT
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that is free now; another process may still take it before it is used."""
    candidates = random.SystemRandom().sample(FREE_RANGE, 200)
    for port in candidates:
        if is_free(port):
            return port
    raise StackError(
        "No free TCP port was found.",
        where=f"127.0.0.1, ports {FREE_RANGE.start} to {FREE_RANGE.stop - 1}",
        remedy="end processes that hold many ports, or name the ports yourself",
    )


def require_free(port: int, what: str, option: str) -> int:
    """The port, if nobody has it. StackError that names the port otherwise."""
    if not is_free(port):
        raise StackError(
            f"Port {port} for {what} is taken by another process.",
            where=f"127.0.0.1:{port}",
            remedy=f"end that process (`ss -ltnp 'sport = :{port}'` shows it) or choose another port with {option}",
        )
    return port
