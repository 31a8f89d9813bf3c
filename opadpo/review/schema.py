"""The tables of the review store, as the newest migration leaves them."""

from sqlalchemy import JSON, BigInteger, Column, Double, ForeignKey, Integer, MetaData, String, Table

VERSION_TABLE = "opadpo_review_version"
"""Where Alembic keeps the version; a name of its own, since a team's database may hold other programs' tables."""

VERSION = "3"
"""Version of the tables that this package writes."""

metadata = MetaData()
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

revisions = Table(
    "revisions",
    metadata,
    # Numbers only ever grow. Writers take turns, so they are also in the order in which rows become visible.
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("revision_id", String, nullable=False, unique=True),
    Column("rollout_id", String, nullable=False),
    Column("parent_revision_id", String, ForeignKey("revisions.revision_id")),
    Column("author_kind", String, nullable=False),
    Column("author", String, nullable=False),
    Column("created_at", String, nullable=False),
    Column("status", String, nullable=False),
    Column("body", JSON, nullable=False),
)

withdrawals = Table(
    "withdrawals",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("revision_id", String, ForeignKey("revisions.revision_id"), nullable=False, unique=True),
    Column("author", String, nullable=False),
    Column("created_at", String, nullable=False),
)

drafts = Table(
    "drafts",
    metadata,
    Column("reviewer", String, primary_key=True),
    Column("rollout_id", String, primary_key=True),
    Column("base_revision_id", String),
    Column("seq", BigInteger, nullable=False),
    Column("updated_at", String, nullable=False),
    # Empty once the draft was sent or thrown away: the number stays, so that one that was on its way does not return.
    Column("body", JSON(none_as_null=True)),
)

claims = Table(
    "claims",
    metadata,
    Column("rollout_id", String, primary_key=True),
    Column("reviewer", String, nullable=False),
    Column("until", Double, nullable=False),
)

skips = Table(
    "skips",
    metadata,
    Column("reviewer", String, primary_key=True),
    Column("rollout_id", String, primary_key=True),
    Column("skipped_at", Double, nullable=False),
)

votes = Table(
    "votes",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("vote_id", String, nullable=False, unique=True),
    Column("voter", String, nullable=False),
    Column("prompt_set", String, nullable=False),
    Column("prompt_id", String, nullable=False),
    Column("first", String, nullable=False),
    Column("first_hash", String, nullable=False),
    Column("first_text", String, nullable=False),
    Column("second", String, nullable=False),
    Column("second_hash", String, nullable=False),
    Column("second_text", String, nullable=False),
    Column("left", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("note", String, nullable=False),
    Column("created_at", String, nullable=False),
)

vote_withdrawals = Table(
    "vote_withdrawals",
    metadata,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("vote_id", String, ForeignKey("votes.vote_id"), nullable=False, unique=True),
    Column("created_at", String, nullable=False),
)
