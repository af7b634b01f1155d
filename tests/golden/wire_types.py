"""The dataclass of every schema, found by its name among the core's modules."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import streams.core


def wire_classes() -> dict[str, type]:
    """Simple name → dataclass, for every dataclass defined in streams.core."""
    found: dict[str, type] = {}
    for module in pkgutil.walk_packages(streams.core.__path__, "streams.core."):
        for name, item in vars(importlib.import_module(module.name)).items():
            if isinstance(item, type) and dataclasses.is_dataclass(item) and item.__module__ == module.name:
                found[name] = item
    return found
