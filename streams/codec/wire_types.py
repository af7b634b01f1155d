"""The dataclass of every schema, found by its name among the core's modules."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from functools import cache

import streams.core


@cache
def wire_classes() -> dict[str, type]:
    """Simple name → dataclass, for every dataclass defined in streams.core."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(streams.core.__path__, "streams.core."):
        for name, item in vars(importlib.import_module(module.name)).items():
            if isinstance(item, type) and dataclasses.is_dataclass(item) and item.__module__ == module.name:
                found[name] = item
    return found


def wire_class(schema: str) -> type:
    """The dataclass that workers read a schema with: ``curfew.billing.AccountChange`` is ``AccountChange``."""
    return wire_classes()[schema.rpartition(".")[2]]
