"""What `curfew doctor` asks beside Kafka: registry, billing store, secrets."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.script import ScriptDirectory
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from agents import preflight
from agents.doctor.checks import Finding, Status
from streams.codec import LocalSchemas, Registry
from streams.core.errors import Transient
from streams.kafka.manifest import Manifest
from streams.settings import Settings
from streams.sinks.billing.migrate import SCRIPTS
from streams.sinks.secrets import SecretError, Secrets


def registry(settings: Settings) -> Iterator[Finding]:
    """Does it answer."""
    subjects = Registry(settings.schema_registry_url).subjects()
    where = f"{settings.schema_registry_url} has {len(subjects)} subjects"
    yield Finding(check="registry", status=Status.OK, finding=where)


def schemas(settings: Settings) -> Iterator[Finding]:
    """Has it our schema of every topic."""
    local, there = LocalSchemas(), Registry(settings.schema_registry_url)
    subjects = Manifest.load().subjects()
    absent = [one for one, name in subjects.items() if not there.registered(one, local.newest(name).raw)]
    if absent:
        shown = ", ".join(sorted(absent)[:5]) + (", …" if len(absent) > 5 else "")
        yield Finding(
            check="schemas", status=Status.FAULT, remedy="curfew schemas apply",
            finding=f"{len(absent)} of {len(subjects)} subjects do not have our schema: {shown}",
        )  # fmt: skip
    else:
        yield Finding(check="schemas", status=Status.OK, finding=f"{len(subjects)} subjects have ours")


def database(settings: Settings) -> Iterator[Finding]:
    """Does the billing store answer, and are its tables those of this version."""
    url = settings.billing_store_url
    where = make_url(url).render_as_string(hide_password=True)
    known = [one.revision for one in ScriptDirectory(str(SCRIPTS)).walk_revisions()]  # the newest first
    try:
        found = preflight.revision(settings)
    except SQLAlchemyError as error:
        raise Transient(f"{where}: {str(error).splitlines()[0]}; is it up, and database_url right?") from error
    if found == known[0]:
        yield Finding(check="database", status=Status.OK, finding=f"{where}: tables at {found}, the newest")
    elif found is None:
        yield Finding(
            check="database", status=Status.NOTE, finding=f"{where}: no tables yet",
            remedy="curfew up makes them, or curfew billing migrate",
        )  # fmt: skip
    elif found in known:
        yield Finding(
            check="database", status=Status.FAULT, finding=f"{where}: tables at {found}, should be {known[0]}",
            remedy="curfew billing migrate",
        )  # fmt: skip
    else:
        yield Finding(
            check="database", status=Status.FAULT, remedy="install that version here",
            finding=f"{where}: tables at {found}, which this Curfew does not know: a newer one has migrated them",
        )  # fmt: skip


def secrets(settings: Settings) -> Iterator[Finding]:
    """Can this process get every secret that a subscription or the watchdog names."""
    resolver = Secrets(settings.webhook_secrets)
    subscriptions = preflight.subscriptions(settings)
    found = preflight.unset_secrets(subscriptions, resolver)
    if settings.watchdog_webhook_url is not None:
        try:
            resolver.resolve(settings.watchdog_webhook_secret)
        except SecretError as error:
            found.append(f"watchdog: no notice can be sent: {error}; then start again")
    for line in found:
        what, _, remedy = line.partition(": nothing can be sent: ")
        yield Finding(
            check="secrets", status=Status.FAULT, finding=f"{what}: nothing can be sent" if remedy else what,
            remedy=remedy or "set it where the watchdog runs",
        )  # fmt: skip
    if not found:
        where = "are set in this process; workers elsewhere have their own"
        yield Finding(check="secrets", status=Status.OK, finding=f"those of {len(subscriptions)} subscriptions {where}")
