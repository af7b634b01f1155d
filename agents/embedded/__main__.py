"""The supervisor process: `python -m agents.embedded <configuration as JSON>`; `curfew dev start` runs it."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from agents.embedded import daemon


def log(line: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(daemon.supervise(daemon.decode(sys.argv[1]), log))
