"""Project files agree with each other: dependencies, the lock file, the conda environment, licence, documents."""

import ast
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from typer.main import get_command

from opadpo.cli.entry import app

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch-gpu": "torch", "matplotlib-base": "matplotlib"}
"""Where conda-forge names a package differently."""
LOCKED_EXTRAS = ("azure", "dev", "keyring", "notebooks", "postgres")
CONDA_EXTRAS = ("azure", "gpu", "keyring", "notebooks", "postgres")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pyproject() -> dict[str, Any]:
    return tomllib.loads(read("pyproject.toml"))


def requirements(*extras: str) -> dict[str, Requirement]:
    """Name -> requirement of pyproject's dependencies and of some extras."""
    project = pyproject()["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def locked() -> dict[str, Version]:
    """Name -> pinned version."""
    lines = [line.partition("#")[0].strip() for line in read("requirements.lock").splitlines()]
    pins = [line.partition("==") for line in lines if line]
    return {canonicalize_name(name): Version(version) for name, _, version in pins}


def conda_packages() -> dict[str, SpecifierSet]:
    """Name in pyproject's spelling -> versions that environment.yaml allows."""
    entries: list[Any] = yaml.safe_load(read("environment.yaml"))["dependencies"]
    specs = [entry for entry in entries if isinstance(entry, str)]
    specs += [spec for entry in entries if isinstance(entry, dict) for spec in entry["pip"]]
    packages = {}
    for spec in specs:
        name, versions = re.fullmatch(r"([\w.-]+) ?(.*)", spec).groups()  # pyright: ignore[reportOptionalMemberAccess]
        packages[canonicalize_name(CONDA_NAMES.get(name, name))] = SpecifierSet(versions)
    return packages


# -- dependencies -------------------------------------------------------------------------------------------------


def test_every_dependency_says_what_it_is_for() -> None:
    lines = read("pyproject.toml").splitlines()
    named = [line for line in lines if re.match(r'\s+"[\w.\[\]-]+[><=~!]', line)]
    silent = [line.strip() for line in named if not re.search(r'",\s+# \S.+', line)]
    assert silent == []
    assert len(named) == len(requirements(*pyproject()["project"]["optional-dependencies"]))


def test_the_lock_pins_everything_that_pyproject_names() -> None:
    pins = locked()
    wrong = [
        f"{requirement} but the lock has {pins.get(name)}"
        for name, requirement in requirements(*LOCKED_EXTRAS).items()
        if name not in pins or not requirement.specifier.contains(pins[name])
    ]
    assert wrong == [], "run `make lock`"


def test_the_lock_is_pins_and_nothing_else() -> None:
    for line in read("requirements.lock").splitlines():
        assert re.fullmatch(r"#.*|[a-z0-9._-]+==[0-9][a-z0-9.]*  +# via .+", line), line
        assert not re.search(r"://|file:|/(opt|home|root|usr|tmp)/|--", line), line


def test_the_lock_leaves_out_what_only_some_machines_can_have() -> None:
    unwanted = {"torchvision", "torchaudio", "triton", "flash-attn", "opadpo"}
    assert unwanted & set(locked()) == set()
    libraries_of_cuda = {name for name in locked() if name.startswith(("nvidia-", "cuda-"))} - set(requirements())
    assert libraries_of_cuda == set()


def test_the_conda_environment_is_pyproject_under_other_names() -> None:
    packages = conda_packages()
    python = packages.pop("python")
    del packages["pip"]
    build = {Requirement(line).name: Requirement(line).specifier for line in pyproject()["build-system"]["requires"]}
    assert packages.pop("setuptools") == build["setuptools"]
    assert packages == {name: requirement.specifier for name, requirement in requirements(*CONDA_EXTRAS).items()}

    supported = SpecifierSet(pyproject()["project"]["requires-python"])
    allowed = [f"3.{minor}" for minor in range(20) if python.contains(f"3.{minor}")]
    assert allowed
    assert all(supported.contains(version) for version in allowed)


def test_the_conda_environment_uses_one_channel() -> None:
    environment = yaml.safe_load(read("environment.yaml"))
    assert environment["name"] == "opadpo"
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_everything_beside_the_code_is_shipped_with_it() -> None:
    globs = pyproject()["tool"]["setuptools"]["package-data"]
    shipped = {path for package, patterns in globs.items() for glob in patterns for path in (ROOT / package).glob(glob)}
    beside = [path for path in packaged() if path.suffix != ".py"]
    assert [str(path.relative_to(ROOT)) for path in beside if path not in shipped] == []


def test_the_licence_is_mit() -> None:
    assert read("LICENSE").startswith("MIT License")
    assert pyproject()["project"]["license"] == "MIT"


# -- documents ----------------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    """Files under version control, or all files where there is no git."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listing.stdout.splitlines() if listing.returncode == 0 else []
    paths = [ROOT / name for name in names] or [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return [path for path in paths if path.is_file()]


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def packaged() -> list[Path]:
    """Files that an installation brings."""
    return [path for path in tracked() if path.relative_to(ROOT).parts[0] in ("opadpo", "app")]


def sources() -> list[Path]:
    """Where users are told what to type: documents, messages in the code, recipes."""
    return [*documents(), *[path for path in packaged() if path.suffix in (".py", ".yaml")]]


def commands(text: str) -> Iterator[str]:
    """Command lines in fenced shell blocks, in comments of recipes, and between backticks."""
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield from line.removeprefix("$ ").partition(" #")[0].strip().split(" && ")
    for line in re.findall(r"^#   (opadpo [^(\n]+)", text, re.MULTILINE):
        yield from line.split(" && ")
    yield from re.findall(r"`((?:opadpo|make) [^`\n]+)`", text)


def problem(line: str) -> str | None:
    """Why a command line cannot be typed; None if it can, or is no command of ours."""
    words = line.split()
    if not words or words[0] not in ("opadpo", "make"):
        return None
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z]+):.*## ", read("Makefile"), re.MULTILINE))
        unknown = [word for word in words[1:] if "=" not in word and word not in targets]
        return f"`{line}`: make has no target {unknown[0]}" if unknown else None
    command: Any = get_command(app)
    for word in words[1:]:
        if hasattr(command, "commands"):
            if word.startswith("-"):
                break
            if word not in command.commands:
                return None if word.isupper() or "{" in word else f"`{line}`: there is no command {word}"
            command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    options = [re.match(r"--[a-z-]+", word) for word in words]
    wrong = [match.group() for match in options if match and match.group() not in known]
    return f"`{line}`: {command.name} has no option {wrong[0]}" if wrong else None


