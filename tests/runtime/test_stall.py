"""A process that was stopped knows it, even before its own threads have run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from tests.support.kafka_io import wait_until

SCRIPT = """
import sys
from streams.kafka.stall import StallWatch
watch = StallWatch(limit_s=4.0)
print(watch.stalled, flush=True)
sys.stdin.readline()
print(watch.stalled, round(watch.longest_s, 1), flush=True)
sys.stdin.readline()
print(watch.stalled, flush=True)
"""


def stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] == "T"


def test_a_long_stop_is_noticed_for_ever_and_a_short_one_is_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    before = child.stdout.readline().split()
    child.send_signal(signal.SIGSTOP)
    wait_until(lambda: stopped(child.pid), "the child is stopped")
    # The one thing that cannot be had by waiting for a condition: time that passes while the child stands still.
    os.waitid(os.P_PIDFD, os.pidfd_open(subprocess.Popen(["sleep", "4.6"]).pid), os.WEXITED)
    child.send_signal(signal.SIGCONT)
    child.stdin.write("\n")
    child.stdin.flush()
    after = child.stdout.readline().split()
    child.stdin.write("\n")
    child.stdin.flush()
    later = child.stdout.readline().split()
    child.wait()

    assert before == ["False"]
    assert after[0] == "True"
    assert float(after[1]) >= 4.5
    assert later == ["True"]
