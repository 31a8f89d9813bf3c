"""The frame of a tab that is a component of `app/assets/desk`; its data comes over `/api/review`, not by events."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from app.files import address, modules
from app.markup import header

MOUNT = "import({main!r}).then(component => component.mount(element.querySelector('#desk')));"


def build(tab: str, workspace_name: str, main: str, styles: Sequence[str]) -> None:
    """Draw a tab inside an open page: `main` is the script whose `mount` fills it."""
    gr.HTML(header(tab, workspace_name), apply_default_css=False)
    # Fetched side by side, not one after the other as each script names the next.
    scripts = "".join(f'<link rel="modulepreload" href="{address(name)}">' for name in modules(main))
    sheets = "".join(f'<link rel="stylesheet" href="{address(name)}">' for name in styles)
    gr.HTML(
        f'<div id="desk" data-workspace="{escape(workspace_name)}"></div>',
        apply_default_css=False,
        head=sheets + scripts,
        js_on_load=MOUNT.format(main=address(main)),
    )
