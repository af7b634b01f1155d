"""The embedded stack: a real Kafka and a real schema registry from a Python install.

Java comes as a wheel, jars come by Maven coordinates with checksums pinned in this package; neither Docker nor Java is
needed on the machine. `Stack` owns the processes (tests, demo), `daemon` detaches them (`curfew dev start`).
"""

from agents.embedded.errors import StackError
from agents.embedded.java import run_kafka_tool
from agents.embedded.stack import DEFAULT_KAFKA_VERSION, Stack, StackAddress, StackConfig

__all__ = ["DEFAULT_KAFKA_VERSION", "Stack", "StackAddress", "StackConfig", "StackError", "run_kafka_tool"]
