"""The toy world: the whole method, for real, on a CPU in minutes with exact truth."""
