"""Revisions, append-only, in a database."""
