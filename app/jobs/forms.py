"""A form for a new job, made from the recipe's own fields: their help, limits, choices and values."""

import json
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import annotated_types
import yaml
from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from opadpo.errors import UserError
from opadpo.recipe import Recipe

Kind = Literal["number", "integer", "text", "bool", "choice", "many", "list", "yaml"]
EVERYWHERE = ("model",)
"""Sections of the recipe that every step reads."""
FIRST_OPEN = 2
"""Groups that are open at first."""


class StepForm(NamedTuple):
    """What a step's form holds."""

    label: str
    """Its name, for people."""
    sections: tuple[str, ...]
    """Keys of the recipe's sections, in the order of the form; what lies below one follows by itself."""


STEPS: Mapping[str, StepForm] = {
    "prepare": StepForm("Prepare", ("prepare",)),
    "rollout": StepForm("Rollout", ("rollout",)),
    "revise": StepForm("Revise", ("revise",)),
    "build": StepForm("Build", ("build",)),
    "opa": StepForm("OPA", ("train.opa", "train.opa.lora", "train")),
    "opadpo": StepForm("OPA-DPO", ("train.opadpo.loss", "train.opadpo", "train.opadpo.masking", "train")),
    "caption": StepForm("Caption", ("caption",)),
    "evaluate": StepForm("Evaluate", ("evaluate",)),
    "pipeline": StepForm("Pipeline", ("prepare", "rollout", "revise", "build", "train", "caption", "evaluate")),
}
WORDS = {"lora": "adapter", "masking": "masked image", "opa": "OPA", "opadpo": "OPA-DPO", "model": "base model"}
"""Parts of keys that read better as other words."""
UNCHANGED = "Speed, memory and logging: the result stays the same"


class Field(BaseModel):
    """One setting."""

    model_config = ConfigDict(frozen=True)

    key: str
    """As in `--set`."""
    label: str
    """The last part of the key."""
    kind: Kind
    """What can be entered."""
    help: str
    """What it means, its limits first."""
    choices: list[str]
    """Of `choice` and `many`."""
    nullable: bool
    """Whether it may be empty."""
    value: str
    """As text; empty for none."""
    preset: str
    """What the recipe says that the form starts from."""


class Group(BaseModel):
    """Fields under one heading."""

    model_config = ConfigDict(frozen=True)

    title: str
    """The heading."""
    open: bool
    """Whether it is shown at first."""
    fields: list[Field]
    """In the recipe's order."""


def groups(step: str, recipe: Recipe, values: Mapping[str, str]) -> list[Group]:
    """The form of a step; `values` are what is entered already, by key, and are shown wherever they belong."""
    made: list[tuple[str, list[Field]]] = []
    unchanged: list[Field] = []
    seen: set[str] = set()
    for section in _sections(step):
        fields: list[Field] = []
        for key, info, value in _settings(recipe, section):
            seen.add(key)
            (fields if _is_outcome(info) else unchanged).append(_field(key, info, value, values))
        made.append((_title(section, step), fields))
    made.append((UNCHANGED, unchanged))
    known = dict(fields_by_key(recipe))
    others = [known[key].model_copy(update={"value": values[key]}) for key in values if key not in seen]
    found = [Group(title=title, open=False, fields=fields) for title, fields in made if fields]
    for place in range(min(FIRST_OPEN, len(found)) if step != "pipeline" else 0):
        found[place] = found[place].model_copy(update={"open": True})
    return [*found, Group(title="Other changes", open=True, fields=others)] if others else found


def fields_by_key(recipe: Recipe) -> Iterator[tuple[str, Field]]:
    """Every setting of the recipe."""
    for section in ["", *_below("", Recipe)]:
        for key, info, value in _settings(recipe, section):
            yield key, _field(key, info, value, {})


def overrides(values: Mapping[str, str], recipe: Recipe) -> list[str]:
    """`key=value` for every value that differs from the recipe's, written so that YAML reads what was entered.

    Raises:
        UserError: for a key that is no setting.
    """
    known = dict(fields_by_key(recipe))
    found: list[str] = []
    for key, text in values.items():
        if key not in known:
            raise UserError("There is no such setting", seen=key, remedy="reload the page: the recipe has changed")
        if not _same(known[key], text.strip()):
            found.append(f"{key}={_written(known[key], text.strip())}")
    return found


def values_of(given: list[str], recipe: Recipe) -> dict[str, str]:
    """The form's texts for `key=value` overrides; those that name no setting are left out."""
    known = dict(fields_by_key(recipe))
    pairs = [one.partition("=") for one in given]
    return {key: text_of(yaml.safe_load(value)) if value else "" for key, _, value in pairs if key in known}


