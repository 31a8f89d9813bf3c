"""Some of what a workspace holds, as HTML."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from opadpo.comparing.catalogue import Catalogue
from opadpo.comparing.columns import Column, Questions, benchmark_of_set
from opadpo.comparing.marks import Piece, pieces
from opadpo.display.showing import Html, note, picture, piece, show, table
from opadpo.plots import series
from opadpo.steps import looking
from opadpo.steps.evaluate import scores_of
from opadpo.steps.sets import HELDOUT, folder_of_set
from opadpo.workspace import Workspace


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


def captions(workspace: Workspace, models: Sequence[str], count: int = 4, prompt_set: str = HELDOUT) -> Html:
    """Captions side by side, with the objects marked that a benchmark has found; largest differences first."""
    catalogue = Catalogue(workspace)
    questions = catalogue.questions(prompt_set)
    columns = [catalogue.column(model, prompt_set) for model in models]
    folder = folder_of_set(workspace, prompt_set)
    rows = [
        (picture(folder / questions.rows[place].image_file), [_marked(column, questions, place) for column in columns])
        for place in _order(questions, columns)[:count]
    ]
    return piece("captions", f"{len(rows)} images", models=[series(model).label for model in models], rows=rows)


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


def scores(workspace: Workspace, models: Sequence[str], prompt_set: str = HELDOUT) -> Html:
    """Every metric of a set's benchmark with its interval, a column per model."""
    benchmark = benchmark_of_set(prompt_set)
    if benchmark is None:
        return note(f"No benchmark scores the set {prompt_set}.")
    found = {(score.metric, model): score for model in models for score in scores_of(workspace, model, benchmark)}
    metrics = dict.fromkeys(metric for metric, _ in found)
    rows = [
        (f"{metric}, {benchmark.unit(metric)}", [found.get((metric, model)) for model in models]) for metric in metrics
    ]
    return piece("scores", f"{len(rows)} metrics", models=[series(model).label for model in models], rows=rows)


def _stacked(parts: Sequence[Html]) -> Html:
    return reduce(add, parts) if parts else note("There is nothing to show yet.")
