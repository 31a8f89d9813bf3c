"""A client for OpenAI-compatible servers; it knows nothing of revisions."""
