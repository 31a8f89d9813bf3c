"""MkDocs hook: formulas as MathML, which browsers draw by themselves, so that a page loads no script for them."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

NAMED = re.compile(r"(<mi>(?:log|exp|min|max)</mi>)(?!<mo[^>]*>&#x00028;)")
"""A function's name before an argument without brackets."""
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas that the Markdown extension `arithmatex` marked, converted in place."""
    return FORMULA.sub(_formula, html)


def _formula(match: re.Match[str]) -> str:
    block = match[1] == "div"
    source = unescape(match[2]).strip()
    formula = NAMED.sub(r'\1<mspace width="0.17em"/>', convert(source, display="block" if block else "inline"))
    return f'<div class="formula">{formula}</div>' if block else formula
