"""Sentence-level revision of one response by an expert model."""
