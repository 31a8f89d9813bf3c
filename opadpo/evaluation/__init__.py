"""Benchmark scores."""
