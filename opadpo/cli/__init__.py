"""The command line: reads arguments, calls one step, prints what came out; it holds no logic of the method.

Nothing heavy is imported before a verb runs, so that `opadpo --help` and shell completion answer at once.
"""

from opadpo.cli.entry import main

__all__ = ["main"]
