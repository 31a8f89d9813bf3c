"""The expert's answer: what we ask for, as models and as the JSON schema that servers can enforce."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from opadpo.records import ErrorType

Action = Literal["keep", "rewrite", "delete"]


class Verdict(BaseModel):
    """The expert's verdict on one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(description="The sentence's number, as given in brackets.")
    action: Action = Field(description="keep, rewrite or delete.")
    score: Literal[1, 2, 3, 4] = Field(description="4: correct and unchanged; 1: entirely wrong.")
    error_type: ErrorType = Field(description="Kind of error; correct if the sentence is kept.")
    objects: list[str] = Field(description='What is wrong and what is right, each as "wrong -> right".')
    revised: str = Field(description="The whole sentence after revision; empty if it is deleted.")
    reason: str = Field(description="One short line.")


class AddedSentence(BaseModel):
    """A sentence that the response lacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after: int = Field(description="Number of the sentence that it follows; 0 for the very beginning.")
    text: str = Field(description="The sentence.")
    reason: str = Field(description="One short line.")


class ExpertAnswer(BaseModel):
    """The expert's answer about one response."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_description: str = Field(description="What the image shows; written before judging.")
    sentences: list[Verdict] = Field(description="One entry per numbered sentence, in order.")
    added: list[AddedSentence] = Field(description="Essential sentences that are missing; usually empty.")


def answer_schema() -> dict[str, Any]:
    """The JSON schema of `ExpertAnswer` in the strict subset that servers enforce: all fields required, no others."""
    return _without_titles(ExpertAnswer.model_json_schema())


def _without_titles(value: Any) -> Any:
    """Titles only repeat names, and every request pays for them."""
    if isinstance(value, dict):
        return {key: _without_titles(item) for key, item in value.items() if not (key == "title" and item != {})}
    return [_without_titles(item) for item in value] if isinstance(value, list) else value
