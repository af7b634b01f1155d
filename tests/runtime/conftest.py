"""The same flows as the fault suite."""

from tests.faults.conftest import flow, private_flow

__all__ = ["flow", "private_flow"]
