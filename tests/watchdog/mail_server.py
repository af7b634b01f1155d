"""A real SMTP server of a few lines: takes every mail, or refuses every one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class MailServer:
    """``mails`` are whole messages; with ``refuse`` it answers 451 to every sender, with ``answer`` that to every
    recipient."""

    url: str = ""
    refuse: bool = False
    answer: str = ""
    mails: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        await say("220 test")
        while line := (await reader.readline()).decode().strip():
            verb = line.split()[0].upper()
            if verb == "DATA":
                await say("354 go on")
                lines: list[str] = []
                while (text := (await reader.readline()).decode().rstrip("\r\n")) != ".":
                    lines.append(text)
                self.mails.append("\n".join(lines))
                await say("250 taken")
            elif verb == "QUIT":
                await say("221 bye")
                break
            elif verb == "RCPT" and self.answer:
                await say(self.answer)
            else:
                await say("451 not now" if self.refuse and verb == "MAIL" else "250 ok")
        writer.close()


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """Listen on a free port of loopback, in a thread of its own."""
    server, loop, ready, ended = MailServer(), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def run() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.url = f"smtp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
