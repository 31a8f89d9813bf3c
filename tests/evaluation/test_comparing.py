"""Two models on the same items: differences, their tests, and what cannot be compared."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opadpo.errors import DataError
from opadpo.evaluation.comparing import compare, paired_items
from opadpo.evaluation.figures import total
from opadpo.evaluation.pope import PopeItem
from opadpo.evaluation.public import BENCHMARKS
from opadpo.evaluation.result import Evaluation, Provenance
from opadpo.evaluation.statistics import mcnemar
from opadpo.records import Sampling

POPE = next(benchmark for benchmark in BENCHMARKS if benchmark.name == "pope")
AMBER = next(benchmark for benchmark in BENCHMARKS if benchmark.name == "amber")


def evaluation(model: str, items: list[dict[str, Any]], benchmark: Any = POPE, **origin: Any) -> Evaluation:
    provenance = Provenance(
        model=model,
        base="tiny@1",
        adapter_hash="",
        template="toy",
        image_aspect="pad",
        decoding=Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=12),
        prompt_set="pope",
        captions="",
        n=len(items),
        **{"set_digest": "s", **origin},
    )
    metrics = benchmark.figures(total(item["counts"] for item in items)) if items else {}
    return Evaluation(benchmark=benchmark.name, metrics=metrics, items=items, provenance=provenance)


def answered(said: str) -> list[dict[str, Any]]:
    """One item per letter: y/n, right in upper case; two questions per image, categories in turn."""
    categories = ("random", "popular", "adversarial")
    return [
        {
            "prompt_id": f"p{place}",
            "image_id": f"i{place // 2}",
            "question": f"{categories[place % 3]}/{place}",
            "counts": PopeItem(
                label="yes" if letter in "Yn" else "no",
                predicted={"y": "yes", "n": "no"}.get(letter.lower()),  # pyright: ignore[reportArgumentType]
                category=categories[place % 3],  # pyright: ignore[reportArgumentType]
            ).counts(),
        }
        for place, letter in enumerate(said)
    ]


def test_accuracies_get_mcnemar_and_rates_a_permutation_test() -> None:
    first, second = "YNYNYNYNYNYNY-", "YNynynynyNYN-N"
    found = compare(evaluation("good", answered(first)), evaluation("base", answered(second)), POPE, resamples=500)
    right = [[letter.isupper() for letter in said] for said in (first, second)]
    assert found["accuracy"].test == "mcnemar"
    assert found["accuracy"].p_value == mcnemar(*right)
    assert found["accuracy"].value == pytest.approx(100 * (sum(right[0]) - sum(right[1])) / 14)
    assert found["accuracy"].n == 14
    group = [[value for place, value in enumerate(each) if place % 3 == 0] for each in right]
    assert found["random/accuracy"].p_value == mcnemar(*group)
    assert found["random/accuracy"].n == 5
    assert found["f1"].test == "permutation"
    assert found["false_yes"].low <= found["false_yes"].value <= found["false_yes"].high


@settings(max_examples=20)
@given(st.text("YyNn-", min_size=1, max_size=30))
def test_a_model_does_not_differ_from_itself(said: str) -> None:
    one = evaluation("m", answered(said))
    for difference in compare(one, one, POPE, resamples=100).values():
        assert (difference.value, difference.low, difference.high, difference.p_value) == (0, 0, 0, 1)


@pytest.mark.slow
@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("YyNn-"), st.sampled_from("YyNn-")), min_size=1, max_size=30))
def test_the_other_way_round_is_the_negative(pairs: list[tuple[str, str]]) -> None:
    one, two = (evaluation(str(k), answered("".join(pair[k] for pair in pairs))) for k in (0, 1))
    there, back = compare(one, two, POPE, resamples=200), compare(two, one, POPE, resamples=200)
    for name, difference in there.items():
        assert back[name].value == pytest.approx(-difference.value)
        assert back[name].p_value == pytest.approx(difference.p_value)
        assert (back[name].low, back[name].high) == pytest.approx((-difference.high, -difference.low), abs=1e-9)


def test_only_items_that_both_were_scored_on_are_compared() -> None:
    both = answered("YNYN")
    pairs = paired_items(evaluation("one", both[:3]), evaluation("two", both[1:][::-1]))
    assert [(a["prompt_id"], b["prompt_id"]) for a, b in pairs] == [("p1", "p1"), ("p2", "p2")]
    found = compare(evaluation("one", both[:3]), evaluation("two", both[1:]), POPE, resamples=100)
    assert found["f1"].n == 2


@pytest.mark.parametrize(
    ("origin", "benchmark", "told"),
    [
        ({"set_digest": "other"}, POPE, "different sets of prompts"),
        ({"settings": {"as_released": True}}, POPE, "different settings"),
        ({}, AMBER, "different benchmarks"),
    ],
)
def test_different_things_are_not_compared(origin: dict[str, Any], benchmark: Any, told: str) -> None:
    one = evaluation("one", answered("YN"))
    two = evaluation("two", [], benchmark, **origin)
    with pytest.raises(DataError, match=told):
        compare(one, two, POPE)


def test_nothing_in_common_is_refused() -> None:
    items = answered("YNYN")
    with pytest.raises(DataError, match="no scored item in common"):
        compare(evaluation("one", items[:2]), evaluation("two", items[2:]), POPE)
