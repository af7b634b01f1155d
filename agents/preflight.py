"""What `curfew up` looks at before it starts anything: afterwards only logs of workers would say what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from streams.topics import SUBSCRIPTIONS

if TYPE_CHECKING:
    from streams.core.subscriptions import Subscription
    from streams.settings import Settings
    from streams.sinks.secrets import Secrets


def missing(settings: Settings) -> list[str]:
    """Everything without which workers could not work, each with its remedy; empty when they can."""
    found = [*_kafka(settings), *_schemas(settings)]
    # where nothing will be started, nothing is migrated either
    return [*found, *billing_store(settings, migrate=not found)]


def revision(settings: Settings) -> str | None:
    """The newest migration of the billing store, None before the first; unlike a query it makes no SQLite file.

    Raises a CurfewError when the store does not answer.
    """
    from streams.sinks.billing import SqlBillingStore
    from streams.sinks.billing.engine import parse

    url = parse(settings.billing_store_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return None
    store = SqlBillingStore(settings.billing_store_url)
    try:
        return store.schema_revision()
    finally:
        store.dispose()


def subscriptions(settings: Settings) -> dict[str, Subscription]:
    """Those in force, by name."""
    from agents.configuration.records import read_records
    from streams.codec import Codec, Registry
    from streams.core.subscriptions import Subscription

    codec = Codec(Registry(settings.schema_registry_url))
    return read_records(settings, codec, SUBSCRIPTIONS, Subscription)


def unset_secrets(subscriptions: Mapping[str, Subscription], secrets: Secrets) -> list[str]:
    """A line for every secret that an active subscription names and this process cannot get; never its value."""
    from streams.sinks.secrets import SecretError

    found = []
    for name, one in sorted(subscriptions.items()):
        for reference in _references(one):
            try:
                secrets.resolve(reference)
            except SecretError as error:
                found.append(f"subscription {name}: nothing can be sent: {error}; then start again")
    return found


def _references(subscription: Subscription) -> Iterator[str]:
    if subscription.active and subscription.webhook is not None:
        yield subscription.webhook.secret_ref
        until = subscription.webhook.previous_until
        if subscription.webhook.previous_secret_ref is not None and (until is None or until > datetime.now(UTC)):
            yield subscription.webhook.previous_secret_ref


def _kafka(settings: Settings) -> Iterator[str]:
    from streams.core.errors import CurfewError
    from streams.kafka import admin as kafka_admin
    from streams.kafka.manifest import Manifest

    manifest = Manifest.load()
    try:
        found = kafka_admin.diff(manifest, kafka_admin.admin_client(kafka_admin.answering(settings.kafka())))
    except CurfewError as error:
        yield str(error)
        return
    if absent := [one.topic for one in found if isinstance(one, kafka_admin.Missing)]:
        yield f"{len(absent)} of {len(manifest.topics)} topics are not there: {_some(absent)}. Run: curfew topics apply"
    for one in found:
        if isinstance(one, kafka_admin.WrongPartitions) and one.topic in manifest.topics:
            yield f"{one.topic} {one}"


def _schemas(settings: Settings) -> Iterator[str]:
    from streams.codec import LocalSchemas, Registry
    from streams.core.errors import CurfewError
    from streams.kafka.manifest import Manifest

    schemas, registry = LocalSchemas(), Registry(settings.schema_registry_url)
    subjects = Manifest.load().subjects()
    try:
        absent = [one for one, name in subjects.items() if not registry.registered(one, schemas.newest(name).raw)]
    except CurfewError as error:
        yield str(error)
        return
    if absent:
        yield (
            f"{len(absent)} of {len(subjects)} subjects do not have our schema in the registry "
            f"{settings.schema_registry_url}: {_some(absent)}. Run: curfew schemas apply"
        )


def billing_store(settings: Settings, *, migrate: bool) -> Iterator[str]:
    """Why it cannot be used; with ``migrate`` its tables are brought up to date, as the first worker would do it."""
    from alembic.util.exc import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from streams.core.errors import CurfewError
    from streams.sinks.billing import SqlBillingStore

    try:
        before = revision(settings)
        if not migrate:
            return
        store = SqlBillingStore(settings.billing_store_url)
        try:
            store.migrate()
            after = store.schema_revision()
        finally:
            store.dispose()
        if before != after:
            print(f"billing store {store}: tables brought from revision {before or 'none'} to {after}", file=sys.stderr)
    except CommandError as error:  # a revision that this version of Curfew does not have
        yield f"the billing store's tables: {error}. Were they migrated by a newer Curfew? Then install that one here"
    except (CurfewError, SQLAlchemyError) as error:
        yield f"{str(error).splitlines()[0]}. Who may alter its tables runs: curfew billing migrate"


def _some(names: list[str], shown: int = 5) -> str:
    return ", ".join(sorted(names)[:shown]) + (", …" if len(names) > shown else "")
