"""The registry fits the recipe, and every entry fits itself."""

from typing import get_args

from opadpo.recipe.sections import EvaluateSection, FilesSection
from opadpo.steps.benchmarks import BENCHMARKS, SETS


def test_the_recipe_names_every_benchmark() -> None:
    annotation = EvaluateSection.model_fields["benchmarks"].annotation
    assert set(get_args(get_args(annotation)[0])) == set(BENCHMARKS)


def test_sets_and_settings_exist() -> None:
    for benchmark in BENCHMARKS.values():
        assert benchmark.prompt_set in SETS or benchmark.prompt_set == "heldout"
        assert set(benchmark.settings) <= set(EvaluateSection.model_fields)
        if benchmark.hallucination is not None:
            assert benchmark.direction(benchmark.hallucination) == "lower"
        assert benchmark.direction(benchmark.coverage) == "higher"
    for each in SETS.values():
        assert each.release in FilesSection.model_fields
        assert set(each.settings) <= set(EvaluateSection.model_fields)
        assert set(each.kept) <= set(each.files)
