"""The review tab: the frame in which the desk of `app/assets/desk` is mounted; its data comes over `/api/review`."""

from html import escape

import gradio as gr

from app.files import DESK, address
from app.markup import header
from opadpo.workspace import Workspace

MOUNT = "import({main!r}).then(desk => desk.mount(element.querySelector('#desk')));"


def build(workspace: Workspace) -> None:
    """Draw the tab inside an open page."""
    name = workspace.root.name
    gr.HTML(header("Review", name), apply_default_css=False)
    # Fetched side by side, not one after the other as each script names the next.
    scripts = "".join(f'<link rel="modulepreload" href="{address(path.name)}">' for path in sorted(DESK.glob("*.js")))
    gr.HTML(
        f'<div id="desk" data-workspace="{escape(name)}"></div>',
        apply_default_css=False,
        head=f'<link rel="stylesheet" href="{address("desk.css")}">{scripts}',
        js_on_load=MOUNT.format(main=address("main.js")),
    )
