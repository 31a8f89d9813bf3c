"""Where everything of a workspace lies."""

import re
import shlex
from pathlib import Path

from opadpo.errors import UserError

MANIFEST_FILE = "manifest.json"
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]+")


class Layout:
    """The paths of a project folder; nothing has to be there."""

    def __init__(self, root: Path) -> None:
        """`root` is the folder."""
        self.root = root

    @property
    def shown(self) -> str:
        """Its path as a shell takes it, for the commands that messages name."""
        return shlex.quote(str(self.root))

    @property
    def prompts(self) -> Path:
        """Prompts (parquet) and images."""
        return self.root / "prompts"

    @property
    def rollouts(self) -> Path:
        """Rollouts (parquet shards)."""
        return self.root / "rollouts"

    @property
    def requests_db(self) -> Path:
        """Every request to the expert."""
        return self.root / "expert" / "requests.db"

    @property
    def sampler_db(self) -> Path:
        """Every request to the sampling server; it outlives the rollouts that are made from it."""
        return self.root / "sampler" / "requests.db"

    @property
    def judge_db(self) -> Path:
        """Every request to the judge of benchmarks; it outlives the figures that are made from it."""
        return self.root / "judge" / "requests.db"

    @property
    def reviews_db(self) -> Path:
        """Revisions."""
        return self.root / "reviews.db"

    @property
    def users_db(self) -> Path:
        """Accounts and sessions of the app."""
        return self.root / "users.db"

    def dataset(self, stage: str) -> Path:
        """Data set of a stage, `opa` or `opadpo`."""
        return self.root / "datasets" / stage

    def adapter(self, name: str) -> Path:
        """Adapter folder of a model name.

        Raises:
            UserError: if the name has other characters than letters, digits, `-` and `_`.
        """
        return self.root / "adapters" / checked_name(name)

    def run(self, name: str) -> Path:
        """Run folder (checkpoints, metrics) of a model name."""
        return self.root / "runs" / checked_name(name)

    def captions(self, model: str, prompt_set: str) -> Path:
        """Captions of a model on a set of prompts."""
        return self.root / "captions" / checked_name(model) / f"{checked_name(prompt_set)}.parquet"

    def evaluation(self, model: str, benchmark: str) -> Path:
        """Figures of a model on a benchmark."""
        return self.root / "evaluations" / checked_name(model) / f"{checked_name(benchmark)}.json"

    def jobs(self) -> Path:
        """Job folders."""
        return self.root / "jobs"

    def manifest_path(self, artefact: str) -> Path:
        """Where the manifest of an artefact lies: inside a folder, hidden beside a single file."""
        path = self.root / artefact
        return path.with_name(f".{path.name}.manifest.json") if path.suffix else path / MANIFEST_FILE


def checked_name(name: str) -> str:
    """`name`, if it may be used in a path.

    Raises:
        UserError: if it has other characters than letters, digits, `-` and `_`.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UserError(
            "A model or set name has characters that are not allowed",
            seen=name,
            remedy="use letters, digits, - and _ only",
        )
    return name
