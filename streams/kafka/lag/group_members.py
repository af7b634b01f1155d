"""Asks who is in which group, in a process of its own that may die.

This one question is put to a group's coordinator, and librdkafka (2.16 and before, its issue 4605) ends the whole
process by an assertion when the connection to a coordinator breaks meanwhile: with every second death of a broker, as
tried here. The child dies then, the members are unknown for one look, and the next look starts another child.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from select import select
from typing import Any, Final

from confluent_kafka import KafkaException

from streams.core.lag.report import Member
from streams.kafka.admin import admin_client

#: For the broker's answer; the child's own start takes a second on a busy machine.
TIMEOUT_S: Final = 15.0
START_S: Final = 15.0
READ_BYTES: Final = 1 << 20


class MemberReader:
    """Call :meth:`read` as often as you like, :meth:`close` last. The child ends with its parent in any case: it reads
    its questions from a pipe, and ends where that ends."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # callbacks cannot go to another process; what logs or counts errors here has no use there
        self._config = {name: value for name, value in config.items() if isinstance(value, str | int | float | bool)}
        self._child: subprocess.Popen[bytes] | None = None
        self.deaths = 0

    def read(self, groups: Iterable[str]) -> dict[str, tuple[Member, ...]]:
        """The members of these groups; groups that cannot be asked at the moment are left out, also all of them."""
        names = list(groups)
        if not names:
            return {}
        try:
            answer = self._ask(names)
        except (OSError, EOFError, ValueError):
            self.deaths += 1
            self.close()
            return {}
        return {
            group: tuple(
                Member(
                    member_id=one["member_id"],
                    client_id=one["client_id"],
                    host=one["host"],
                    places=frozenset((topic, number) for topic, number in one["places"]),
                )
                for one in found
            )
            for group, found in answer.items()
        }

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _ask(self, names: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Raises OSError or EOFError when the child is dead or silent, ValueError when it was cut off in the middle."""
        if self._child is None or self._child.poll() is not None:
            self._child = self._start()
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(names).encode() + b"\n")
        self._child.stdin.flush()
        pipe, line, until = self._child.stdout, b"", time.monotonic() + START_S + TIMEOUT_S
        while not line.endswith(b"\n"):
            if not select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the child that asks for members does not answer")
            read = pipe.read1(READ_BYTES)  # type: ignore[attr-defined]  # a pipe is a BufferedReader
            if not read:
                raise EOFError("the child that asks for members has ended")
            line += read
        return dict(json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "streams.kafka.lag.group_members"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent
        )
        assert child.stdin is not None
        # by the pipe and not by an argument: there may be a password in it, and arguments are for everybody to read
        child.stdin.write(json.dumps(self._config).encode() + b"\n")
        return child


def _answer(admin: Any, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name, future in admin.describe_consumer_groups(names, request_timeout=TIMEOUT_S).items():
        try:
            description = future.result()
        except KafkaException:
            continue
        found[name] = [
            {
                "member_id": one.member_id,
                "client_id": one.client_id,
                "host": one.host.lstrip("/"),
                "places": [(place.topic, place.partition) for place in one.assignment.topic_partitions],
            }
            for one in description.members
        ]
    return found


def main() -> None:
    """The child: a line with the client's settings, then one with names for every question."""
    admin = admin_client(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(_answer(admin, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
