"""Blind votes on captions, and which of them were taken back; neither can be changed."""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"

_KEPT = ("votes", "vote_withdrawals")


def upgrade() -> None:
    """Add the tables of version 3."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    words = [
        sa.Column(name, sa.String, nullable=False)
        for name in (
            "voter",
            "prompt_set",
            "prompt_id",
            *("first", "first_hash", "first_text"),
            *("second", "second_hash", "second_text"),
            "left",
            "outcome",
            "note",
            "created_at",
        )
    ]
    op.create_table(
        "votes",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("vote_id", sa.String, nullable=False, unique=True),
        *words,
        sqlite_autoincrement=True,
    )
    op.create_index("votes_of_pair", "votes", ["prompt_set", "first", "second", "voter", "prompt_id"])
    op.create_table(
        "vote_withdrawals",
        sa.Column("number", number, primary_key=True, autoincrement=True),
        sa.Column("vote_id", sa.String, sa.ForeignKey("votes.vote_id"), nullable=False, unique=True),
        sa.Column("created_at", sa.String, nullable=False),
        sqlite_autoincrement=True,
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for table in _KEPT:
        if not on_sqlite:  # the function is from version 2
            op.execute(
                f"CREATE TRIGGER {table}_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
                " FOR EACH STATEMENT EXECUTE FUNCTION opadpo_refuse()"
            )
            continue
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_refuse_{event.lower()} BEFORE {event} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
            )
