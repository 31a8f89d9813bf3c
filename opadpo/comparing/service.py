"""What the comparing page asks of a workspace: lists, records side by side, figures, and votes."""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from opadpo.comparing import ballots
from opadpo.comparing.catalogue import Catalogue, Memory, View, find, reference_of
from opadpo.comparing.columns import Column, Found, benchmark_of_set, image_address
from opadpo.comparing.marks import pieces
from opadpo.comparing.messages import (
    MAX_PAGE,
    AnswerOut,
    Asked,
    Ballot,
    ColumnOut,
    Differences,
    Filters,
    List,
    MetricOut,
    Metrics,
    Overview,
    PairAsked,
    PieceOut,
    Record,
    Results,
    Role,
    Row,
    SetOut,
    VoteIn,
)
from opadpo.errors import NotFound, OpadpoError
from opadpo.evaluation.benchmark import Benchmark
from opadpo.evaluation.result import Evaluation
from opadpo.evaluation.statistics import Difference
from opadpo.review.store import ReviewStore
from opadpo.review.votes import Votes
from opadpo.steps import plans
from opadpo.steps.evaluate import difference
from opadpo.steps.sets import folder_of_set
from opadpo.workspace import Workspace

_EXCERPT = 120
USUAL_MODELS = 3
"""How many models the page shows at first."""


