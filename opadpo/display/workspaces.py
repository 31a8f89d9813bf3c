"""Some of what a workspace holds, as HTML."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from opadpo import plots
from opadpo.comparing.catalogue import Catalogue
from opadpo.comparing.columns import Column, Questions
from opadpo.comparing.marks import Piece, pieces
from opadpo.display.showing import Html, note, picture, piece, show, show_figure, table
from opadpo.plots import series
from opadpo.steps import looking
from opadpo.steps.benchmarks import benchmark_of
from opadpo.steps.catching_up import NO_BENCHMARK, checked_models
from opadpo.steps.evaluate import scores_of
from opadpo.steps.sets import HELDOUT, folder_of_set
from opadpo.workspace import Workspace

NOT_BOTH = "No benchmark of the recipe counts both what is made up and what is told (toy, amber, chair and objhal do)."


def prompts(workspace: Workspace, count: int = 4) -> Html:
    """The first training prompts with their images."""
    rows = [
        {
            "image": picture(workspace.prompts / prompt.image_file) or "no image",
            "question": prompt.question,
            "reference answer": prompt.reference or "none",
        }
        for prompt in looking.prompts(workspace, count)
    ]
    return table(rows)


def rollouts(workspace: Workspace, count: int = 3) -> Html:
    """The first rollouts, each beside its image."""
    return _stacked(
        [
            show(rollout, question=prompt.question, image=picture(workspace.prompts / prompt.image_file))
            for prompt, rollout in looking.rollouts(workspace, count)
        ]
    )


def revisions(workspace: Workspace, count: int = 3) -> Html:
    """Revisions that count, those with the most changes first: scores, word differences, kinds of error."""
    return _stacked(
        [
            show(revision, question=prompt.question, image=picture(workspace.prompts / prompt.image_file))
            for prompt, revision in looking.revisions(workspace, count)
        ]
    )


def examples(workspace: Workspace, count: int = 2) -> Html:
    """Rows of the second stage's data set: three responses and their token weights."""
    return _stacked(
        [
            show(example, image=picture(workspace.prompts / example.image))
            for example in looking.examples(workspace, count)
        ]
    )


def captions(workspace: Workspace, models: Sequence[str], count: int = 4, prompt_set: str | None = None) -> Html:
    """Captions side by side, with the objects marked that a benchmark has found; largest differences first.

    Without `prompt_set` they are those that the recipe's first benchmark scores, else the held-out ones.
    """
    models = checked_models(models)
    chosen = [benchmark_of(name).prompt_set for name in workspace.recipe.evaluate.benchmarks]
    prompt_set = prompt_set or next(iter(chosen), HELDOUT)
    catalogue = Catalogue(workspace)
    questions = catalogue.questions(prompt_set)
    columns = [catalogue.column(model, prompt_set) for model in models]
    folder = folder_of_set(workspace, prompt_set)
    rows = [
        (picture(folder / questions.rows[place].image_file), [_marked(column, questions, place) for column in columns])
        for place in _order(questions, columns)[:count]
    ]
    judged = any(piece.mark for _, cells in rows for marked in cells for piece in marked)
    labels = [series(model).label for model in models]
    return piece("captions", f"{len(rows)} images", models=labels, rows=rows, judged=judged)


def _order(questions: Questions, columns: Sequence[Column]) -> list[int]:
    """Places in the set: first where the last model differs most from the first in what is wrong."""

    def difference(place: int) -> float:
        prompt = questions.rows[place].prompt_id
        found = [column.found.get(prompt) for column in (columns[0], columns[-1])]
        return -abs(found[1].wrong - found[0].wrong) if found[0] and found[1] else 0.0

    return sorted(range(len(questions.rows)), key=difference)


def _marked(column: Column, questions: Questions, place: int) -> list[Piece]:
    prompt = questions.rows[place].prompt_id
    caption, found = column.captions.get(prompt), column.found.get(prompt)
    if caption is None:
        return []
    if found is None:
        return [Piece(caption.text)]
    return pieces(caption.text, found.mentioned, found.hallucinated, found.unjudged)


def scores(workspace: Workspace, models: Sequence[str]) -> Html:
    """Every metric of the recipe's benchmarks with its interval, a column per model; a table for each benchmark."""
    models = checked_models(models)
    tables = []
    for benchmark in map(benchmark_of, workspace.recipe.evaluate.benchmarks):
        found = {(score.metric, model): score for model in models for score in scores_of(workspace, model, benchmark)}
        metrics = dict.fromkeys(metric for metric, _ in found)
        rows = [(f"{name}, {benchmark.unit(name)}", [found.get((name, model)) for model in models]) for name in metrics]
        labels = [series(model).label for model in models]
        tables.append(piece("scores", f"{len(rows)} metrics", title=benchmark.title, models=labels, rows=rows))
    return reduce(add, tables) if tables else note(NO_BENCHMARK)


def tradeoff(workspace: Workspace, models: Sequence[str]) -> Html:
    """What is made up against what is told, a figure for each of the recipe's benchmarks that counts both."""
    models = checked_models(models)
    figures = [
        plots.tradeoff(
            points,
            hallucination_label=f"{benchmark.hallucination}, %",
            coverage_label=f"{benchmark.coverage}, {benchmark.unit(benchmark.coverage)}",
        )
        for benchmark, points in looking.tradeoffs(workspace, models)
    ]
    drawn = [show_figure(plots.svg_uri(figure), plots.described(figure)) for figure in figures]
    return reduce(add, drawn) if drawn else note(NOT_BOTH)


def _stacked(parts: Sequence[Html]) -> Html:
    return reduce(add, parts) if parts else note("There is nothing to show yet.")
