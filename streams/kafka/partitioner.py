"""Which partition a key belongs to: murmur2, exactly as Kafka's Java client does it.

Records of one account must meet in one partition whoever produced them. librdkafka's own default hash (CRC32) is a
different one, so every producer of ours says ``partitioner=murmur2_random``, and this pure function says the same for
checks, for tools and for tests.
"""

from __future__ import annotations

PARTITIONER = "murmur2_random"  # the librdkafka setting; with any other one joins break without an error

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash of ``org.apache.kafka.common.utils.Utils.murmur2``, as an unsigned number."""
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes | str, partitions: int) -> int:
    """The partition of a record with this key in a topic of ``partitions`` partitions."""
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % partitions
