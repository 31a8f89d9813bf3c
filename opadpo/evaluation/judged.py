"""The public benchmarks whose answers a model judges: MMHal-Bench and LLaVA-Bench."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from opadpo.evaluation import llava_bench, mmhal
from opadpo.evaluation.benchmark import Benchmark, BenchmarkSet, Context, Question, Row, Scored, item
from opadpo.evaluation.comparing import JUDGE
from opadpo.evaluation.judging import Case, Judge, Judged, judge
from opadpo.evaluation.public import asked_of
from opadpo.hashing import digest
from opadpo.recipe.sections import EvaluateSection

_MMHAL = "response_template.json"
_LLAVA = ("questions.jsonl", "context.jsonl", "answers_gpt4.jsonl", "rule.json")


def _cases(rows: Sequence[Row], key: str, tell: Callable[[dict[str, Any], str, str], Any]) -> list[Case]:
    return [
        Case(row, known, tell(known, row.prompt.question, row.caption.response))
        for row in rows
        for known in asked_of(row, key)
    ]


def _scored(
    judged: Sequence[Judged[Any]], failures: dict[str, int], items: list[dict[str, Any]], **settings: Any
) -> Scored:
    return Scored(items, failures=failures, settings={JUDGE: judged[0].model if judged else "", **settings})


def _mmhal_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    return mmhal.read_questions(files[_MMHAL])


def _score_mmhal(rows: Sequence[Row], context: Context) -> Scored:
    template = mmhal.read_template(context.section.mmhal_template)
    how = Judge(
        "Judging MMHal-Bench", mmhal.read_rating, mmhal.AGAIN, schema=None if template is not None else mmhal.SCHEMA
    )
    cases = _cases(rows, "mmhal", lambda known, question, answer: mmhal.messages(known, question, answer, template))
    judged, failures = judge(cases, how, context)
    return _scored(
        judged,
        failures,
        [
            item(
                each.case.row,
                mmhal.counts(each.judgement, each.case.known["type"]),
                question=each.case.known["id"],
                kind=each.case.known["type"],
                rating=each.judgement.rating,
                reason=each.judgement.reason,
            )
            for each in judged
        ],
        mmhal_template=digest(template) if template is not None else "",
    )


def _llava_questions(files: Mapping[str, Path], section: EvaluateSection) -> list[Question]:
    return llava_bench.read_questions(*(files[name] for name in _LLAVA))


def _score_llava(rows: Sequence[Row], context: Context) -> Scored:
    how = Judge("Judging LLaVA-Bench", llava_bench.read_scores, llava_bench.AGAIN, temperature=0.2)
    judged, failures = judge(_cases(rows, "llava_bench", llava_bench.messages), how, context)
    return _scored(
        judged,
        failures,
        [
            item(
                each.case.row,
                llava_bench.counts(each.judgement, each.case.known["category"]),
                question=each.case.known["id"],
                kind=each.case.known["category"],
                scores=list(each.judgement),
                reason=each.text.strip(),
            )
            for each in judged
        ],
    )


SETS = (
    BenchmarkSet(name="mmhal", release="mmhal", key="mmhal", files=(_MMHAL,), questions=_mmhal_questions),
    BenchmarkSet(
        name="llava-bench", release="llava_bench", key="llava_bench", files=_LLAVA, questions=_llava_questions
    ),
)
"""The sets of prompts that they are made of."""

BENCHMARKS = (
    Benchmark(
        name="mmhal",
        title="MMHal-Bench",
        prompt_set="mmhal",
        score=_score_mmhal,
        figures=mmhal.figures,
        hallucination="hallucination",
        coverage="score",
        directions={"score": "higher", "hallucination": "lower"},
        units={"score": "of 6"},
        settings=(JUDGE, "mmhal_template"),
    ),
    Benchmark(
        name="llava-bench",
        title="LLaVA-Bench in the wild",
        prompt_set="llava-bench",
        score=_score_llava,
        figures=llava_bench.figures,
        hallucination=None,
        coverage="relative",
        directions={"relative": "higher"},
        settings=(JUDGE,),
    ),
)
"""Their entries in the registry."""
