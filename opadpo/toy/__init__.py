"""The toy world: the whole method, for real, on a CPU in minutes (scenes, captions, a tiny LLaVA, an expert
that sees)."""
