"""Loading base models, processors and adapters."""
