"""The public benchmarks that are scored without a judge: AMBER, POPE, and CHAIR on COCO."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opadpo.errors import WorkspaceError
from opadpo.evaluation import amber, chair, pope
from opadpo.evaluation.benchmark import Benchmark, BenchmarkSet, Context, Direction, Question, Row, Scored, item
from opadpo.evaluation.nouns import NounReader, Similarity, nltk_reader, same_word, spacy_similarity, vocabulary_reader
from opadpo.recipe.sections import EvaluateSection

_ANNOTATIONS, _RELATIONS, _SAFE_WORDS = "annotations.json", "relation.json", "safe_words.txt"
_GENERATIVE, _DISCRIMINATIVE = "query/query_generative.json", "query/query_discriminative.json"
_INSTANCES, _CAPTIONS = "instances_val2014.json", "captions_val2014.json"
_OBJHAL = "obj_halbench_300_with_image.jsonl"
_POPE_FILES: dict[str, pope.Category] = {f"coco_pope_{category}.json": category for category in pope.CATEGORIES}


def asked_of(row: Row, key: str) -> list[dict[str, Any]]:
    """What the files know of a prompt's questions."""
    known = row.prompt.extra.get(key)
    if not isinstance(known, list) or not known:
        raise WorkspaceError(
            f"A prompt has nothing of {key} that it could be scored by",
            seen=f"prompt {row.prompt.prompt_id} from {row.prompt.source}",
            remedy="caption the benchmark's own set",
        )
    return known


def _yes_no(questions: list[Question], section: EvaluateSection) -> list[Question]:
    """The questions with the recipe's instruction behind them."""
    if not section.yes_no_instruction:
        return questions
    return [question._replace(text=f"{question.text}\n{section.yes_no_instruction}") for question in questions]


# -- AMBER -------------------------------------------------------------------------------------------------------


def _amber_generative_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    return amber.read_questions(files[_GENERATIVE], files[_ANNOTATIONS], "generative")


def _amber_discriminative_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    return _yes_no(amber.read_questions(files[_DISCRIMINATIVE], files[_ANNOTATIONS], "discriminative"), section)


def _annotated(rows: Sequence[Row]) -> list[tuple[Row, amber.Annotation]]:
    return [(row, amber.Annotation.model_validate(known)) for row in rows for known in asked_of(row, "amber")]


def _readers(section: EvaluateSection, words: amber.Amber) -> tuple[NounReader, Similarity]:
    read = nltk_reader() if section.nouns == "nltk" else vocabulary_reader(words.vocabulary)
    return read, spacy_similarity() if section.similarity == "spacy" else same_word


def _score_amber(rows: Sequence[Row], context: Context) -> Scored:
    annotated = _annotated(rows)
    associations, safe_words = amber.load_words(context.files)
    words = amber.Amber({known.id: known for _, known in annotated}, associations, safe_words)
    answers = [(known.id, row.caption.response) for row, known in annotated]
    result = amber.generative(answers, words, *_readers(context.section, words))
    items = [
        item(
            row,
            found.counts(),
            question=known.id,
            mentioned=list(found.nouns),
            hallucinated=list(found.wrong),
            unjudged=[noun for noun in found.nouns if noun in safe_words],
            covered=[word for word, named in zip(known.truth, found.covered, strict=True) if named],
            missed=[word for word, named in zip(known.truth, found.covered, strict=True) if not named],
            lured=[word for word, named in zip(known.hallu, found.lured, strict=True) if named],
        )
        for (row, known), found in zip(annotated, result.items, strict=True)
    ]
    return Scored(items, printed=result.printed)


def _score_amber_discriminative(rows: Sequence[Row], context: Context) -> Scored:
    annotated = _annotated(rows)
    words = amber.Amber({known.id: known for _, known in annotated}, {}, frozenset())
    answers = [(known.id, row.caption.response) for row, known in annotated]
    result = amber.discriminative(answers, words, as_released=context.section.as_released)
    items = [
        item(row, found.counts(), question=known.id, kind=found.kind, label=found.label, predicted=found.predicted)
        for (row, known), found in zip(annotated, result.items, strict=True)
    ]
    return Scored(items, printed=result.printed)


# -- POPE --------------------------------------------------------------------------------------------------------


def _pope_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    questions = [q for name, category in _POPE_FILES.items() for q in pope.read_questions(files[name], category)]
    return _yes_no(questions, section)


