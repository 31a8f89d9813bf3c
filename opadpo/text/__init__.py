"""Text: sentences, spans, word differences and filters."""
