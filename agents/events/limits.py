"""How large a record may be that is taken over into rows and events."""

from __future__ import annotations

from streams.codec.rows import encode_row
from streams.core.errors import Poison
from streams.core.rows import Kind, ObjectRow
from streams.kafka.chunks import Record
from streams.kafka.store import MAX_ROW_BYTES

#: A record is copied into a row and into events, which hold previous and current state and parameters of it. One that
#: is larger would make outputs over Kafka's 1 MiB: the worker could not write them and would never get past it.
MAX_RECORD_BYTES = 256 * 1024
#: What waits for its time keeps the invoice as it was, once for each rule, all in one row: thirty of these fit.
MAX_INVOICE_BYTES = 32 * 1024
#: Rows spell out the names of fields, which Avro leaves out: one of many short entries is many times its record, and a
#: row that is refused at the end of a chunk would stop the worker. Under this size no record makes too large a row.
SURELY_SMALL_BYTES = 16 * 1024


def check_size(record: Record, kind: Kind | None = None) -> None:
    """Raise Poison (``too_large``) for a record, a change of this kind of object, that this worker does not take over
    into its rows."""
    size, most = len(record.value or b""), MAX_INVOICE_BYTES if kind is Kind.INVOICE else MAX_RECORD_BYTES
    if size > most:
        raise Poison("too_large", f"{size} bytes, at most {most}: send large contents as a reference")


def check_row_size(record: Record, key: bytes, row: ObjectRow[object]) -> None:
    if len(record.value or b"") > SURELY_SMALL_BYTES and (size := len(encode_row(row))) > MAX_ROW_BYTES:
        raise Poison(
            "too_large", f"{size} bytes in row {key!r}, at most {MAX_ROW_BYTES}: the object has too many parts"
        )
