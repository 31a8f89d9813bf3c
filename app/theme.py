"""Gradio's theme and the app's style sheets; colours have one source, the tokens of `opadpo/display/tokens.css`."""

from pathlib import Path

from gradio.themes import Base

import opadpo

ASSETS = Path(__file__).parent / "assets"
STYLES = [Path(opadpo.__file__).parent / "display" / "tokens.css", ASSETS / "app.css"]


def theme() -> Base:
    """The theme: every colour is a token of the style sheet, which switches with light and dark by itself."""
    tokens = {
        "body_background_fill": "var(--bg)",
        "body_text_color": "var(--text)",
        "body_text_color_subdued": "var(--muted)",
        "background_fill_primary": "var(--surface)",
        "background_fill_secondary": "var(--surface-2)",
        "block_background_fill": "var(--surface)",
        "block_border_color": "var(--line)",
        "block_label_text_color": "var(--muted)",
        "block_title_text_color": "var(--text)",
        "border_color_primary": "var(--line)",
        "border_color_accent": "var(--accent)",
        "color_accent_soft": "var(--accent-soft)",
        "link_text_color": "var(--accent)",
        "input_background_fill": "var(--surface)",
        "input_border_color": "var(--line-strong)",
        "checkbox_background_color": "var(--surface)",
        "checkbox_border_color": "var(--line-strong)",
        "checkbox_background_color_selected": "var(--accent-solid)",
        "checkbox_border_color_selected": "var(--accent-solid)",
        "checkbox_label_background_fill": "transparent",
        "checkbox_label_background_fill_hover": "transparent",
        "checkbox_label_background_fill_selected": "transparent",
        "checkbox_label_border_color": "transparent",
        "checkbox_label_text_color": "var(--text)",
        "checkbox_label_text_color_selected": "var(--text)",
        "button_primary_background_fill": "var(--accent-solid)",
        "button_primary_text_color": "#ffffff",
        "button_secondary_background_fill": "var(--surface)",
        "button_secondary_background_fill_hover": "var(--surface-2)",
        "button_secondary_border_color": "var(--line)",
        "button_secondary_text_color": "var(--text)",
    }
    dark = {f"{name}_dark": value for name, value in tokens.items() if name != "body_text_color_subdued"}
    dark["body_text_color_subdued_dark"] = "var(--muted)"
    fonts = ["system-ui", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "Arial", "sans-serif"]
    return Base(font=fonts, font_mono=["ui-monospace", "Liberation Mono", "monospace"]).set(**tokens, **dark)
