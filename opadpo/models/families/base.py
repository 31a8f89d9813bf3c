"""What every model family must answer: prompt template, image geometry, token counts, stops, adapter targets."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from opadpo.errors import ModelError, UserError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Aspect = Literal["pad", "square", "native"]
Targets = Literal["language", "all"]

LANGUAGE_LINEARS = r"(?:.*\.)?language_model\.(?:.*\.)?(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Linear layers of a Llama-like language model's blocks. The towers have a `q_proj` too, hence the whole path."""
BOS = "{bos}"
"""In a template: the tokenizer's begin-of-sequence token."""
REMEDY = "use the tokenizer and processor files that belong to the model"
"""What to do where the files of a model do not fit together."""


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
    """The `model_type` of its configs, and the recipe's `model.family`."""
    templates: ClassVar[dict[str, str]]
    """Template name -> the whole prompt, with `<image>`, `{question}`, `{bos}` and special tokens as spelled."""
    default_template: ClassVar[str]
    """What `prompt.template: auto` means."""
    aspects: ClassVar[tuple[Aspect, ...]] = ("native",)
    """Image geometries that the family knows."""
    image_placeholder: ClassVar[str] = "<image>"
    """Where the image goes in a template."""
    image_token: ClassVar[str] = "<image>"
    """The token that is repeated over the image's positions."""
    stops: ClassVar[tuple[str, ...]] = ()
    """Tokens that end a response, the end of a turn first; the tokenizer's end-of-sequence token ends it as well."""
    image_processor: ClassVar[str]
    """`module:Class` of an image processor that needs Pillow only (the others want torchvision)."""
    image_sees_itself: ClassVar[bool] = False
    """Whether an image's positions see each other in both directions; else only those before them."""
    tower_linears: ClassVar[str]
    """Regular expression of the linear layers outside the language model."""

    def template_name(self, wanted: str, tokenizer: Any, config: Any) -> str:
        """Resolve `prompt.template`.

        Raises:
            UserError: if the family has no such template.
        """
        if wanted == "auto":
            return self.own_template(tokenizer, config)
        if wanted not in self.templates:
            raise UserError(
                f"prompt.template is not one of the {self.name} family's",
                seen=wanted,
                remedy=f"use auto or one of: {', '.join(sorted(self.templates))}",
            )
        return wanted

    def square_colour(self, processing: Processing, aspect: Aspect) -> tuple[int, int, int] | None:
        """What a server's own image processor does not do for this geometry: padding to a square, with this colour.

        None where the picture goes to a server as it is.
        """
        return None

    def check_aspect(self, wanted: Aspect | None, key: str = "image.aspect") -> None:
        """Check an image geometry of the recipe; None is none of its own.

        Raises:
            UserError: if the family does not know it.
        """
        if wanted is not None and wanted not in self.aspects:
            raise UserError(
                f"{key} does not suit this base model: {self.name} models have an image geometry of their own",
                seen=wanted,
                remedy=f"set {key} to {' or '.join(self.aspects)}",
            )

    def encode(self, processing: Processing, question: str, image: "Image", aspect: Aspect) -> PromptInputs:
        """Prompt ids and image tensors of one question about one image. Nothing is ever truncated.

        Raises:
            ModelError: if the image gives another number of features than the model's config says.
            UserError: if the family does not know the image geometry.
        """
        self.check_aspect(aspect)
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

        A question that spells a special token or the image placeholder is encoded as plain text: only the template's
        own special tokens count, and the text between them is tokenized piece by piece, as a tokenizer does itself.
        """
        tokenizer, template = processing.tokenizer, self.templates[processing.template]
        added = {token for token in tokenizer.get_added_vocab() if token in template}
        special = sorted({self.image_placeholder, BOS, *added}, key=len, reverse=True)  # of two that fit, the longer
        ids: list[int] = []
        for piece in re.split(f"({'|'.join(map(re.escape, special))})", template):
            if piece == self.image_placeholder:
                ids.append(self.image_token_id(processing))
            elif piece == BOS:
                ids.append(tokenizer.bos_token_id)
            elif piece in special:
                ids.append(tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                text = piece.replace("{question}", question)
                ids += tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def decode(self, processing: Processing, ids: Sequence[int]) -> str:
        """Text of response ids, special tokens removed and nothing else changed."""
        return processing.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def encode_response(self, processing: Processing, text: str) -> EncodedText:
        """Ids of a response as they follow the prompt, and their character offsets in `text`."""
        encoded = processing.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
        )
        return EncodedText(list(encoded["input_ids"]), [tuple(pair) for pair in encoded["offset_mapping"]])

    def stop_token_ids(self, processing: Processing) -> list[int]:
        """Ids that end a response; the first is the one that a finished response is trained to end with."""
        tokenizer = processing.tokenizer
        ids = [tokenizer.convert_tokens_to_ids(token) for token in self.stops]
        return list(dict.fromkeys([*ids, tokenizer.eos_token_id]))

    def collate_model_inputs(self, rows: "Sequence[dict[str, Tensor]]") -> "dict[str, Tensor]":
        """Batch the image tensors of several prompts; every key goes through.

        Raises:
            ModelError: if the rows have different keys.
        """
        keys = set(rows[0])
        if any(set(row) != keys for row in rows):
            raise ModelError(
                "The image processor returned different keys for different images",
                seen=sorted({key for row in rows for key in row}),
                remedy="use one image processor for the whole batch",
            )
        return {key: self.batch_images(key, [row[key] for row in rows]) for key in rows[0]}

    def batch_images(self, key: str, values: "Sequence[Tensor]") -> "Tensor":
        """One key of several prompts as one tensor."""
        import torch

        return torch.stack(list(values))

    def sequence_inputs(self, processing: Processing, input_ids: "Tensor") -> "dict[str, Tensor]":
        """What else the model takes for each position of (rows, length) ids, padding included: token types."""
        return {}

    def position_ids(
        self, model: Any, input_ids: "Tensor", attention_mask: "Tensor", inputs: "dict[str, Tensor]"
    ) -> "Tensor":
        """Positions of whole prompts, (rows, length) or (axes, rows, length); 0 at padding.

        The token after a prompt has the last position plus one, on every axis.

        Args:
            model: the model, with or without adapters.
            input_ids: (rows, length), padded on either side.
            attention_mask: (rows, length), 0 at padding.
            inputs: what `collate_model_inputs` and `sequence_inputs` gave.
        """
        return (attention_mask.cumsum(-1) - 1).clamp(min=0)

    def pixels(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> "Tensor":
        """What the tower sees of one prompt's image, as one picture (channels, height, width) of whole patches.

        Masking works on it; `with_pixels` puts it back.
        """
        return model_inputs["pixel_values"]

    def with_pixels(
        self, processing: Processing, model_inputs: "dict[str, Tensor]", pixels: "Tensor"
    ) -> "dict[str, Tensor]":
        """A copy of one prompt's image tensors that shows another picture of the shape that `pixels` gave."""
        return model_inputs | {"pixel_values": pixels}

    def patch_size(self, processing: Processing) -> int:
        """Side of the tower's patches in pixels."""
        return processing.config.vision_config.patch_size

    def image_token_id(self, processing: Processing) -> int:
        """Id of the image token in the prompt, from the model's config."""
        return processing.config.image_token_id

    def lora_targets(self, targets: Targets) -> str:
        """Regular expression that peft matches against whole module names.

        Linear layers of the language model's blocks; `all`: those of projector and tower as well; never lm_head.
        """
        return LANGUAGE_LINEARS if targets == "language" else f"{LANGUAGE_LINEARS}|{self.tower_linears}"

    def load_image_processor(self, config: dict[str, Any]) -> Any:
        """The image processor of the model folder's preprocessor config."""
        module, name = self.image_processor.split(":")
        labels = ("image_processor_type", "processor_class", "feature_extractor_type")
        return getattr(import_module(module), name)(**{k: v for k, v in config.items() if k not in labels})

    def check(self, processing: Processing) -> None:
        """Check that tokenizer, image processor and config belong together.

        Raises:
            ModelError: naming the first thing that does not fit.
        """
        tokenizer, config = processing.tokenizer, processing.config
        named = {"end-of-sequence": tokenizer.eos_token_id}
        if BOS in self.templates[processing.template]:
            named = {"begin-of-sequence": tokenizer.bos_token_id, **named}
        for label, value in named.items():
            if value is None:
                raise ModelError(f"The tokenizer has no {label} token", seen=tokenizer.name_or_path, remedy=REMEDY)
        vocabulary = tokenizer.get_vocab()
        for token in self.stops:
            if token not in vocabulary:
                raise ModelError(f"The tokenizer has no {token} token", seen=tokenizer.name_or_path, remedy=REMEDY)
        token_id = vocabulary.get(self.image_token)
        if token_id != self.image_token_id(processing):
            raise ModelError(
                "The tokenizer's image token is not the model's",
                seen=f"{self.image_token} is {token_id}, image_token_id is {self.image_token_id(processing)}",
                remedy=REMEDY,
            )
        rows = config.text_config.vocab_size
        if len(tokenizer) > rows:
            raise ModelError(
                "The tokenizer has more tokens than the model has embeddings",
                seen=f"{len(tokenizer)} tokens, {rows} embeddings",
                remedy=REMEDY,
            )
        self.check_geometry(processing)

    def own_template(self, tokenizer: Any, config: Any) -> str:
        """The template that `prompt.template: auto` means for this model."""
        return self.default_template

    @abstractmethod
    def image_inputs(self, processing: Processing, image: "Image", aspect: Aspect) -> "dict[str, Tensor]":
        """Everything that the image processor returns for the model, without a batch dimension."""

    @abstractmethod
    def image_token_count(self, processing: Processing, model_inputs: "dict[str, Tensor]") -> int:
        """Number of positions that this image takes in the prompt."""

    @abstractmethod
    def check_geometry(self, processing: Processing) -> None:
        """Check that the image processor makes what the model's tower takes.

        Raises:
            ModelError: naming the first thing that does not fit.
        """


def same_geometry(pairs: dict[str, tuple[Any, Any]]) -> None:
    """Check pairs of settings, (image processor's, model's), by name.

    Raises:
        ModelError: naming the first pair that differs.
    """
    for name, (processor, model) in pairs.items():
        if processor != model:
            raise ModelError(
                f"The image processor's {name} is not the model's",
                seen=f"image processor {processor}, model {model}",
                remedy=REMEDY,
            )