@pytest.mark.parametrize("path", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in documents()])
def test_documents_name_only_commands_that_exist(path: Path) -> None:
    assert path.is_file()
    assert [found for line in commands(path.read_text("utf-8")) if (found := problem(line))] == []


def test_messages_and_recipes_name_only_commands_that_exist() -> None:
    found = {
        str(path.relative_to(ROOT)): [wrong for line in commands(path.read_text("utf-8")) if (wrong := problem(line))]
        for path in sources()
    }
    assert {path: wrong for path, wrong in found.items() if wrong} == {}


def test_a_wrong_command_would_be_found() -> None:
    text = "```sh\nopadpo prepare demo --nonsense\nmake nonsense\n```\nand `opadpo nonsense demo`; `opadpo status demo`"
    assert [found.partition(": ")[2] for line in commands(text) if (found := problem(line))] == [
        "prepare has no option --nonsense",
        "make has no target nonsense",
        "there is no command nonsense",
    ]


def test_the_recipe_page_is_up_to_date() -> None:
    from opadpo.recipe.docs import page

    assert read("docs/recipes.md") == page(), "run `make pages`"


@pytest.mark.slow
def test_the_stub_of_transformers_names_what_it_exports() -> None:
    statements = ast.parse(read("typings/transformers/__init__.pyi")).body
    imports = [statement for statement in statements if isinstance(statement, ast.ImportFrom)]
    assert imports
    for statement in imports:
        (name,) = statement.names
        assert name.asname == name.name, "a stub exports what it renames to the same name"
        if name.name != "LlavaImageProcessor":  # torchvision's; without it transformers exports another in its place
            defined = getattr(importlib.import_module(statement.module or ""), name.name)
            assert getattr(transformers, name.name) is defined, name.name


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    home = r"(?<![\w.])/(?:root|home/[a-z]+)/\w"
    package_index = r"--(?:extra-)?index-url[ =]\w|--find-links[ =]\w"
    forbidden = re.compile(f"{home}|{package_index}")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in forbidden.finditer(text)]
    assert found == []
