"""What a command line left behind; the fixtures are in `cli/conftest.py`."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The JSON that `--json` printed: all of standard output is that one line."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Run = Callable[..., Ended]
"""`run("status", folder)` -> exit status and output."""
