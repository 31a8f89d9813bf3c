"""The parts of the docs that are made from the desk's own tables: `python -m app.docs` writes them anew."""

import json
import re
from pathlib import Path
from typing import Any

from app.theme import ASSETS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {"reviewing.md": "review", "jobs.md": "train", "comparing.md": "compare"}
"""Documents with generated parts, and the page of the app that each tells of."""
NAMES = {
    "ArrowDown": "↓", "ArrowUp": "↑", "ArrowLeft": "←", "ArrowRight": "→", "Escape": "Esc", "-": "−",
}  # fmt: skip
PART = re.compile(r"(<!-- (\w+): made by `make pages` -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> Any:
    """One of the desk's tables, `keys` or `guide`."""
    return json.loads((ASSETS / "desk" / f"{name}.json").read_text(encoding="utf-8"))


def keys_of(page: str) -> list[dict[str, Any]]:
    """The keys that act on a page of the app, those of all pages last."""
    tables = table("keys")
    return tables[page] + tables["everywhere"]


def document(text: str, page: str) -> str:
    """`text`, which tells of `page` of the app, with every generated part made from the tables as they are now."""
    parts = {"keys": lambda: keys(page), "scores": scores, "errors": errors, "rules": rules, "reasons": reasons}
    return PART.sub(lambda match: f"{match[1]}\n{parts[match[2]]()}\n\n{match[3]}", text)


def keys(page: str) -> str:
    """The keys of a page in one table per group."""
    entries = keys_of(page)
    groups = dict.fromkeys(entry["group"] for entry in entries)
    return "\n\n".join(
        _table((group, "Key"), [(e["label"], _caps(e)) for e in entries if e["group"] == group]) for group in groups
    )


def scores() -> str:
    """What the scores mean."""
    rows = [(str(entry["score"]), f"{entry['name']}. {entry['text']}") for entry in table("guide")["scores"]]
    return _table(("Score", "Meaning"), rows)


def errors() -> str:
    """What the error types mean."""
    return _table(("Error type", "Meaning"), [(entry["long"], entry["text"]) for entry in table("guide")["errors"]])


def rules() -> str:
    """What to keep to."""
    return "\n".join(f"- {rule}" for rule in table("guide")["rules"])


def reasons() -> str:
    """Why a record can be rejected."""
    return "\n".join(f"{number}. {reason}" for number, reason in enumerate(table("guide")["reasons"], 1))


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in [head, ("---", "---"), *rows])


def _caps(entry: dict[str, Any]) -> str:
    return ", ".join(f"`{_cap(key)}`" for key in entry.get("shown", entry["keys"]))


def _cap(key: str) -> str:
    if re.fullmatch("[A-Z]", key):
        return f"Shift+{key}"
    return "+".join(NAMES.get(part, part.upper() if len(part) == 1 else part) for part in re.split(r"(?<=.)\+", key))


if __name__ == "__main__":
    for name, page in PAGES.items():
        path = DOCS / name
        path.write_text(document(path.read_text(encoding="utf-8"), page), encoding="utf-8")
