"""MkDocs hook: pages that are not written by hand, and links between what lies in docs/ and what does not.

The documents link to notebooks and code by relative paths, as a code host shows them. In the site a notebook is a page,
and a module is a heading of its room's page in the reference.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

import notebooks  # a module beside this one: MkDocs looks for imports of a hook in the hook's folder

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOKENS = ROOT / "opadpo" / "display" / "tokens.css"
OUTSIDE = {"contributing.md": ROOT / "CONTRIBUTING.md", "index.md": ROOT / "README.md"}
"""Documents at the root of the repository and the pages that stand for them."""
FLOORS = ("ground", "middle", "upper")
"""Floors whose rooms have a page in the reference; the command line and the app are no library."""
LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
PICTURE = re.compile(r"!\[([^\]]*)\]\((\S+)-light\.png\)")
CELL_CODE = re.compile(r"<td[^>]*>.*?</td>")
FENCE = re.compile(r"^( *)(```+).*?^\1\2`*$", re.DOTALL | re.MULTILINE)

log = get_plugin_logger("pages")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Headings get the anchors that a code host gives them; the navigation gets the generated pages."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    made: dict[str, list[Any]] = {"Notebooks": notebook_navigation(), "Reference": reference_navigation()}
    entries: list[dict[str, Any]] = config.nav or []  # pyright: ignore[reportAssignmentType]
    for entry in entries:
        for title in entry:
            entry[title] = made.get(title, entry[title])
    config.nav = [entry for entry in entries if all(entry.values())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and the colours of the app."""
    texts = {
        "contributing.md": OUTSIDE["contributing.md"].read_text("utf-8"),
        "assets/tokens.css": TOKENS.read_text("utf-8"),
        "reference/index.md": reference_index(),
        **{f"reference/{room}.md": room_page(room) for floor in rooms().values() for room in floor},
        **{notebook_uri(path): notebooks.page(path) for path in notebooks.paths(ROOT)},
    }
    for uri, text in texts.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Relative links made to lead to pages of the site; one that leads to no page is a warning.

    A picture that was taken in light and in dark is shown in the reader's.
    """
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return markdown
    markdown = PICTURE.sub(_in_both, markdown)
    source = next((path for path in notebooks.paths(ROOT) if notebook_uri(path) == uri), None)
    source = source or (OUTSIDE["contributing.md"] if uri == "contributing.md" else DOCS / uri)

    def replaced(match: re.Match[str]) -> str:
        target = Path(os.path.normpath(source.parent / match[2]))
        found = site_uri(target)
        if found is None:
            log.warning(f"{source.relative_to(ROOT)} links to {match[2]}, which is no page of the site")
            return match[0]
        found, _, anchor = found.partition("#")
        end = f"#{anchor})" if anchor else match[3]
        return f"{match[1]}{os.path.relpath(found, os.path.dirname(uri) or '.')}{end}"

    return "".join(part if fenced else LINK.sub(replaced, part) for fenced, part in fences(markdown))


def _in_both(match: re.Match[str]) -> str:
    alt, name = match[1], match[2]
    if not (DOCS / f"{name}-dark.png").exists():
        return match[0]
    return "".join(f"![{alt}]({name}-{scheme}.png#only-{scheme})" for scheme in ("light", "dark"))


def on_page_content(html: str, page: Page, **_: Any) -> str:
    """What cells of a notebook put out is set in as it is, past the Markdown converter.

    In a table's code a code host reads `\\|` as a bar, the converter as it stands there.
    """
    html = CELL_CODE.sub(lambda match: match[0].replace("\\|", "|"), html)
    source = next((path for path in notebooks.paths(ROOT) if notebook_uri(path) == page.file.src_uri), None)
    return notebooks.with_outputs(html, source) if source else html


def fences(markdown: str) -> Iterator[tuple[bool, str]]:
    """The text in parts; True where the part is a fenced block."""
    end = 0
    for match in FENCE.finditer(markdown):
        yield False, markdown[end : match.start()]
        yield True, match[0]
        end = match.end()
    yield False, markdown[end:]


def site_uri(target: Path) -> str | None:
    """The page, with its anchor, that shows a file of the repository; None if there is none."""
    if not target.exists():
        return None
    outside = {path: uri for uri, path in OUTSIDE.items()}
    if target in outside:
        return outside[target]
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    if target.suffix == ".ipynb":
        return notebook_uri(target)
    if target.is_relative_to(ROOT / "opadpo"):
        name = target.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        room = name.split(".")[1] if "." in name else None
        if room in {room for floor in rooms().values() for room in floor}:
            return f"reference/{room}.md#{name}"
    return None


# -- the reference ------------------------------------------------------------------------------------------------


def rooms() -> dict[str, dict[str, str]]:
    """Floor -> room -> what it is for, from the page on the house."""
    text = (DOCS / "architecture.md").read_text("utf-8")
    block = re.search(r"```floors\n(.*?)```", text, re.DOTALL)
    assert block, "docs/architecture.md has no block of floors"
    purposes: dict[str, str] = {}
    for names, purpose in re.findall(r"^\| (`[^|]+`) \| ([^|]+) \|$", text, re.MULTILINE):
        purposes |= dict.fromkeys(re.findall(r"`(\w+)`", names), purpose)
    floors = {words[0]: words[1:] for words in map(str.split, block[1].splitlines())}
    there = {path.stem for path in (ROOT / "opadpo").iterdir()}
    return {floor: {room: purposes[room] for room in floors[floor] if room in there} for floor in FLOORS}


def reference_navigation() -> list[Any]:
    """The start page, then the rooms by floor."""
    floors = [
        {f"{floor.capitalize()} floor": [{room: f"reference/{room}.md"} for room in names]}
        for floor, names in rooms().items()
    ]
    return ["reference/index.md", *floors]


def reference_index() -> str:
    """What there is, in a table per floor."""
    lines = [
        "# Reference",
        "",
        "What the code says about itself, one page per room of [the house](../architecture.md). The command line, the",
        "app and the notebooks call what is described here, and so can your own scripts. The steps of the method are",
        "in [steps](steps.md), what they read and write in [records](records.md), and a folder is opened by",
        "[workspace](workspace.md).",
    ]
    for floor, names in rooms().items():
        lines += ["", f"## {floor.capitalize()} floor", "", "| room | what it is for |", "| --- | --- |"]
        lines += [f"| [`{room}`]({room}.md) | {purpose} |" for room, purpose in names.items()]
    return "\n".join(lines) + "\n"


def room_page(room: str) -> str:
    """A room's docstrings; the tool that renders them reads the files without importing them."""
    return f"::: opadpo.{room}\n"


# -- notebooks and colours ----------------------------------------------------------------------------------------


def notebook_uri(path: Path) -> str:
    """Where a notebook's page lies."""
    return f"notebooks/{path.stem}.md"


def notebook_navigation() -> list[Any]:
    """The notebooks in their order, by their titles."""
    return [{notebooks.title(path): notebook_uri(path)} for path in notebooks.paths(ROOT)]
