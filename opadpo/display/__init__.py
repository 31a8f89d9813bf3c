"""What notebooks show: records, differences, captions and progress as HTML, right in light and dark.

`enable()` once, and records that a cell ends with look as here. Everything that comes from data is escaped.
"""

from opadpo.display.enabling import enable
from opadpo.display.progressing import NotebookProgress, notebook_progress, training_progress
from opadpo.display.running import catch_up, follow, run
from opadpo.display.showing import Html, Picture, error_box, note, picture, show, show_figure, table
from opadpo.display.workspaces import captions, examples, prompts, revisions, rollouts, scores, tradeoff

__all__ = [
    "Html",
    "NotebookProgress",
    "Picture",
    "captions",
    "catch_up",
    "enable",
    "error_box",
    "examples",
    "follow",
    "note",
    "notebook_progress",
    "picture",
    "prompts",
    "revisions",
    "rollouts",
    "run",
    "scores",
    "show",
    "show_figure",
    "table",
    "tradeoff",
    "training_progress",
]
