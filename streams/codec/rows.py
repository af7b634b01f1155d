"""Rows of the store ⇄ dataclasses, as MessagePack: private to one app, so no schema travels with them.

A field may be added to a row's dataclass if it has a default; other changes need a rebuild of the store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from streams.core.errors import Fatal
from streams.core.rows import ObjectRow

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


def encode_row(row: object) -> bytes:
    """A dataclass as MessagePack; decimals as text, instants with their nanoseconds."""
    return _encoder.encode(row)


def row_decoder(cls: type[T]) -> Callable[[bytes], T]:
    """A bound decoder for rows of ``cls``; it raises Fatal for a row that is none, since only we write them."""
    decode_row = msgspec.msgpack.Decoder(cls).decode

    def decode(raw: bytes) -> T:
        try:
            return decode_row(raw)
        except msgspec.DecodeError as error:
            raise Fatal(f"a row of the store is no {cls}: {error}; rebuild the store from its changelog") from error

    return decode


def object_row_decoder(cls: type[T]) -> Callable[[bytes], ObjectRow[T]]:
    """A decoder for :class:`ObjectRow` of this kind of object."""
    row: Any = ObjectRow[cls]  # type: ignore[valid-type]  # the class is only known at run time
    return row_decoder(row)
