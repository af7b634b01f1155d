"""Loads the calculations that the settings declare, and makes their event types known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

from streams.core.calculations import Calculation
from streams.core.catalogue import declare
from streams.core.errors import Misconfigured


def load(declared: Sequence[str]) -> Mapping[str, Calculation]:
    """Name → calculation, of ``package.module:NAME`` strings; NAME is a Calculation or several of them.

    Their event types are in the catalogue afterwards. Raises Misconfigured, naming the declaration that cannot be used.
    """
    found: dict[str, Calculation] = {}
    for declaration in dict.fromkeys(declared):
        for calculation in resolve(declaration):
            if calculation.name in found:
                raise Misconfigured(f"calculations {declaration!r}: the name {calculation.name!r} is used twice")
            found[calculation.name] = calculation
    declare(one for calculation in found.values() for one in calculation.event_types())
    return found


def resolve(declaration: str) -> list[Calculation]:
    """The calculations of one declaration."""
    module_name, _, name = declaration.partition(":")
    try:
        given = getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Misconfigured(
            f"calculations {declaration!r} cannot be loaded: {error}; write package.module:NAME"
        ) from error
    several = [given] if isinstance(given, Calculation) or not isinstance(given, Iterable) else list(given)
    if not all(isinstance(one, Calculation) for one in several):
        raise Misconfigured(
            f"calculations {declaration!r} must be a Calculation or several, not {type(given).__name__}"
        )
    return several


def own_types() -> None:
    """Before a command that speaks of event types: those of this deployment's calculations are known."""
    from streams.settings import Settings

    load(Settings().calculations)
