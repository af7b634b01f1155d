"""Tables of the billing store, in SQLAlchemy Core, for SQLite and PostgreSQL alike.

::

    service_plan ──< membership          what a service has, each row with its validity
         │      └──< service_option
         └────────< plan_revision        every published revision of the plan, as it was published
    commit_mark ──< settlement           persisted or missed: one row per change and deadline, never altered
         └────────< outcome ──< fee      at most one persisted outcome per change, with the sealed body
                       └──────< task
    service_plan ──< second_part         memberships are written, options, product, fees and tasks are still to come
    fence                                who may write for a partition

The constraints that need the database's own words (no overlap) are in the migrations, which are the truth;
:data:`metadata` is what the statements are compiled from, and a test proves that both agree.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine


@lru_cache(maxsize=4_096)  # the rows of a night share a few dozen instants
def instant_text(value: datetime | None) -> str | None:
    """An aware instant as SQLite keeps it: UTC, fixed width, so that texts sort as instants do."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise ValueError(f"the instant {value} has no time zone; give an aware datetime")
    return value.astimezone(UTC).isoformat(timespec="microseconds")


_instant = lru_cache(maxsize=4_096)(datetime.fromisoformat)


def money_text(value: Decimal | None) -> str | None:
    """An amount as SQLite keeps it: plain digits, never an exponent."""
    return None if value is None else f"{value:f}"


class Instant(TypeDecorator[datetime]):
    """An aware instant, in UTC: ``timestamptz`` on PostgreSQL, fixed-width ISO text on SQLite (so it sorts as time)."""

    impl = String(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native = dialect.name == "postgresql"
        return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True) if native else String(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else instant_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.astimezone(UTC) if isinstance(value, datetime) else _instant(value)


class Money(TypeDecorator[Decimal]):
    """Decimal(38, 6); text on SQLite, which has no decimals and would round through a float."""

    impl = String(40)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Numeric(38, 6) if dialect.name == "postgresql" else String(40))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else money_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


#: SQLite numbers rows by itself only for a column declared exactly INTEGER PRIMARY KEY.
MarkId = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

service_plan = Table(
    "service_plan",
    metadata,
    Column("service_id", Text, primary_key=True),
    Column("account_id", Text, nullable=False),
    Column("product_id", Text, nullable=False),
    Column("rate_plan_id", Text, nullable=False),
    Column("revision", Integer, nullable=False, comment="the newest published revision"),
    Column("change_id", Text, comment="the change that made this revision; null for an imported plan"),
    CheckConstraint("revision >= 1", name="revision"),
    comment="the plan of a service as last published: what the world may see now",
)