def text_of(value: Any) -> str:
    """A setting's value as it is shown and entered."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        digits, sign, exponent = repr(value).partition("e")
        return f"{digits.removesuffix('.0')}e{int(exponent)}" if sign else digits
    if isinstance(value, list) and all(isinstance(one, str | int | float) and "," not in str(one) for one in value):
        return ", ".join(text_of(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _sections(step: str) -> Iterator[str]:
    """Keys of a step's sections, each with those below it that come no later by themselves."""
    listed = STEPS[step].sections
    for section in listed:
        yield section
        if section == "train" and step != "pipeline":
            continue
        yield from (below for below in _below(section, _type_of(section)) if below not in listed)
    yield from EVERYWHERE


def _type_of(section: str) -> type[BaseModel]:
    kind: type[BaseModel] = Recipe
    for part in filter(None, section.split(".")):
        kind = typing.cast("type[BaseModel]", kind.model_fields[part].annotation)
    return kind


def _below(key: str, section: type[BaseModel]) -> Iterator[str]:
    """Keys of all sections below one."""
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            inner = f"{key}.{name}" if key else name
            yield inner
            yield from _below(inner, info.annotation)


def _settings(recipe: Recipe, section: str) -> Iterator[tuple[str, FieldInfo, Any]]:
    """The settings that stand directly in a section, with their values."""
    holder: Any = recipe
    for part in filter(None, section.split(".")):
        holder = getattr(holder, part)
    for name, info in type(holder).model_fields.items():
        if not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)):
            yield (f"{section}.{name}" if section else name), info, getattr(holder, name)


def _field(key: str, info: FieldInfo, value: Any, values: Mapping[str, str]) -> Field:
    kind, choices, nullable = _kind(info.annotation)
    preset = text_of(value)
    limits = _limits(info)
    meaning = info.description or ""
    text = f"{limits}. {meaning}" if limits else meaning
    return Field(
        key=key, label=key.rpartition(".")[2], kind=kind, help=text, choices=choices, nullable=nullable,
        value=values.get(key, preset), preset=preset,
    )  # fmt: skip


def _kind(annotation: Any) -> tuple[Kind, list[str], bool]:
    """What can be entered for a type, what there is to choose, and whether it may be left empty."""
    nullable = False
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [one for one in typing.get_args(annotation) if one is not type(None)]
        nullable = len(inner) < len(typing.get_args(annotation))
        if len(inner) != 1:
            return "yaml", [], nullable
        annotation = inner[0]
    if typing.get_origin(annotation) is Literal:
        return "choice", [str(one) for one in typing.get_args(annotation)], nullable
    if typing.get_origin(annotation) is list:
        (item,) = typing.get_args(annotation)
        if typing.get_origin(item) is Literal:
            return "many", [str(one) for one in typing.get_args(item)], nullable
        return ("list" if item is str else "yaml"), [], nullable
    plain: dict[Any, Kind] = {bool: "bool", int: "integer", float: "number", str: "text"}
    return plain.get(annotation, "yaml"), [], nullable


def _limits(info: FieldInfo) -> str:
    """The limits of a number in words: "Over 0", "0 to 1", "1 or more"."""
    low = high = ""
    for limit in info.metadata:
        if isinstance(limit, annotated_types.Ge):
            low = f"{limit.ge} or more"
        elif isinstance(limit, annotated_types.Gt):
            low = f"over {limit.gt}"
        elif isinstance(limit, annotated_types.Le):
            high = f"at most {limit.le}"
        elif isinstance(limit, annotated_types.Lt):
            high = f"below {limit.lt}"
    words = ", ".join(filter(None, (low, high)))
    return words[:1].upper() + words[1:]


def _is_outcome(info: FieldInfo) -> bool:
    extra = info.json_schema_extra
    return not (isinstance(extra, dict) and extra.get("outcome") is False)


def _title(section: str, step: str) -> str:
    """The heading of a section; in the form of one step, what is the step's own needs no name."""
    parts = section.split(".")
    if step != "pipeline":
        if section in (step, f"train.{step}"):
            return "Training" if section.startswith("train.") else STEPS[step].label
        parts = [part for part in parts if part not in ("train", step)] or parts
    else:
        parts = parts[1:] if parts[0] == "train" and parts[1:] else parts
    words = ", ".join(WORDS.get(part, part.replace("_", " ")) for part in parts)
    return words[:1].upper() + words[1:]


def _same(field: Field, text: str) -> bool:
    """Whether a text means what the recipe says."""
    if field.kind in ("number", "integer") and text and field.preset:
        try:
            return float(text) == float(field.preset)
        except ValueError:
            return False
    if field.kind in ("many", "list"):
        return _parts(text) == _parts(field.preset)
    return text == field.preset


def _written(field: Field, text: str) -> str:
    """A text as YAML that reads as what was entered."""
    if not text and (field.nullable or field.kind not in ("text", "many", "list")):
        return "null"
    if field.kind in ("many", "list") and not text.startswith("["):
        return json.dumps(_parts(text), ensure_ascii=False)
    if field.kind == "text":
        return text if _plain_text(text) else yaml.safe_dump(text, default_style='"', width=math.inf).strip()
    return text


def _plain_text(text: str) -> bool:
    """Whether YAML reads a text as itself."""
    try:
        return yaml.safe_load(text) == text
    except yaml.YAMLError:
        return False


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
