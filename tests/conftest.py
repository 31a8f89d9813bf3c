"""Settings and fixtures of all tests."""

from hypothesis import settings

# The machine that runs the tests may be busy: a slow example is no failure.
settings.register_profile("opadpo", deadline=None)
settings.load_profile("opadpo")
