"""Sections of the recipe for data, generation, revision and evaluation.

Every default and help text of the recipe is written here, in `training.py` or in `loss.py`, and nowhere else: the
command line, the app's forms and the documentation are made from these fields.

A field marked `outcome=False` changes how fast or where a step runs, never what it produces; it does not make
artefacts stale.
"""

from typing import Literal

from opadpo.recipe.base import Section, setting
from opadpo.recipe.endpoints import AskingSection
from opadpo.records import Sampling


class ModelSection(Section):
    """The base model."""

    base: str = setting(
        "toy", "Base model: hub id, local folder, or `toy`, the tiny captioner that ships with this package."
    )
    revision: str | None = setting(
        None, "Branch, tag or commit on the hub; `prepare` pins the commit it finds in the workspace."
    )
    family: str = setting("auto", "Model family; `auto` reads it from the model's config.")
    dtype: Literal["float32", "bfloat16", "float16"] = setting("float32", "Data type of the frozen base weights.")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = setting(
        "sdpa", "Attention kernel for generation and captions.", outcome=False
    )
    quantization: Literal["none", "4bit", "8bit"] = setting(
        "none", "Quantize the frozen base (QLoRA); needs a CUDA GPU and bitsandbytes."
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "Where the model runs.", outcome=False)
    processes: int = setting(
        1,
        "Processes that share the prompts of `rollout` and `caption`, one per GPU; where a launcher has started"
        " several, its number counts.",
        outcome=False,
        ge=1,
    )


class PromptSection(Section):
    """How a question becomes the model's input."""

    template: str = setting(
        "auto",
        "Conversation template; `auto` takes the family's own (LLaVA-1.5: `vicuna_v1`, with its system prompt).",
    )


class ImageSection(Section):
    """How an image becomes the model's input."""

    aspect: Literal["pad", "square", "native"] = setting(
        "pad",
        "`pad`: pad to a square with the mean colour (LLaVA-1.5 as evaluated); `square`: centre crop (as the released"
        " OPA stage); `native`: the processor's own geometry, which is all that families other than LLaVA-1.5 know.",
    )
    max_pixels: int = setting(
        100_000_000, "Refuse images with more pixels than this (decompression bombs).", outcome=False, ge=1
    )


class ColumnMapping(Section):
    """Which columns of a table hold what."""

    image: str = setting("image", "Column with image bytes, a {bytes, path} struct, or a path.")
    question: str = setting("question", "Column with the question.")
    reference: str | None = setting(
        None, "Column with a good answer; none: rows have no reference, and the standard pair must be off."
    )
    rejected: str | None = setting(None, "Column with a bad answer; kept in `extra`, not trained on.")
    source: str | None = setting(None, "Column with the origin; subsets are proportional by it.")


class SourceSection(Section):
    """Where prompts come from."""

    kind: Literal["rlaifv", "table", "folder", "toy"] = setting(
        "toy",
        "`rlaifv`: the RLAIF-V data set (hub or parquet files); `table`: any hub data set, parquet, JSONL or CSV with"
        " a column mapping; `folder`: images and one question; `toy`: generated scenes.",
    )
    path: str | None = setting(
        None,
        "File, folder or glob, or a hub id, if need be with a pattern of its files (`owner/name/data/train-*.parquet`)."
        " For `rlaifv` the default is `openbmb/RLAIF-V-Dataset`.",
    )
    revision: str | None = setting(None, "Revision of the hub data set.")
    hub_split: str = setting("train", "Split of the hub data set.")
    columns: ColumnMapping = setting(ColumnMapping(), "Column mapping for `table`.")
    question: str | None = setting(None, "The question for every image of a `folder`.")


class PrepareSection(Section):
    """`opadpo prepare`: prompts and images."""

    source: SourceSection = setting(SourceSection(), "Where prompts come from.")
    subsets: int = setting(4, "Number of disjoint training subsets.", ge=1, le=100)
    subset_size: int = setting(2500, "Rows per training subset.", ge=1, le=10_000_000)
    heldout_size: int = setting(500, "Rows of the held-out part, disjoint from training by image.", ge=0, le=10_000_000)


