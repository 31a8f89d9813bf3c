"""What every model family must answer: prompt template, image geometry, token counts, stops, adapter targets."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from opadpo.errors import ModelError, UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Aspect = Literal["pad", "square", "native"]
Targets = Literal["language", "all"]


@dataclass(frozen=True)
class PromptInputs:
    """One prompt, ready for the model; nothing is padded or batched yet."""

    input_ids: list[int]
    """Prompt ids with every image position filled by the image token."""
    model_inputs: "dict[str, Tensor]"
    """Every other key that the image processor returns, without a batch dimension."""
    text_tokens: int
    """Number of ids that are not image tokens: what `rollout.max_prompt_tokens` counts."""


@dataclass(frozen=True)
class EncodedText:
    """A response as ids, with where each id's characters are."""

    input_ids: list[int]
    """Without prompt; no end-of-sequence id."""
    offsets: list[tuple[int, int]]
    """First character and one past the last, per id."""


@dataclass(frozen=True)
class Processing:
    """Tokenizer, image processors and settings of one base model; no weights."""

    family: "Family"
    """The model's family."""
    tokenizer: Any
    """A fast tokenizer of transformers."""
    image_processor: Any
    """The image processor with the model's own geometry."""
    config: Any
    """The model's config."""
    template: str
    """Name of the conversation template in effect."""
    aspect: Aspect
    """`image.aspect` of the recipe."""

    def encode(self, question: str, image: "Image", aspect: Aspect | None = None) -> PromptInputs:
        """`Family.encode` with the recipe's `image.aspect` unless another is given."""
        return self.family.encode(self, question, image, aspect or self.aspect)


class Family(ABC):
    """A model family. Instances hold no state."""

    name: ClassVar[str]
    """As in the recipe's `model.family`."""
    templates: ClassVar[dict[str, str]]
    """Template name -> the whole prompt, with `<image>` and `{question}` in it."""
    default_template: ClassVar[str]
    """What `prompt.template: auto` means."""
    image_placeholder: ClassVar[str] = "<image>"
    """Where the image goes in a template."""

    def template_name(self, wanted: str) -> str:
        """Resolve `prompt.template`.

        Raises:
            UserError: if the family has no such template.
        """
        if wanted == "auto":
            return self.default_template
        if wanted not in self.templates:
            raise UserError(
                f"prompt.template is not one of the {self.name} family's",
                seen=wanted,
                remedy=f"use auto or one of: {', '.join(sorted(self.templates))}",
            )
        return wanted

    def encode(self, processing: Processing, question: str, image: "Image", aspect: Aspect) -> PromptInputs:
        """Prompt ids and image tensors of one question about one image. Nothing is ever truncated.

        Raises:
            ModelError: if the image gives another number of features than the model's config says.
        """
        text = self.text_ids(processing, question)
        model_inputs = self.image_inputs(processing, image, aspect)
        count = self.image_token_count(processing, model_inputs)
        image_token = self.image_token_id(processing)
        ids: list[int] = []
        for token in text:
            ids.extend([image_token] * count if token == image_token else [token])
        return PromptInputs(input_ids=ids, model_inputs=model_inputs, text_tokens=len(text) - 1)

    def text_ids(self, processing: Processing, question: str) -> list[int]:
        """Prompt ids with exactly one image token: for counting text tokens without an image.

        A question that spells a special token or the image placeholder is encoded as plain text.
        """
        before, after = self.templates[processing.template].split(self.image_placeholder)
        chunks = [before, after.replace("{question}", question)]
        return self.join_chunks(processing, [self._plain(processing, chunk) for chunk in chunks])

    def decode(self, processing: Processing, ids: Sequence[int]) -> str:
        """Text of response ids, special tokens removed and nothing else changed."""
        return processing.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def encode_response(self, processing: Processing, text: str) -> EncodedText:
        """Ids of a response as they follow the prompt, and their character offsets in `text`."""
        encoded = processing.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
        )
        return EncodedText(list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]])

    def collate_model_inputs(self, rows: "Sequence[dict[str, Tensor]]") -> "dict[str, Tensor]":
        """Stack the image tensors of several prompts; every key goes through.

        Raises:
            ModelError: if the rows have different keys.
        """
        import torch

        keys = set(rows[0])
        if any(set(row) != keys for row in rows):
            raise ModelError(
                "The image processor returned different keys for different images",
                seen=sorted({key for row in rows for key in row}),
                remedy="use one image processor for the whole batch",
            )
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}

    def _plain(self, processing: Processing, text: str) -> list[int]:
        return processing.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    @abstractmethod
    def load_image_processor(self, config: dict[str, Any]) -> Any:
        """The image processor of the model folder's preprocessor config; needs pillow only."""

    @abstractmethod
    def join_chunks(self, processing: Processing, chunks: Sequence[Sequence[int]]) -> list[int]:
        """Prompt ids from the ids of the text before and after the image, with one image token between them."""

    @abstractmethod
    def image_inputs(self, processing: Processing, image: "Image", aspect: Aspect) -> "dict[str, Tensor]":
        """Everything that the image processor returns, without a batch dimension."""

    @abstractmethod
    def image_token_id(self, processing: Processing) -> int:
        """Id of the image token in the prompt."""

    @abstractmethod
    def image_token_count(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> int:
        """Number of positions that this image takes in the prompt."""

    @abstractmethod
    def stop_token_ids(self, processing: Processing) -> list[int]:
        """Ids that end a response."""

    @abstractmethod
    def lora_targets(self, targets: Targets) -> str:
        """Regular expression that peft matches against whole module names."""

    @abstractmethod
    def check(self, processing: Processing) -> None:
        """Check that tokenizer, image processor and config belong together.

        Raises:
            ModelError: naming the first thing that does not fit.
        """
