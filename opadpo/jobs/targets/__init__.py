"""Places where jobs run. A new kind is one file beside these, and one line in `KINDS`."""

from importlib import import_module

from opadpo.errors import UserError
from opadpo.jobs.targets.base import Target
from opadpo.recipe.jobs import TargetSection
from opadpo.workspace import Workspace

__all__ = ["KINDS", "Target", "make_target", "named_target"]

KINDS = {"local": "local:LocalTarget", "ssh": "ssh:SshTarget", "slurm": "slurm:SlurmTarget"}
"""Kind -> module in this folder and class; imported when one is used."""


def make_target(name: str, settings: TargetSection, workspace: Workspace) -> Target:
    """The target of these settings."""
    module, _, kind = KINDS[settings.kind].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), kind)(name, settings, workspace)


def named_target(name: str, workspace: Workspace) -> Target:
    """The target that the workspace's recipe has under a name.

    Raises:
        UserError: if it has none.
    """
    known = workspace.recipe.jobs.named()
    if name not in known:
        raise UserError(
            "The recipe has no such target",
            seen=name,
            remedy=f"use one of {', '.join(known)}, or add it under jobs.targets in recipe.yaml",
        )
    return make_target(name, known[name], workspace)
