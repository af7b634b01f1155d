"""A TCP forwarder that a test cuts and restores: to its clients the server behind it is down and up again."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES = 1 << 16
#: A server that is really down must not hold up the thread that accepts.
CONNECT_TIMEOUT_SECONDS = 5.0


class Proxy:
    """Forwards ``127.0.0.1:port`` to the server of an HTTP URL; :attr:`url` is that URL with the proxy's port.

    It forwards from the beginning. :meth:`cut` ends all connections and refuses new ones until :meth:`restore`; the
    port remains its own.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = parts.hostname, parts.port
        # Bound and not listening: clients are refused while it is cut, and nobody else can take the port meanwhile.
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port = self._reserved.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{self._port}"))
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.restore()

    def restore(self) -> None:
        """Accept connections (again)."""
        assert self._listener is None, "it is not cut"
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), name="proxy", daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and end those that are open; harmless when it was done already."""
        with self._lock:
            ending, self._open = self._open, set()
            if self._listener is not None:
                ending.add(self._listener)
                self._listener = None
        for each in ending:
            _end(each)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was closed by cut()
            while True:
                client, _ = listener.accept()
                self._connect(listener, client)

    def _connect(self, listener: socket.socket, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, CONNECT_TIMEOUT_SECONDS)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            alive = self._listener is listener
            if alive:
                self._open |= {client, server}
        if not alive:  # cut between accept and here
            _end(client)
            _end(server)
            return
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._forward, args=(source, sink), name="proxy", daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        _end(source)
        _end(sink)


def _end(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept() or recv(); close() alone does not
    each.close()
