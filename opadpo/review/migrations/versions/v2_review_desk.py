"""What people at the review desk do: withdrawals, drafts, claims, places; nothing of the past can be changed."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"

_KEPT = ("revisions", "withdrawals")


def upgrade() -> None:
    """Add the tables of version 2, and triggers that refuse any change of what was appended."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "withdrawals",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("revision_id", sa.String, sa.ForeignKey("revisions.revision_id"), nullable=False, unique=True),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("created_at", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("revisions_of_author", "revisions", ["author", "author_kind", "number"])
    op.create_table(
        "drafts",
        sa.Column("reviewer", sa.String, primary_key=True),
        sa.Column("rollout_id", sa.String, primary_key=True),
        sa.Column("base_revision_id", sa.String),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.String, nullable=False),
        sa.Column("body", sa.JSON(none_as_null=True)),
    )
    op.create_index("drafts_of_rollout", "drafts", ["rollout_id"])
    op.create_table(
        "claims",
        sa.Column("rollout_id", sa.String, primary_key=True),
        sa.Column("reviewer", sa.String, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
    )
    op.create_table(
        "skips",
        sa.Column("reviewer", sa.String, primary_key=True),
        sa.Column("rollout_id", sa.String, primary_key=True),
        sa.Column("skipped_at", sa.Double, nullable=False),
    )
    _refuse_changes()


def _refuse_changes() -> None:
    if op.get_bind().dialect.name == "sqlite":
        # Programs of version 1 know this table only, and refuse a file with a number above their own.
        op.execute("UPDATE schema_version SET version = 2")
        for table in _KEPT:
            for event in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_refuse_{event.lower()} BEFORE {event} ON {table}"
                    f" BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION opadpo_refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME; END $$"
    )
    for table in _KEPT:
        op.execute(
            f"CREATE TRIGGER {table}_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION opadpo_refuse()"
        )
