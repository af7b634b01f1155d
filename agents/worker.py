"""Puts workers together: which agents run in which app, and what they get of the outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import structlog

from agents import usage
from agents.calculations import declarations
from agents.delivery import dispatch, units
from agents.events import engine
from agents.plan_changes import execution, hooks, orders, persistence, scheduler
from agents.sources import rows
from agents.sources.feeds import SourceFeeds
from streams.codec import Codec, Registry, wait_for_registry
from streams.core.clock import Tick
from streams.core.errors import Misconfigured
from streams.core.event_rules import EventRule
from streams.core.hooks import HookRegistry
from streams.core.objects import BillRunChange, Product, RatePlan
from streams.core.plan_change.matrix import MatrixElement
from streams.core.routing import Route
from streams.core.sources import DataSource, SourceRow
from streams.core.subscriptions import Subscription
from streams.kafka.catalogue import Catalogue, Source, patiently
from streams.kafka.live_queues import LiveQueues
from streams.kafka.manifest import Manifest
from streams.kafka.runtime import Runtime
from streams.settings import Settings
from streams.sinks.billing import BillingStore, SqlBillingStore
from streams.topics import EVENT_RULES, MATRIX_ELEMENTS, PLAN_CONTEXTS, ROUTES, SHARED, SOURCES, SUBSCRIPTIONS

#: A registry that is down at the start is waited for this long; then the supervisor starts the worker anew.
REGISTRY_TIMEOUT_S = 3600.0

log = structlog.get_logger(__name__)


class WallClock:
    """The machine's clock, for what must not follow business time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """What the agents of a worker get; a worker opens only what its agents ask for."""

    codec: Codec
    catalogue: Catalogue
    queues: LiveQueues
    partitions: int
    hooks: HookRegistry
    usage_retention: timedelta
    clock: WallClock = field(default_factory=WallClock)
    store: BillingStore | None = None

    @property
    def billing_store(self) -> BillingStore:
        if self.store is None:
            raise Misconfigured("this worker was built without a billing store")
        return self.store


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One kind of worker: its agents, and the kinds of catalogue objects that they look up."""

    about: str
    attach: tuple[Callable[[Runtime, Any], None], ...]
    catalogue: tuple[str, ...] = ()
    billing_store: bool = False


WORKERS = {
    "events": Worker(
        about="object changes, findings and time → events in queues; checks plan change requests against the account",
        attach=(engine.attach, orders.attach, rows.attach),
        catalogue=("product", "rate_plan", "bill_run", "route", "subscription", "event_rule", "source", "source_row"),
    ),
    "plan-changes": Worker(
        about="decides, starts, closes and releases rate plan changes",
        attach=(scheduler.attach,),
        catalogue=("matrix_element",),
    ),
    "usage": Worker(
        about="decides about dormant SIMs, buckets that are used up and commitments that are not met",
        attach=(usage.attach,),
        catalogue=("event_rule",),
    ),
    "execution": Worker(about="runs hooks and core logic, seals outcomes", attach=(execution.attach,)),
    "persistence": Worker(
        about="writes sealed outcomes into the billing store", attach=(persistence.attach,), billing_store=True
    ),
    "delivery": Worker(
        about="keeps what subscribers still have to get", attach=(units.attach,), catalogue=("subscription",)
    ),
    "dispatch": Worker(about="sends webhooks and forwards", attach=(dispatch.attach,), catalogue=("subscription",)),
    "sources": Worker(
        about="brings rows of data sources from their own topics", attach=(), catalogue=("source",)
    ),  # no Faust app: its topics change while it runs
}


class Runs(Protocol):
    """What :func:`build` makes."""

    def run(self) -> int:
        """Until SIGTERM or SIGINT; returns the exit code."""
        ...


def build(
    settings: Settings,
    name: str,
    *,
    instance: str = "1",
    health_port: int | None = None,
    codec: Codec | None = None,
    group: str | None = None,
    changelog: str | None = None,
) -> Runs:
    """A worker, ready to run; waits for registry and broker. Raises Misconfigured with the remedy.

    For benches, which run many of them: another ``group``, another ``changelog``, a ``codec`` without a registry.
    """
    worker = WORKERS.get(name)
    if worker is None:
        raise Misconfigured(f"no worker called {name!r}; there are: {', '.join(WORKERS)}")
    declarations.load(settings.calculations)  # routes and subscriptions may name their event types
    manifest = Manifest.load()
    codec = codec or _registry_codec(settings)
    catalogue = Catalogue(settings.kafka(), [_source(kind, codec) for kind in worker.catalogue])
    if worker.catalogue:
        patiently(catalogue.start)
    if not worker.attach:
        return SourceFeeds(settings, codec, catalogue, instance=instance, health_port=health_port)
    store = None
    if worker.billing_store:
        store = SqlBillingStore(settings.billing_store_url, settings.sqlite_cache_mib)
        patiently(store.migrate)
    runtime = Runtime(
        settings,
        name,
        instance=instance,
        read_tick=partial(codec.decode, cls=Tick),
        stateful=manifest.groups[name].store,
        health_port=health_port,
        group=group,
        changelog=changelog,
    )
    ports = Ports(
        codec=codec,
        catalogue=catalogue,
        queues=LiveQueues(settings, manifest),
        partitions=manifest.topics[PLAN_CONTEXTS].partitions,
        hooks=hooks.load(settings.hooks),
        usage_retention=timedelta(days=settings.usage_retention_days),
        store=store,
    )
    for attach in worker.attach:
        attach(runtime, ports)
    return runtime


def _registry_codec(settings: Settings) -> Codec:
    registry = Registry(settings.schema_registry_url)
    wait_for_registry(registry, REGISTRY_TIMEOUT_S, lambda text: log.warning("worker.waits_for_registry", what=text))
    return Codec(registry)


#: What a worker looks up → where it is read from, and what it is.
CATALOGUE: dict[str, tuple[str, Any]] = {
    "product": ("catalog.product", Product),
    "rate_plan": ("catalog.rate-plan", RatePlan),
    "bill_run": ("billing.bill-run", BillRunChange),
    "matrix_element": (MATRIX_ELEMENTS, MatrixElement),
    "route": (ROUTES, Route),
    "event_rule": (EVENT_RULES, EventRule),
    "subscription": (SUBSCRIPTIONS, Subscription),
    "source": (SOURCES, DataSource),
    "source_row": (SHARED, SourceRow),
}


def _source(kind: str, codec: Codec) -> Source:
    topic, cls = CATALOGUE[kind]
    read: Callable[[bytes], Any] = codec.decoder(cls)
    if cls is BillRunChange:
        return Source(kind=kind, topic=topic, decode=lambda value: read(value).current)
    return Source(kind=kind, topic=topic, decode=read)
