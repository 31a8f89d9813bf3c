"""Records, figures and errors as a notebook shows them."""

import logging
import os
import sys
import warnings
from types import TracebackType
from typing import Any

from opadpo.display.showing import Html, error_box, show, show_figure
from opadpo.errors import OpadpoError
from opadpo.records import PreferenceExample, Revision, Rollout
from opadpo.steps.result import StepResult
from opadpo.steps.status import WorkspaceStatus

RECORDS = (Rollout, Revision, PreferenceExample, StepResult, WorkspaceStatus)

DPI = 80
"""Of figures in cells: they go into the notebook's file."""


def enable() -> None:
    """Show records and figures as HTML and our errors as boxes from now on. Outside IPython it does nothing."""
    shell = _shell()
    if shell is None:
        return
    _quiet()
    html = shell.display_formatter.formatters["text/html"]
    plain = shell.display_formatter.formatters["text/plain"]
    for kind in RECORDS:
        html.for_type(kind, lambda record: show(record).markup)
        plain.for_type(kind, lambda record, printer, _cycle: printer.text(repr(show(record))))
    html.for_type_by_name("matplotlib.figure", "Figure", _figure)
    shell.display_formatter.formatters["image/png"].for_type_by_name("matplotlib.figure", "Figure", _png)
    plain.for_type_by_name(
        "matplotlib.figure", "Figure", lambda figure, printer, _cycle: printer.text(_described(figure))
    )
    shell.set_custom_exc((OpadpoError, KeyboardInterrupt), _tell)


def _shell() -> Any:
    """The running IPython; None where there is none."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _figure(figure: Any) -> str:
    from opadpo.plots import svg_uri

    return show_figure(svg_uri(figure), _described(figure)).markup


def _png(figure: Any) -> bytes:
    """For front ends and exports that know no HTML."""
    from opadpo.plots import png

    return png(figure, dpi=DPI)


def _described(figure: Any) -> str:
    from opadpo.plots import described

    return described(figure)


def _tell(
    shell: Any, kind: type[BaseException], error: BaseException, trace: TracebackType, tb_offset: Any
) -> list[str]:
    """What IPython calls with an error: a box in place of a traceback."""
    from IPython.display import display

    box = error_told(error)
    display(box)
    # The last lines of a cell's failure are what other front ends show of it.
    return repr(box).splitlines()


def error_told(error: BaseException) -> Html:
    """An error, or an interruption, as a box."""
    if isinstance(error, KeyboardInterrupt):
        return error_box(
            "Interrupted",
            remedy="Run the cell again: the step goes on where it was. Training continues from its newest checkpoint.",
        )
    if isinstance(error, OpadpoError):
        return error_box(error.what, seen=error.seen, remedy=error.remedy)
    return error_box(str(error))


def _quiet() -> None:
    """Keep what libraries print about themselves out of the cells: our own bars and messages say how far it is."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore", FutureWarning)
    logging.getLogger("transformers").setLevel(logging.ERROR)