class Comparing:
    """The comparisons of a workspace; one instance per process, for any number of threads and readers."""

    def __init__(self, workspace: Workspace, store: Callable[[], ReviewStore]) -> None:
        """`store` gives the workspace's review store, in which votes are kept; it is opened with the first of them."""
        self.workspace = workspace
        self.catalogue = Catalogue(workspace)
        self._store = store
        self._figures = Memory()

    def prepare(self) -> None:
        """Read what the page shows at first before anybody asks; what is wrong is told to those who then ask."""
        with contextlib.suppress(OpadpoError):
            for one in self.catalogue.sets()[:1]:
                filters = Filters(set=one.name, model=[model.name for model in one.models[:USUAL_MODELS]])
                for row in self.page(filters, limit=1).items:
                    self.record(row.prompt_id, filters)

    # -- reading -----------------------------------------------------------------------------------------------

    def overview(self, me: str) -> Overview:
        """Which sets and models there are."""
        sets = self.catalogue.sets()
        return Overview(me=me, sets=sets, command=_next(self.workspace, sets))

    def page(self, filters: Filters, *, offset: int = 0, limit: int = 50) -> List:
        """A stretch of the records that match; raises as `Catalogue.view`."""
        view = self.catalogue.view(filters)
        found = find(view, filters)
        benchmark = benchmark_of_set(filters.set)
        unscored = [column.model for column in view.columns if column.evaluation is None] if benchmark else []
        target = view.pair.target if view.pair else view.columns[0]
        return List(
            total=len(found.places),
            all=len(view.questions.rows),
            offset=offset,
            target=target.model,
            reference=view.pair.reference.model if view.pair else None,
            counts=found.counts,
            unscored=unscored,
            command=_scoring(self.workspace, benchmark, unscored),
            items=[_row(view, target, place) for place in found.places[offset : offset + min(limit, MAX_PAGE)]],
        )

    def record(self, prompt_id: str, filters: Filters) -> Record:
        """A prompt and what every model said.

        Raises:
            NotFound: if the set has no such prompt; and as `Catalogue.view`.
        """
        view = self.catalogue.view(filters)
        place = view.questions.place.get(prompt_id)
        if place is None:
            raise NotFound(
                "There is no such prompt in this set", seen=prompt_id[:80], remedy="choose one from the list"
            )
        found = find(view, filters).places
        at = found.index(place) if place in set(found) else None
        names = [view.questions.rows[other].prompt_id for other in _around(found, at)]
        before, after = at is not None and at > 0, at is not None and at + 1 < len(found)
        return Record(
            prompt_id=prompt_id,
            question=view.questions.rows[place].question,
            image=image_address(filters.set, prompt_id),
            columns=[self._column(view, column, place) for column in view.columns],
            reference=view.pair.reference.model if view.pair else None,
            position=None if at is None else at + 1,
            total=len(found),
            previous=names[0] if before else None,
            next=names[-1] if after else None,
        )

    def _column(self, view: View, column: Column, place: int) -> ColumnOut:
        prompt = view.questions.rows[place].prompt_id
        caption, found = column.captions.get(prompt), column.found.get(prompt)
        known = found or Found()
        words = delta = None
        if view.pair and column is not view.pair.reference:
            pair = self.catalogue.pair(view.questions, column, view.pair.reference)
            words, delta = pair.words[place], pair.deltas[place]
        cut = pieces(caption.text, known.mentioned, known.hallucinated, known.unjudged) if caption else None
        return ColumnOut(
            model=column.model,
            pieces=None if cut is None else [PieceOut(text=piece.text, mark=piece.mark) for piece in cut],
            tokens=caption.tokens if caption else 0,
            cut=caption is not None and caption.finish == "length",
            scored=found is not None,
            hallucinated=list(known.hallucinated),
            covered=list(known.covered),
            missed=list(known.missed),
            answers=[AnswerOut(label=one.label, predicted=one.predicted) for one in known.answers],
            rating=known.rating.value if known.rating else None,
            reason=known.rating.reason if known.rating else "",
            words=words,
            delta=delta,
        )

    def image(self, set_name: str, prompt_id: str) -> Path:
        """The image file of a prompt.

        Raises:
            NotFound: if there is none in this set.
            UserError: if the set is not there, or damaged.
        """
        questions = self.catalogue.questions(set_name)
        folder = folder_of_set(self.workspace, set_name).resolve()
        place = questions.place.get(prompt_id)
        path = (folder / questions.rows[place].image_file).resolve() if place is not None else None
        if path is None or folder not in path.parents or not path.is_file():
            raise NotFound("There is no such image in this set", seen=prompt_id[:80], remedy="reload the page")
        return path

    # -- figures -----------------------------------------------------------------------------------------------

    def metrics(self, asked: Asked) -> Metrics:
        """Figures of captions that were scored as they are now; raises as `Catalogue.view`."""
        columns, benchmark = self.catalogue.view(asked).columns, benchmark_of_set(asked.set)
        scored = {column.model: column.evaluation for column in columns if column.evaluation}
        return Metrics(
            benchmark=benchmark.title if benchmark else None,
            metrics=_metrics(benchmark, scored) if benchmark else [],
            scored={model: one.provenance.n for model, one in scored.items()},
            failed={model: one.provenance.failed for model, one in scored.items()},
            confidence=self.workspace.recipe.evaluate.confidence,
        )

    def differences(self, asked: Asked) -> Differences:
        """Differences to the reference, with their tests; thousands of resamples, so one reader's wait serves all.

        Raises:
            UserError: as `Catalogue.view`, and if figures cannot be compared.
        """
        benchmark, columns = benchmark_of_set(asked.set), self.catalogue.view(asked).columns
        reference = reference_of(list(dict.fromkeys(asked.model)))
        by_name = {column.model: column for column in columns if column.evaluation}
        if benchmark is None or reference is None or reference not in by_name:
            return Differences(reference=reference, differences={})
        others = [column for name, column in by_name.items() if name != reference]
        found = {one.model: self._difference(one, by_name[reference], benchmark) for one in others}
        return Differences(reference=reference, differences=found)

    def _difference(self, one: Column, other: Column, benchmark: Benchmark) -> dict[str, Difference]:
        stamp = (id(one), id(other))

        def make() -> tuple[dict[str, Difference], Column, Column]:
            # The columns are kept with it, so that their ids stay theirs.
            found = difference(self.workspace, one.model, other.model, benchmark)
            return {name: value for name, value in found.items() if "/" not in name}, one, other

        return self._figures.get((one.model, other.model, benchmark.name), stamp, make)[0]

    # -- votes -------------------------------------------------------------------------------------------------

    @property
    def votes(self) -> Votes:
        """The votes of this workspace."""
        return Votes(self._store().database)

    def ballot(self, me: str, asked: PairAsked, prompt_id: str | None) -> Ballot | None:
        """Two captions without names; without `prompt_id` the first that the reader has not voted on.

        None where nothing is left to vote on.

        Raises:
            NotFound: if the models do not differ on this prompt, or there is no such prompt.
            UserError: as `Catalogue.view`, and if both models are the same.
        """
        box = ballots.open_box(self.catalogue, asked)
        return ballots.ballot(box, me, prompt_id, self.votes.standing(asked.set, box.first.model, box.second.model))

    def vote(self, me: str, body: VoteIn) -> Ballot:
        """Vote, or change one's vote; what was hidden is in the answer. Raises as `ballot`."""
        box = ballots.open_box(self.catalogue, body)
        self.votes.cast(ballots.to_vote(box, me, body))
        standing = self.votes.standing(body.set, box.first.model, box.second.model)
        found = ballots.ballot(box, me, body.prompt_id, standing)
        assert found is not None  # it was voted on just now
        return found

    def withdraw(self, me: str, vote_id: str) -> None:
        """Take back a vote of one's own.

        Raises:
            NotFound: if there is none of this id.
        """
        self.votes.withdraw(me, vote_id)

    def results(self, asked: PairAsked) -> Results:
        """What people prefer; raises as `ballot`."""
        box = ballots.open_box(self.catalogue, asked)
        standing = self.votes.standing(asked.set, box.first.model, box.second.model)
        return ballots.results(box, standing, self.workspace.recipe.evaluate.confidence)


