"""Alembic's folder: how the tables of the review store came to be what they are."""
