"""Our schemas against the registry's: what is new, what fits, what does not and why; and registering what fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from streams.codec.compat import field_differences
from streams.codec.registry import COMPATIBILITY, Registry
from streams.codec.schemas import LocalSchemas
from streams.core.errors import Misconfigured


class Standing(StrEnum):
    """How our newest version of a subject stands to the registry."""

    NEW = "new"
    UNCHANGED = "unchanged"
    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One subject; ``reasons`` name fields, and are empty unless it is incompatible."""

    subject: str
    schema: str
    version: int
    standing: Standing
    reasons: tuple[str, ...] = ()


def check(registry: Registry, subject: str, name: str, schemas: LocalSchemas) -> Finding:
    """Compare our newest version of ``name`` with all that the registry has; raises Transient when it is down."""
    newest = schemas.newest(name)

    def finding(standing: Standing, reasons: tuple[str, ...] = ()) -> Finding:
        return Finding(subject=subject, schema=name, version=newest.version, standing=standing, reasons=reasons)

    if registry.registered(subject, newest.raw):
        return finding(Standing.UNCHANGED)
    known = registry.versions(subject)
    if not known:
        return finding(Standing.NEW)
    ours = [f"version {i}: {text}" for i, old in enumerate(known, 1) for text in field_differences(old, newest.raw)]
    theirs = registry.incompatibilities(subject, newest.raw)
    if ours or theirs:
        return finding(Standing.INCOMPATIBLE, (*ours, *(f"registry: {text}" for text in theirs)))
    return finding(Standing.COMPATIBLE)


def check_all(registry: Registry, subjects: Mapping[str, str], schemas: LocalSchemas) -> list[Finding]:
    """``check`` for every subject → schema name."""
    return [check(registry, subject, name, schemas) for subject, name in subjects.items()]


def register(registry: Registry, findings: Sequence[Finding], schemas: LocalSchemas) -> None:
    """Register every version of ours, oldest first; what was registered before stays as it is.

    Raises Misconfigured, naming fields, before anything is registered when one subject is incompatible.
    """
    wrong = [one for one in findings if one.standing is Standing.INCOMPATIBLE]
    if wrong:
        raise Misconfigured(
            "nothing was registered: "
            + "; ".join(f"{one.subject} does not follow its versions ({', '.join(one.reasons)})" for one in wrong)
        )
    for one in findings:
        if registry.compatibility(one.subject) != COMPATIBILITY:
            registry.set_compatibility(one.subject)
        if one.standing is not Standing.UNCHANGED:
            for version in schemas.versions(one.schema):
                if not registry.registered(one.subject, version.raw):
                    registry.register(one.subject, version.raw)


def register_all(registry: Registry, subjects: Mapping[str, str], schemas: LocalSchemas | None = None) -> list[Finding]:
    """Check, then register; returns how each subject stood before. Raises as ``register`` does."""
    schemas = schemas or LocalSchemas()
    findings = check_all(registry, subjects, schemas)
    register(registry, findings, schemas)
    return findings