class RolloutSection(Section):
    """`opadpo rollout`: the model's own responses."""

    engine: Literal["local", "server"] = setting(
        "local",
        "`local`: the base model in this process, every row seeded; `server`: a server of the base model that speaks"
        " the OpenAI protocol (vLLM, SGLang, `transformers serve`), for their speed.",
    )
    server: AskingSection = setting(AskingSection(), "The sampling server, for `engine: server`.")

    subsets: list[str] = setting(
        ["all"], "Training subsets to sample on, for example [train-0]; [all] takes every one.", min_length=1
    )
    samples_per_prompt: int = setting(1, "Responses per prompt.", ge=1)
    temperature: float = setting(1.0, "Softmax temperature; 0 is greedy.", ge=0)
    top_k: int = setting(30, "Sample among the k most probable tokens; 0 switches this off.", ge=0)
    top_p: float = setting(0.95, "Sample among the smallest set of tokens with this probability.", gt=0, le=1)
    max_new_tokens: int = setting(896, "Cut responses here.", ge=1)
    max_prompt_tokens: int = setting(
        128, "Drop questions with more text tokens than this (image tokens not counted).", ge=1
    )
    batch_size: int = setting(16, "Prompts per batch.", outcome=False, ge=1)
    shard_rows: int = setting(512, "Rows written at once; a killed run loses at most this many.", outcome=False, ge=1)

    @property
    def sampling(self) -> Sampling:
        """The decoding settings as a record."""
        return Sampling.model_validate(self, from_attributes=True)


class ReviseSection(AskingSection):
    """`opadpo revise`: sentence-level corrections by an expert."""

    temperature: float | None = setting(0.0, "Sampling temperature of the expert; none: the server's default.", ge=0)
    max_tokens: int = setting(
        4096,
        "Longest answer of the expert. After raising it, `--retry failed` asks again for what was cut, and for nothing"
        " that was answered.",
        outcome=False,
        ge=1,
    )
    image_max_side: int = setting(1024, "Images are scaled down to this many pixels on the longer side.", ge=16)
    image_detail: Literal["auto", "low", "high"] = setting(
        "auto", "How closely the expert looks at images, where the provider knows the setting; `low` costs least."
    )
    minimal_share: float = setting(
        0.6,
        "A rewriting that changes a larger share of a sentence's words is flagged as not minimal.",
        ge=0,
        le=1,
    )


class ReviewSection(Section):
    """People check the expert's revisions."""

    database_url_env: str | None = setting(
        None,
        "Environment variable with the URL of a PostgreSQL database for a team's reviews"
        " (postgresql://USER:PASSWORD@HOST/DATABASE); empty: `reviews.db` in the workspace.",
        outcome=False,
    )


class BuildSection(Section):
    """`opadpo build`: the data sets that training reads."""

    revisions: Literal["human_first", "human_only"] = setting(
        "human_first",
        "`human_first`: what people decided (adjudicated, else agreed, else the only reviewer's), else the expert's;"
        " `human_only`: nothing that no person has verified.",
    )
    adjudicators: list[str] = setting(
        [],
        "People whose decision on a record stands over everybody's. Without them, the newest review that builds on"
        " another person's does.",
    )
    filters: list[Literal["repeated_last_sentence", "repeated_last_word"]] = setting(
        ["repeated_last_sentence", "repeated_last_word"],
        "Drop degenerate responses by these tests. Failed and empty revisions are always dropped.",
    )
    score_weights: dict[int, float] = setting(
        {1: 2.5, 2: 2.0, 3: 1.5, 4: 1.0}, "Token weight by the sentence's score (revised pair)."
    )
    image_weights: dict[str, float] = setting(
        {"image_recognition_error": 3.0, "language_comprehension_error": 1.0, "correct": 1.0},
        "Token weight by the sentence's error type (image pair).",
    )


