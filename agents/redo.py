"""Decisions that must not be made again: durable as a whole before their rows, and told only after that.

Rows become durable one after the other, and outputs before rows. For most decisions that is harmless: made again after
a crash they come out the same, with the same ids. Some do not: an order that is asked again finds its own change open,
a cancel may be too late by then, late usage may be in rows that the world was not told of. Those go this way::

    pieces of redo    all rows and all records of the decisions, in front of everything
    the rows          then they are durable, and nobody has been told yet
    the records       sent
    pieces deleted    in front of every row that comes later

Whatever prefix of that a crash leaves in the changelog: without the last piece no row of the decisions is there and
nobody has heard of them, so they are made anew; with it, :func:`finish` puts the rows again and sends the records
again before anything else is decided. They may be larger than one row may be, therefore pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from streams.kafka.chunks import Batch
from streams.kafka.store import MAX_ROW_BYTES, Overlay
from streams.tracing import traced

PREFIX = "redo/"
PIECE_BYTES = MAX_ROW_BYTES // 2


class Sent(NamedTuple):
    """A record to send; ``trace`` is the ``traceparent`` of what it belongs to."""

    topic: str
    key: str
    value: bytes
    trace: str | None = None


_LEFT, _TURN = "redo left", "redo turn"
# The first byte of a piece.
_LAST, _MORE = b"\x00", b"\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decided:
    """The rows that decisions put (None: delete), in their order, and what they send."""

    rows: list[tuple[bytes, bytes | None]]
    sent: Sequence[Sent]


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Decided).decode


def open_redo(batch: Batch) -> None:
    """Find what a crash has left; call it first of all when a partition is opened.

    The rows of what is left are put into ``batch`` (which is thrown away), so that an index that is built from it next
    knows them.
    """
    turns: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for key, value in batch.rows.scan(PREFIX.encode()):
        turns.setdefault(key[: len(PREFIX) + 2], []).append((key, value))
    whole = [decided for pieces in turns.values() if (decided := _whole(pieces)) is not None]
    keys = [key for pieces in turns.values() for key, _ in pieces]
    batch.memory[_LEFT] = (keys, whole)
    batch.memory[_TURN] = 0
    for decided in whole:
        _apply(batch, decided.rows)


def finish(batch: Batch) -> Iterator[None]:
    """Finish what was decided before a crash: put what is missing of it, tell it, forget it. First in a batch."""
    keys, whole = batch.memory[_LEFT]
    if not keys:
        return
    for decided in whole:
        _apply(batch, decided.rows)
        tell(batch, decided.sent)
    yield
    for key in keys:
        batch.rows.delete(key)
    batch.memory[_LEFT] = ([], [])
    yield


def carry_out(batch: Batch, staged: Overlay, sent: Sequence[Sent]) -> Iterator[None]:
    """Put what is in ``staged``, an overlay over the rows of ``batch``, and send ``sent``, so that both stand."""
    if not staged.writes:
        tell(batch, sent)
        return
    # In turn: the pieces of the last time are deleted in front of these rows, in the same write of the changelog.
    turn = batch.memory[_TURN] = 1 - batch.memory[_TURN]
    packed = _pack(_Decided(rows=list(staged.writes.items()), sent=sent))
    keys = []
    for number, first in enumerate(range(0, len(packed), PIECE_BYTES)):
        key = f"{PREFIX}{turn}/{number:06}".encode()
        end = first + PIECE_BYTES
        batch.rows.put(key, (_MORE if end < len(packed) else _LAST) + packed[first:end])
        keys.append(key)
    put(batch, staged)
    yield
    for key in keys:
        batch.rows.delete(key)
    tell(batch, sent)


def _whole(pieces: list[tuple[bytes, bytes]]) -> _Decided | None:
    """What the pieces of one turn say, in the order of their keys; None if the crash came before the last of them was
    durable, or after the first of them was deleted."""
    for number, (key, value) in enumerate(pieces):
        if not key.endswith(b"/%06d" % number):
            return None
        if value.startswith(_LAST):
            return _unpack(b"".join(piece[1:] for _, piece in pieces[: number + 1]))
    return None


def put(batch: Batch, staged: Overlay) -> None:
    """Move what is in ``staged`` into the rows of ``batch``, in its order."""
    _apply(batch, staged.writes.items())
    staged.clear()


def tell(batch: Batch, sent: Iterable[Sent]) -> None:
    """Send records after the batch, or its slice."""
    for topic, key, value, trace in sent:
        batch.emit(topic, key=key, value=value, headers=traced(None, trace))


def _apply(batch: Batch, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
    for key, value in rows:
        if value is None:
            batch.rows.delete(key)
        else:
            batch.rows.put(key, value)