def _score_pope(rows: Sequence[Row], context: Context) -> Scored:
    asked = [(row, known) for row in rows for known in asked_of(row, "pope")]
    result = pope.score(
        [row.caption.response for row, _ in asked],
        [known["label"] for _, known in asked],
        categories=[known["category"] for _, known in asked],
        as_released=context.section.as_released,
    )
    items = [
        item(
            row,
            found.counts(),
            question=f"{known['category']}/{known['id']}",
            kind=known["category"],
            label=found.label,
            predicted=found.predicted,
        )
        for (row, known), found in zip(asked, result.items, strict=True)
    ]
    return Scored(items)


# -- CHAIR on COCO -----------------------------------------------------------------------------------------------


def _chair_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    return chair.read_questions(files[_INSTANCES], files[_CAPTIONS], section.chair_images, section.chair_question)


def _objhal_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    return chair.read_objhal_questions(files[_INSTANCES], files[_CAPTIONS], files[_OBJHAL])


def _score_chair(rows: Sequence[Row], context: Context) -> Scored:
    asked = [(row, known) for row in rows for known in asked_of(row, "chair")]
    truth = {known["id"]: frozenset(known["truth"]) for _, known in asked}
    result = chair.score([(known["id"], row.caption.response) for row, known in asked], truth)
    items = [
        item(
            row,
            found.counts(),
            question=known["id"],
            mentioned=[word for word, _ in found.mentioned],
            hallucinated=[word for word, _ in found.hallucinated],
            covered=list(found.covered),
            missed=list(found.missed),
        )
        for (row, known), found in zip(asked, result.items, strict=True)
    ]
    return Scored(items)


def _set(
    name: str, release: str, files: tuple[str, ...], questions: Callable[..., list[Question]], **options: Any
) -> BenchmarkSet:
    return BenchmarkSet(name=name, release=release, key=release, files=files, questions=questions, **options)


SETS = (
    _set(
        "amber",
        "amber",
        (_ANNOTATIONS, _RELATIONS, _SAFE_WORDS, _GENERATIVE),
        _amber_generative_questions,
        kept=(_RELATIONS, _SAFE_WORDS),
    ),
    _set(
        "amber-discriminative",
        "amber",
        (_ANNOTATIONS, _DISCRIMINATIVE),
        _amber_discriminative_questions,
        settings=("yes_no_instruction",),
    ),
    _set("pope", "pope", tuple(_POPE_FILES), _pope_questions, settings=("yes_no_instruction",)),
    _set("chair", "chair", (_INSTANCES, _CAPTIONS), _chair_questions, settings=("chair_images", "chair_question")),
    _set("objhal", "chair", (_INSTANCES, _CAPTIONS, _OBJHAL), _objhal_questions),
)
"""The sets of prompts that they are made of."""

_YES_NO: dict[str, Direction] = {
    **dict.fromkeys(("accuracy", "precision", "recall", "f1", "answered"), "higher"),
    "false_yes": "lower",
}

BENCHMARKS = (
    Benchmark(
        name="amber",
        title="AMBER, descriptions",
        prompt_set="amber",
        score=_score_amber,
        figures=amber.generative_figures,
        hallucination="chair",
        coverage="cover",
        directions={"chair": "lower", "cover": "higher", "hal": "lower", "cog": "lower"},
        settings=("nouns", "similarity"),
    ),
    Benchmark(
        name="amber-discriminative",
        title="AMBER, yes-no questions",
        prompt_set="amber-discriminative",
        score=_score_amber_discriminative,
        figures=amber.discriminative_figures,
        hallucination="false_yes",
        coverage="true_yes",
        directions={**_YES_NO, "true_yes": "higher"},
        yes_no=True,
        settings=("as_released",),
    ),
    Benchmark(
        name="pope",
        title="POPE",
        prompt_set="pope",
        score=_score_pope,
        figures=pope.pope_figures,
        hallucination="false_yes",
        coverage="recall",
        directions=_YES_NO,
        yes_no=True,
        settings=("as_released",),
    ),
    *(
        Benchmark(
            name=name,
            title=title,
            prompt_set=name,
            score=_score_chair,
            figures=chair.chair_figures,
            hallucination="chair_s",
            coverage="recall",
            directions={"chair_i": "lower", "chair_s": "lower", "recall": "higher"},
            units={"length": "words"},
        )
        for name, title in (("chair", "CHAIR on COCO"), ("objhal", "Object HalBench"))
    ),
)
"""Their entries in the registry."""