plan_revision = Table(
    "plan_revision",
    metadata,
    Column("service_id", Text, ForeignKey("service_plan.service_id"), primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("change_id", Text, unique=True, comment="releasing a change twice gives this revision again"),
    Column("mark_id", MarkId, ForeignKey("commit_mark.id"), comment="null for an imported plan"),
    Column("body", Text, nullable=False, comment="the ServicePlanChange exactly as published, JSON"),
    comment="the history of published plans; one row is one record of the topic billing.service-plan",
)

membership = Table(
    "membership",
    metadata,
    # A service is in one rate plan at a time, so (service, start) names a row.
    Column("service_id", Text, ForeignKey("service_plan.service_id"), primary_key=True),
    Column("valid_from", Instant, primary_key=True),
    Column("valid_to", Instant, comment="exclusive; null = open"),
    Column("rate_plan_id", Text, nullable=False),
    Column("product_id", Text, nullable=False),
    Column("change_id", Text, comment="the change that created the row"),
    Column("ended_by", Text, comment="the change that ended it"),
    CheckConstraint("valid_to > valid_from", name="validity"),
    comment="billing group members: which rate plan is true from when; never two at one instant",
)

service_option = Table(
    "service_option",
    metadata,
    Column("service_id", Text, ForeignKey("service_plan.service_id"), primary_key=True),
    Column("option_id", Text, primary_key=True),
    Column("valid_from", Instant, primary_key=True),
    Column("valid_to", Instant, comment="exclusive; null = open"),
    Column("change_id", Text),
    Column("ended_by", Text),
    CheckConstraint("valid_to > valid_from", name="validity"),
    comment="service options with validity; never the same option twice at one instant",
)

commit_mark = Table(
    "commit_mark",
    metadata,
    Column("id", MarkId, primary_key=True, autoincrement=True),
    Column("committed_at", Instant, comment="read from the clock after COMMIT; null until it was read"),
    comment="one row per writing transaction, so that stamping 500 changes is one update",
)

settlement = Table(
    "settlement",
    metadata,
    Column("change_id", Text, primary_key=True),
    Column("deadline", Instant, primary_key=True, comment="a rolled change has one settlement per deadline"),
    Column("decision", String(9), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("service_id", Text, nullable=False),
    Column("mark_id", MarkId, ForeignKey("commit_mark.id"), nullable=False),
    Column("accept_late", Boolean, nullable=False, comment="a missed change may still be written, late"),
    CheckConstraint("decision IN ('persisted', 'missed')", name="decision"),
    comment="whether a change met its deadline, decided once by whoever inserts first",
)

outcome = Table(
    "outcome",
    metadata,
    Column("change_id", Text, primary_key=True, comment="at most one persisted outcome per change"),
    Column("revision", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False, comment="seal of the body, lower-case sha256"),
    Column("account_id", Text, nullable=False),
    Column("service_id", Text, ForeignKey("service_plan.service_id"), nullable=False),
    Column("from_rate_plan_id", Text, nullable=False),
    Column("to_rate_plan_id", Text, nullable=False),
    Column("effective_from", Instant, nullable=False),
    Column("silent", Boolean, nullable=False),
    Column("mark_id", MarkId, ForeignKey("commit_mark.id"), nullable=False),
    Column("body", Text, nullable=False, comment="the Outcome, JSON: proves the hash, makes the release"),
    Index("ix_outcome_service_id", "service_id"),
    comment="sealed outcomes of rate plan changes that were persisted",
)

fee = Table(
    "fee",
    metadata,
    Column("change_id", Text, ForeignKey("outcome.change_id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("service_id", Text, nullable=False),
    Column("account_id", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("amount", Money, nullable=False),
    Column("currency", Text, nullable=False),
    Column("charged_at", Instant, nullable=False, comment="the instant the change takes effect"),
    CheckConstraint("length(currency) = 3", name="currency"),
    comment="one-time fees of a change, in the order of the outcome",
)

task = Table(
    "task",
    metadata,
    Column("change_id", Text, ForeignKey("outcome.change_id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("release", Text, nullable=False, comment="now, persisted or effective"),
    Column("details", Text, nullable=False, comment="JSON object of texts"),
    comment="provisioning and communication asked for by hooks, in the order of the outcome",
)

second_part = Table(
    "second_part",
    metadata,
    Column("change_id", Text, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False, comment="seal of the body, lower-case sha256"),
    Column("account_id", Text, nullable=False),
    Column("service_id", Text, ForeignKey("service_plan.service_id"), nullable=False),
    Column("effective_from", Instant, nullable=False, comment="the deadline"),
    Column("due_at", Instant, nullable=False, comment="business time from which the rest may be written"),
    Column("partition", Integer, nullable=False, comment="whose ticks finish it"),
    Column("held_from", Instant, comment="start of the membership that was ended; null = it ended by itself"),
    Column("held_to", Instant, comment="and its end before that"),
    Column("state", String(9), nullable=False, comment="waiting; then the answer, until it is durable in the topic"),
    Column("reason", Text, comment="why it was refused"),
    Column("body", Text, nullable=False, comment="the Outcome, JSON"),
    CheckConstraint("state IN ('waiting', 'persisted', 'refused')", name="state"),
    Index("ix_second_part_partition", "partition", "due_at", "change_id"),
    Index("ix_second_part_service_id", "service_id"),
    comment="outcomes whose memberships are written in advance, and whose other rows are due later",
)

fence = Table(
    "fence",
    metadata,
    Column("group", Text, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False, comment="the newest writer; an older one's transaction fails"),
    comment="who may write for a partition of a consumer group",
)

__all__ = [
    "Instant",
    "Money",
    "commit_mark",
    "fee",
    "fence",
    "membership",
    "metadata",
    "outcome",
    "plan_revision",
    "second_part",
    "service_option",
    "service_plan",
    "settlement",
    "task",
]
