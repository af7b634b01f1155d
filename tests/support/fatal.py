"""A fatal error of a real producer, raised by librdkafka itself, which offers that to tests."""

from __future__ import annotations

import ctypes
from pathlib import Path

from confluent_kafka import KafkaError, Producer


def fail_for_good(producer: Producer) -> None:
    """It can never send anything again, as if it had been fenced."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    library = next(line.split()[-1] for line in lines if "librdkafka" in line)
    fail = ctypes.CDLL(library).rd_kafka_test_fatal_error
    fail.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p]
    client = ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value  # the first field of its struct
    assert fail(client, KafkaError.INVALID_PRODUCER_EPOCH, b"a test") == 0
