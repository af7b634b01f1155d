"""The loop guard: how often an event was forwarded, and by which queues it came, in two headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from streams.core.delivery.messages import Header

#: A number in text, and queue names joined by ``,`` (queue names hold no comma).
HOPS: Final = "curfew-hops"
PATH: Final = "curfew-path"
#: Two subscriptions that forward to each other would otherwise send one event round for ever.
MAX_HOPS: Final = 8
#: The run of `curfew subscriptions replay` by which a forwarded record came; of a webhook and of a mail too.
REPLAY: Final = "curfew-replay"
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def hops(headers: Iterable[Header], event_hops: int) -> int:
    """Hops so far: the header's, or the event's own (a calculation's result carries them inside) if that is more."""
    found = event_hops
    for header in headers:
        if header.name == HOPS and header.value.isdigit():
            found = max(found, int(header.value))
    return found


def path(headers: Iterable[Header]) -> str:
    """The queues that the event has passed, oldest first; empty when it was never forwarded."""
    return next((header.value.decode(errors="replace") for header in headers if header.name == PATH), "")


def forwarded(headers: Iterable[Header], event_hops: int, source: str, replay: str | None = None) -> tuple[Header, ...]:
    """The headers of the record in the next queue: one hop more, ``source`` at the end of the path, and its run."""
    kept = tuple(headers)
    renewed = (HOPS, PATH) if replay is None else (HOPS, PATH, REPLAY)
    others = (header for header in kept if header.name not in renewed)
    marked = () if replay is None else (Header(name=REPLAY, value=replay.encode()),)
    return (*others, *marks(hops(kept, event_hops) + 1, extended(path(kept), source)), *marked)


def replayed(headers: Iterable[Header]) -> str | None:
    """The run of the replay that has brought the record; None for the event itself."""
    found = next((header.value.decode(errors="replace") for header in headers if header.name == REPLAY), None)
    # Anybody may write to a queue, and this goes into headers of requests and mails.
    return None if found is None else found if is_run(found) else "unknown"


def is_run(name: str) -> bool:
    """Whether this may be the name of a run."""
    return _RUN.fullmatch(name) is not None


def extended(passed: str, source: str) -> str:
    """The path with one more queue at its end."""
    return f"{passed},{source}" if passed else source


def marks(count: int, passed: str) -> tuple[Header, Header]:
    """The two headers of a record that has come so far."""
    return Header(name=HOPS, value=str(count).encode()), Header(name=PATH, value=passed.encode())