class CaptionSection(Section):
    """`opadpo caption`: responses on held-out prompts."""

    temperature: float = setting(0.0, "Softmax temperature; 0 is greedy.", ge=0)
    top_k: int = setting(0, "Sample among the k most probable tokens; 0 switches this off.", ge=0)
    top_p: float = setting(1.0, "Sample among the smallest set of tokens with this probability.", gt=0, le=1)
    max_new_tokens: int = setting(512, "Cut captions here.", ge=1)
    batch_size: int = setting(16, "Prompts per batch.", outcome=False, ge=1)

    @property
    def sampling(self) -> Sampling:
        """The decoding settings as a record."""
        return Sampling.model_validate(self, from_attributes=True)


class BenchmarkFiles(Section):
    """Where a benchmark's files lie."""

    path: str | None = setting(
        None,
        "Folder with the annotation files; null: they are fetched once from their authors into the cache"
        " (`OPADPO_CACHE`, else ~/.cache/opadpo). Their checksums are compared either way.",
        outcome=False,
    )
    images: str | None = setting(None, "Folder with the images.", outcome=False)


class CocoFiles(Section):
    """Where COCO's files lie; they are not fetched."""

    path: str | None = setting(
        None,
        "Folder with instances_val2014.json and captions_val2014.json; for `objhal` also with"
        " obj_halbench_300_with_image.jsonl.",
        outcome=False,
    )
    images: str | None = setting(None, "Folder with the images, COCO_val2014_*.jpg.", outcome=False)


class FilesSection(Section):
    """Where the files of public benchmarks lie."""

    amber: BenchmarkFiles = setting(BenchmarkFiles(), "AMBER.", outcome=False)
    pope: BenchmarkFiles = setting(BenchmarkFiles(), "POPE.", outcome=False)
    chair: CocoFiles = setting(CocoFiles(), "COCO, for CHAIR and Object HalBench.", outcome=False)
    mmhal: BenchmarkFiles = setting(BenchmarkFiles(), "MMHal-Bench; its files are not fetched.", outcome=False)
    llava_bench: BenchmarkFiles = setting(
        BenchmarkFiles(), "LLaVA-Bench in the wild; its files are not fetched.", outcome=False
    )


class JudgeSection(AskingSection):
    """The model that judges answers of MMHal-Bench and LLaVA-Bench."""

    max_tokens: int = setting(1024, "Longest judgement, tokens.", ge=16)


class EvaluateSection(Section):
    """`opadpo evaluate`: benchmark figures."""

    benchmarks: list[
        Literal["toy", "amber", "amber-discriminative", "pope", "chair", "objhal", "mmhal", "llava-bench"]
    ] = setting(["toy"], "Benchmarks to score; a model judges `mmhal` and `llava-bench`, which costs what it costs.")
    judge: JudgeSection = setting(
        JudgeSection(),
        "Who judges. Name one exact version of the model (`gpt-4o-2024-11-20`): figures by different judges cannot be"
        " compared.",
    )
    mmhal_template: str | None = setting(
        None, "File with the authors' instructions to MMHal's judge, with four `{}` to fill; null: ours."
    )
    nouns: Literal["vocabulary", "nltk"] = setting(
        "vocabulary",
        "How AMBER's nouns are found: `vocabulary`, by its word list and singulars, works offline; `nltk`, by a tagger,"
        " as its authors do.",
    )
    similarity: Literal["exact", "spacy"] = setting(
        "exact",
        "When two nouns of AMBER are one thing: `exact`, the same word or one that AMBER lists with it; `spacy`, also"
        " by word vectors (en_core_web_lg), as its authors do.",
    )
    as_released: bool = setting(
        False, "Read yes-no answers as the authors' scripts do, with their quirks, instead of cleanly."
    )
    yes_no_instruction: str = setting(
        "", "A line behind every yes-no question, for models that do not answer with one word by themselves."
    )
    chair_images: int = setting(500, "Number of COCO's images for CHAIR; a fixed choice, the same for everybody.", ge=1)
    chair_question: str = setting("Please describe this image in detail.", "The question about each of them.")
    confidence: float = setting(0.95, "Of the intervals.", gt=0, lt=1)
    resamples: int = setting(10_000, "Of the bootstrap, and permutations of the tests.", ge=100, le=1_000_000)
    files: FilesSection = setting(FilesSection(), "Where benchmark files lie.", outcome=False)
