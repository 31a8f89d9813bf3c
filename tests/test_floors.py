"""The picture that the imports draw is the one in docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = "docs/architecture.md"
MIDDLE_ARROWS = {("training", "models")}
"""Which middle rooms may import a neighbour."""
TOP_MAY_IMPORT_FROM_THE_MIDDLE = {"review", "accounts", "jobs"}


class Arrow(NamedTuple):
    """One import."""

    source: str
    target: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.source} -> {self.target}"


def floors() -> list[list[str]]:
    """Rooms from the ground up."""
    block = re.search(r"```floors\n(.*?)```", (ROOT / PAGE).read_text("utf-8"), re.DOTALL)
    assert block, f"{PAGE} has no block of floors"
    return [line.split()[1:] for line in block[1].strip().splitlines()]


def room(module: str) -> str | None:
    """The room of a dotted module name; None outside the house and for the package itself."""
    first, _, rest = module.partition(".")
    if first == "app":
        return "app"
    return rest.partition(".")[0] or None if first == "opadpo" else None


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that an import statement could mean; `package` is the package of the importing module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*parents, *([node.module] if node.module else [])])
        yield from ([f"opadpo.{alias.name}" for alias in node.names] if base == "opadpo" else [base])


def arrows_in(text: str, module: str, place: str, package: str | None = None) -> Iterator[Arrow]:
    """Imports of one module that lead to another room, those inside functions included."""
    source = room(module)
    for node in ast.walk(ast.parse(text)):
        for name in imported(node, package if package is not None else module.rpartition(".")[0]):
            target = room(name)
            if source and target and target != source and not target.startswith("__"):
                yield Arrow(source, target, f"{place}:{node.lineno}")  # pyright: ignore[reportAttributeAccessIssue]


def arrows() -> list[Arrow]:
    found = []
    for path in sorted([*(ROOT / "opadpo").rglob("*.py"), *(ROOT / "app").rglob("*.py")]):
        relative = path.relative_to(ROOT)
        parts = list(relative.with_suffix("").parts)
        package = ".".join(parts[:-1])
        module = package if parts[-1] == "__init__" else ".".join(parts)
        if parts[1].startswith("__") and parts[0] == "opadpo":
            continue
        found += arrows_in(path.read_text("utf-8"), module, str(relative), package)
    return found


def wrong_way(found: list[Arrow], plan: list[list[str]]) -> list[str]:
    """Arrows that the picture does not have, each with what is wrong with it."""
    floor = {name: height for height, names in enumerate(plan) for name in names}
    wrong = []
    for arrow in found:
        rise = floor[arrow.target] - floor[arrow.source]
        if rise > 0:
            wrong.append(f"{arrow} runs up a floor")
        elif rise == 0 and arrow.source in plan[1] and (arrow.source, arrow.target) not in MIDDLE_ARROWS:
            wrong.append(f"{arrow} joins two rooms of the middle floor")
        elif arrow.source in plan[3] and arrow.target in plan[1] and arrow.target not in TOP_MAY_IMPORT_FROM_THE_MIDDLE:
            wrong.append(f"{arrow} reaches past the steps into the middle floor")
    return wrong


def test_every_room_has_one_floor() -> None:
    packages = [path.parent for path in (ROOT / "opadpo").glob("*/__init__.py")]
    modules = [path for path in (ROOT / "opadpo").glob("*.py") if not path.name.startswith("__")]
    rooms = {path.stem for path in [*packages, *modules]} | {"app"}
    placed = [name for names in floors() for name in names]
    assert sorted(placed) == sorted(rooms), f"give every room one floor in {PAGE}"


def test_no_import_runs_up_a_floor() -> None:
    found = arrows()
    assert len(found) > 50
    assert wrong_way(found, floors()) == []


def circle(found: list[Arrow]) -> list[str]:
    """The arrows of one circle of rooms; empty if there is none."""
    graph: dict[str, set[str]] = {}
    for arrow in found:
        graph.setdefault(arrow.source, set()).add(arrow.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        rooms: list[str] = error.args[1]
        pairs = set(zip(rooms[1:], rooms, strict=False))
        return [str(arrow) for arrow in found if (arrow.source, arrow.target) in pairs]
    return []


def test_rooms_do_not_import_each_other_in_circles() -> None:
    assert circle(arrows()) == []
    there, back, apart = Arrow("text", "records", "a"), Arrow("records", "text", "b"), Arrow("text", "errors", "c")
    assert circle([there, back, apart]) == ["a: text -> records", "b: records -> text"]


def test_a_wrong_import_would_be_found() -> None:
    lines = ["def f():", "    from opadpo.cli import main", "from opadpo import steps", "from ..review import store"]
    text = "\n".join([*lines, "import torch"])
    found = list(arrows_in(text, "opadpo.models.base", "base.py"))
    assert [str(arrow) for arrow in found] == [
        "base.py:3: models -> steps",
        "base.py:4: models -> review",
        "base.py:2: models -> cli",
    ]
    assert len(wrong_way(found, floors())) == 3
    assert wrong_way([Arrow("cli", "models", "x")], floors()) == [
        "x: cli -> models reaches past the steps into the middle floor"
    ]
    assert wrong_way([Arrow("training", "models", "x"), Arrow("cli", "review", "x")], floors()) == []