def _row(view: View, target: Column, place: int) -> Row:
    question = view.questions.rows[place]
    caption = target.captions.get(question.prompt_id)
    return Row(
        prompt_id=question.prompt_id,
        question=question.question[:_EXCERPT],
        excerpt=caption.text[:_EXCERPT] if caption else "",
        words=view.pair.words[place] if view.pair else None,
        delta=view.pair.deltas[place] if view.pair else None,
    )


def _around(found: list[int], at: int | None) -> list[int]:
    return [] if at is None else found[max(0, at - 1) : at + 2]


def _metrics(benchmark: Benchmark, scored: Mapping[str, Evaluation]) -> list[MetricOut]:
    """Those of the whole benchmark of which one way is better: what is made up first, then what is told."""
    main = benchmark.main
    found = []
    for name in [*main, *(name for name in benchmark.directions if name not in main)]:
        values = {model: one.intervals[name] for model, one in scored.items() if name in one.intervals}
        if values:
            role: Role = "hallucination" if name == benchmark.hallucination else "other"
            found.append(
                MetricOut(
                    name=name,
                    direction=benchmark.directions[name],
                    unit=benchmark.unit(name),
                    role="coverage" if name == benchmark.coverage else role,
                    values=values,
                )
            )
    return found


def _scoring(workspace: Workspace, benchmark: Benchmark | None, models: list[str]) -> str:
    """The command that scores models; empty if there is nothing to score."""
    if benchmark is None or not models:
        return ""
    named = "".join(f" --model {model}" for model in models)
    return f"opadpo evaluate {workspace.shown} --benchmark {benchmark.name}{named}"


def _next(workspace: Workspace, sets: list[SetOut]) -> str:
    """What to run so that there is more to compare."""
    models = {model.name for one in sets for model in one.models}
    if plans.BASE not in models:
        return f"opadpo caption {workspace.shown} --model {plans.BASE}"
    trained = sorted(
        path.name for path in workspace.root.glob("adapters/*") if workspace.manifest(f"adapters/{path.name}")
    )
    missing = next((name for name in trained if name not in models), None)
    if missing:
        return f"opadpo caption {workspace.shown} --model {missing}"
    return "" if len(models) > 1 else f"opadpo train opa {workspace.shown}"
