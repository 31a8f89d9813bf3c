"""Revisions in one append-only table."""

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make the tables of version 1."""
    op.create_table(
        "revisions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("revision_id", sa.String, nullable=False, unique=True),
        sa.Column("rollout_id", sa.String, nullable=False),
        sa.Column("parent_revision_id", sa.String, sa.ForeignKey("revisions.revision_id")),
        sa.Column("author_kind", sa.String, nullable=False),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("body", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("revisions_of_rollout", "revisions", ["rollout_id", "author_kind", "number"])
    if op.get_bind().dialect.name == "sqlite":
        version = op.create_table("schema_version", sa.Column("version", sa.Integer, primary_key=True))
        op.bulk_insert(version, [{"version": 1}])
