"""A broker whose clock is off, as its clients see it: a proxy in front of a real one that shifts the time in answers.

Neither Java nor librdkafka works under libfaketime, which shifts the clock but not the deadlines of their condition
variables. Here both keep their own clocks, and only what the broker says of its clock is another.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PRODUCE = 0  # Kafka's number of the request whose answer has the time of the log
#: Eight bytes of an answer that are an instant within so much of now are the broker's time; offsets are far from it.
NEAR_MS = 3_600_000


@contextmanager
def skewed(bootstrap_servers: str, off_s: float) -> Iterator[str]:
    """Bootstrap servers of the same broker with its clock ``off_s`` seconds ahead (negative: behind).

    The broker is one of this machine, under whatever name it goes: ``localhost`` in Docker, else ``127.0.0.1``.
    """
    host, port = bootstrap_servers.split(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = listener.getsockname()[1]

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    client, _ = listener.accept()
                    server = socket.create_connection((host, int(port)))
                    _Connection(client, server, host, (int(port), own), off_s).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"{host}:{own}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread


class _Connection:
    def __init__(
        self, client: socket.socket, server: socket.socket, host: str, ports: tuple[int, int], off_s: float
    ) -> None:
        self._client = client
        self._server = server
        self._advertised, self._own = (host.encode() + struct.pack(">i", port) for port in ports)
        self._off_ms = round(off_s * 1000)
        self._produced: set[bytes] = set()

    def start(self) -> None:
        for forward in (self._requests, self._answers):
            threading.Thread(target=self._run, args=(forward,), daemon=True).start()

    def _run(self, forward: Callable[[], None]) -> None:
        with suppress(OSError):
            forward()
        for each in (self._client, self._server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _requests(self) -> None:
        for frame in _frames(self._client):
            if struct.unpack(">h", frame[:2])[0] == PRODUCE:
                self._produced.add(frame[4:8])  # the correlation id, with which its answer begins
            self._server.sendall(struct.pack(">i", len(frame)) + frame)

    def _answers(self) -> None:
        for frame in _frames(self._server):
            # the broker's own address, so that no connection goes past us; both are as long
            frame = frame.replace(self._advertised, self._own)
            if frame[:4] in self._produced:
                self._produced.discard(frame[:4])
                frame = self._shifted(frame)
            self._client.sendall(struct.pack(">i", len(frame)) + frame)

    def _shifted(self, frame: bytes) -> bytes:
        now = time.time() * 1000
        for place in range(len(frame) - 7):
            [found] = struct.unpack_from(">q", frame, place)
            if abs(found - now) < NEAR_MS:
                return frame[:place] + struct.pack(">q", found + self._off_ms) + frame[place + 8 :]
        return frame


def _frames(source: socket.socket) -> Iterator[bytes]:
    """What is between the lengths of Kafka's protocol."""
    with source.makefile("rb") as stream:
        while len(head := stream.read(4)) == 4:
            yield stream.read(struct.unpack(">i", head)[0])
