"""Tables of `requests.db`."""

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table

SCHEMA_VERSION = 3
"""1 had no batches, 2 no samples."""

metadata = MetaData()
"""The tables of the file."""
requests = Table(
    "requests",
    metadata,
    Column("key", String, primary_key=True),
    Column("status", String, nullable=False),
    Column("kind", String),
    Column("reason", String),
    Column("retryable", Boolean),
    Column("text", String),
    Column("finish_reason", String),
    Column("model", String, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("cost_usd", Float, nullable=False),
    Column("created_at", String, nullable=False),
)
samples = Table(
    "samples",
    metadata,
    Column("key", String, primary_key=True),
    Column("token_ids", JSON),
    Column("left_out", JSON, nullable=False),
)
failed_rows = Table(
    "failed_rows",
    metadata,
    Column("row_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("run", String, nullable=False),
)
batch_parts = Table(
    "batch_parts",
    metadata,
    Column("part_id", String, primary_key=True),
    Column("base_url", String, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("reserved_usd", Float, nullable=False),
    Column("input_file_id", String),
    Column("batch_id", String),
    Column("created_at", String, nullable=False),
)
batch_requests = Table(
    "batch_requests",
    metadata,
    Column("key", String, primary_key=True),
    Column("part_id", String, nullable=False, index=True),
)
