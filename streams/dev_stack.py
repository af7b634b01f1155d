"""Where the Kafka and registry of ``curfew dev`` live. Imports nothing: every command asks before it knows its work."""

from __future__ import annotations

import os
from pathlib import Path


def directory() -> Path:
    """``dev`` below ``$CURFEW_DATA_DIR``, else below ``.curfew`` of the current directory."""
    return Path(os.environ.get("CURFEW_DATA_DIR") or ".curfew") / "dev"
