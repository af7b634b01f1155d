"""Outcomes in two parts: memberships at once, options, product, fees and tasks near the deadline.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

INSTANT = sa.String(32).with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "second_part",
        sa.Column("change_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, comment="seal of the body, lower-case sha256"),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("service_id", sa.Text, nullable=False),
        sa.Column("effective_from", INSTANT, nullable=False, comment="the deadline"),
        sa.Column("due_at", INSTANT, nullable=False, comment="business time from which the rest may be written"),
        sa.Column("partition", sa.Integer, nullable=False, comment="whose ticks finish it"),
        sa.Column("held_from", INSTANT, comment="start of the membership that was ended; null = it ended by itself"),
        sa.Column("held_to", INSTANT, comment="and its end before that"),
        sa.Column(
            "state", sa.String(9), nullable=False, comment="waiting; then the answer, until it is durable in the topic"
        ),
        sa.Column("reason", sa.Text, comment="why it was refused"),
        sa.Column("body", sa.Text, nullable=False, comment="the Outcome, JSON"),
        sa.PrimaryKeyConstraint("change_id", name="pk_second_part"),
        sa.ForeignKeyConstraint(["service_id"], ["service_plan.service_id"], name="fk_second_part_service_plan"),
        sa.CheckConstraint("state IN ('waiting', 'persisted', 'refused')", name=op.f("ck_second_part_state")),
        comment="outcomes whose memberships are written in advance, and whose other rows are due later",
    )
    op.create_index("ix_second_part_partition", "second_part", ["partition", "due_at", "change_id"])
    op.create_index("ix_second_part_service_id", "second_part", ["service_id"])


def downgrade() -> None:
    op.drop_table("second_part")
