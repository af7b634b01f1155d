"""The billing store: plans, memberships and options with validity, settlements, outcomes, fees, tasks, fences.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
MONEY = sa.String(40).with_variant(sa.Numeric(38, 6), "postgresql")
MARK = sa.BigInteger().with_variant(sa.Integer, "sqlite")

# What must not overlap: (table, the columns that make it "the same thing").
EXCLUSIVE = [("membership", ["service_id"]), ("service_option", ["service_id", "option_id"])]


def upgrade() -> None:
    op.create_table(
        "service_plan",
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("rate_plan_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, comment="the newest published revision"),
        sa.Column("change_id", sa.Text, comment="the change that made this revision; null for an imported plan"),
        sa.PrimaryKeyConstraint("service_id", name="pk_service_plan"),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_service_plan_revision")),
        comment="the plan of a service as last published: what the world may see now",
    )
    op.create_table(
        "commit_mark",
        sa.Column("id", MARK, primary_key=True, autoincrement=True),
        sa.Column("committed_at", INSTANT, comment="read from the clock after COMMIT; null until it was read"),
        comment="one row per writing transaction, so that stamping 500 changes is one update",
    )
    op.create_table(
        "plan_revision",
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("change_id", sa.Text, comment="releasing a change twice gives this revision again"),
        sa.Column("mark_id", MARK, comment="null for an imported plan"),
        sa.Column("body", sa.Text, nullable=False, comment="the ServicePlanChange exactly as published, JSON"),
        sa.PrimaryKeyConstraint("service_id", "revision", name="pk_plan_revision"),
        sa.UniqueConstraint("change_id", name="uq_plan_revision_change_id"),
        sa.ForeignKeyConstraint(["service_id"], ["service_plan.service_id"], name="fk_plan_revision_service_plan"),
        sa.ForeignKeyConstraint(["mark_id"], ["commit_mark.id"], name="fk_plan_revision_commit_mark"),
        comment="the history of published plans; one row is one record of the topic billing.service-plan",
    )
    op.create_table(
        "membership",
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("valid_to", INSTANT, comment="exclusive; null = open"),
        sa.Column("rate_plan_id", sa.Text, nullable=False),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("change_id", sa.Text, comment="the change that created the row"),
        sa.Column("ended_by", sa.Text, comment="the change that ended it"),
        sa.PrimaryKeyConstraint("service_id", "valid_from", name="pk_membership"),
        sa.ForeignKeyConstraint(["service_id"], ["service_plan.service_id"], name="fk_membership_service_plan"),
        sa.CheckConstraint("valid_to > valid_from", name=op.f("ck_membership_validity")),
        comment="billing group members: which rate plan is true from when; never two at one instant",
    )
    op.create_table(
        "service_option",
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("option_id", sa.Text, nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("valid_to", INSTANT, comment="exclusive; null = open"),
        sa.Column("change_id", sa.Text),
        sa.Column("ended_by", sa.Text),
        sa.PrimaryKeyConstraint("service_id", "option_id", "valid_from", name="pk_service_option"),
        sa.ForeignKeyConstraint(["service_id"], ["service_plan.service_id"], name="fk_service_option_service_plan"),
        sa.CheckConstraint("valid_to > valid_from", name=op.f("ck_service_option_validity")),
        comment="service options with validity; never the same option twice at one instant",
    )
    op.create_table(
        "settlement",
        sa.Column("change_id", sa.Text, nullable=False),
        sa.Column("deadline", INSTANT, nullable=False, comment="a rolled change has one settlement per deadline"),
        sa.Column("decision", sa.String(9), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("mark_id", MARK, nullable=False),
        sa.Column("accept_late", sa.Boolean, nullable=False, comment="a missed change may still be written, late"),
        sa.PrimaryKeyConstraint("change_id", "deadline", name="pk_settlement"),
        sa.ForeignKeyConstraint(["mark_id"], ["commit_mark.id"], name="fk_settlement_commit_mark"),
        sa.CheckConstraint("decision IN ('persisted', 'missed')", name=op.f("ck_settlement_decision")),
        comment="whether a change met its deadline, decided once by whoever inserts first",
    )
    op.create_table(
        "outcome",
        sa.Column("change_id", sa.Text, nullable=False, comment="at most one persisted outcome per change"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, comment="seal of the body, lower-case sha256"),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("from_rate_plan_id", sa.Text, nullable=False),
        sa.Column("to_rate_plan_id", sa.Text, nullable=False),
        sa.Column("effective_from", INSTANT, nullable=False),
        sa.Column("silent", sa.Boolean, nullable=False),
        sa.Column("mark_id", MARK, nullable=False),
        sa.Column("body", sa.Text, nullable=False, comment="the Outcome, JSON: proves the hash, makes the release"),
        sa.PrimaryKeyConstraint("change_id", name="pk_outcome"),
        sa.ForeignKeyConstraint(["service_id"], ["service_plan.service_id"], name="fk_outcome_service_plan"),
        sa.ForeignKeyConstraint(["mark_id"], ["commit_mark.id"], name="fk_outcome_commit_mark"),
        comment="sealed outcomes of rate plan changes that were persisted",
    )
    op.create_index("ix_outcome_service_id", "outcome", ["service_id"])
    op.create_table(
        "fee",
        sa.Column("change_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("charged_at", INSTANT, nullable=False, comment="the instant the change takes effect"),
        sa.PrimaryKeyConstraint("change_id", "position", name="pk_fee"),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_fee_currency")),
        sa.ForeignKeyConstraint(["change_id"], ["outcome.change_id"], name="fk_fee_outcome"),
        comment="one-time fees of a change, in the order of the outcome",
    )
    op.create_table(
        "task",
        sa.Column("change_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("release", sa.Text, nullable=False, comment="now, persisted or effective"),
        sa.Column("details", sa.Text, nullable=False, comment="JSON object of texts"),
        sa.PrimaryKeyConstraint("change_id", "position", name="pk_task"),
        sa.ForeignKeyConstraint(["change_id"], ["outcome.change_id"], name="fk_task_outcome"),
        comment="provisioning and communication asked for by hooks, in the order of the outcome",
    )
    op.create_table(
        "fence",
        sa.Column("group", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column(
            "epoch", sa.BigInteger, nullable=False, comment="the newest writer; an older one's transaction fails"
        ),
        sa.PrimaryKeyConstraint("group", "partition", name="pk_fence"),
        comment="who may write for a partition of a consumer group",
    )
    if op.get_bind().dialect.name == "postgresql":
        _forbid_overlaps_postgresql()
    else:
        _forbid_overlaps_sqlite()


def _forbid_overlaps_postgresql() -> None:
    # A trusted extension since PostgreSQL 13: the owner of the database may create it.
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gist")
    for table, same in EXCLUSIVE:
        columns = ", ".join(f"{column} WITH =" for column in same)
        op.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_no_overlap "
            f"EXCLUDE USING gist ({columns}, tstzrange(valid_from, valid_to) WITH &&)"
        )


def _forbid_overlaps_sqlite() -> None:
    for table, same in EXCLUSIVE:
        equal = " AND ".join(f"other.{column} = NEW.{column}" for column in same)
        overlap = (
            f"SELECT 1 FROM {table} AS other WHERE {equal} "
            "AND (NEW.valid_to IS NULL OR other.valid_from < NEW.valid_to) "
            "AND (other.valid_to IS NULL OR other.valid_to > NEW.valid_from)"
        )
        # AFTER the row is there, so an update is not compared with what it replaces; the row itself is left out.
        for verb in ("INSERT", "UPDATE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_overlap_{verb.lower()} AFTER {verb} ON {table} "
                f"WHEN EXISTS ({overlap} AND other.rowid <> NEW.rowid) "
                f"BEGIN SELECT RAISE(ABORT, '{table}_no_overlap'); END"
            )


def downgrade() -> None:
    for table in ("fence", "task", "fee", "outcome", "settlement", "service_option", "membership"):
        op.drop_table(table)
    for table in ("plan_revision", "commit_mark", "service_plan"):
        op.drop_table(table)
