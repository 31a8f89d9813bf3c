"""Captions side by side over a real workspace: what was found in them, which changed, votes and what they add up to."""

import compared_workspace
import pytest
import small_benchmarks
from given_captions import give_captions
from hypothesis import given
from hypothesis import strategies as st

from opadpo.comparing.marks import pieces
from opadpo.comparing.messages import Asked, Filters, PairAsked, Verdict, VoteIn
from opadpo.comparing.service import Comparing
from opadpo.errors import NotFound, UserError
from opadpo.evaluation.result import read_evaluation, write_evaluation
from opadpo.progress import SilentProgress
from opadpo.recipe import preset_text
from opadpo.review.store import ReviewStore
from opadpo.steps.evaluate import evaluate
from opadpo.steps.sets import make_set, prompts_of_set
from opadpo.workspace import Workspace

MODELS = ["base", "opa", "opadpo"]
PAIR = PairAsked(set="heldout", first="base", second="opadpo")


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    made = Workspace.create(tmp_path / "ws", preset_text("toy"))
    compared_workspace.fill(made)
    return made


@pytest.fixture
def comparing(workspace):
    with ReviewStore.of(workspace) as store:
        yield Comparing(workspace, lambda: store)


def asked(**fields) -> Filters:
    return Filters.model_validate({"set": "heldout", "model": MODELS, **fields})


def said(column) -> str:
    return "".join(piece.text for piece in column.pieces)


def marked(column, mark: str) -> list[str]:
    return [piece.text for piece in column.pieces if piece.mark == mark]


def vote_on(prompt: str, outcome: Verdict) -> VoteIn:
    return VoteIn(set=PAIR.set, first=PAIR.first, second=PAIR.second, prompt_id=prompt, outcome=outcome, note="n")


# -- marks ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.text(), st.lists(st.sampled_from(["dog", "hot dog", "T-shirt", "", "é"])), st.sets(st.sampled_from(["dog"])))
def test_pieces_are_the_caption_whatever_it_says(text, nouns, wrong):
    assert "".join(piece.text for piece in pieces(text, nouns, wrong)) == text


def test_objects_are_marked_where_they_stand_in_any_number_and_case():
    text = "Two Dogs plant a plant; the hot dog’s bun, a t-shirt, DOGS."
    found = pieces(text, ["dog", "plant", "t-shirt", "unicorn", "dog"], {"dog"}, {"t-shirt"})
    assert [(piece.text, piece.mark) for piece in found if piece.mark] == [
        ("Dogs", "hallucinated"), ("plant", "grounded"), ("DOGS", "hallucinated"),
    ]  # fmt: skip


# -- records -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_record_shows_what_every_model_made_up_and_how_it_differs_from_the_base(comparing, workspace):
    prompt = prompts_of_set(workspace, "heldout")[1]
    record = comparing.record(prompt.prompt_id, asked(sort="prompted"))
    base, opa, opadpo = record.columns
    assert [column.model for column in record.columns] == MODELS
    assert said(base).startswith(compared_workspace.truthful(prompt))
    assert marked(base, "hallucinated") == base.hallucinated
    assert len(base.hallucinated) == 2
    assert sorted(marked(base, "grounded")) == sorted(thing["noun"] for thing in prompt.extra["truth"]["objects"])
    assert (base.delta, opa.delta, opadpo.delta) == (None, -1, -2)
    assert opa.words == 7  # "A NOUN stands at the top left."
    assert (record.position, record.total, record.reference) == (2, compared_workspace.COUNT, "base")
    assert comparing.image("heldout", prompt.prompt_id).read_bytes()[:4] == b"\x89PNG"
    for set_name, name in (("heldout", "p-none"), ("nowhere", prompt.prompt_id)):
        with pytest.raises(UserError):
            comparing.image(set_name, name)


@pytest.mark.slow
def test_order_filters_and_search_agree_with_the_records(comparing):
    everything = {row.prompt_id: row for row in comparing.page(asked(), limit=200).items}
    assert len(everything) == compared_workspace.COUNT
    deltas = [row.delta for row in comparing.page(asked(), limit=200).items]
    assert deltas == sorted(deltas)
    assert deltas[0] == -2
    assert [row.delta for row in comparing.page(asked(sort="worse"), limit=2).items] == [1, 1]
    words = [row.words for row in comparing.page(asked(sort="changed"), limit=200).items]
    assert words == sorted(words, reverse=True)
    counts = comparing.page(asked(), limit=0).counts
    for only, wanted in (
        ("changed", [row for row in everything.values() if row.words]),
        ("improved", [row for row in everything.values() if row.delta < 0]),
        ("worse", [row for row in everything.values() if row.delta > 0]),
    ):
        found = comparing.page(asked(only=only), limit=200)
        assert {row.prompt_id for row in found.items} == {row.prompt_id for row in wanted}
        assert found.total == counts[only] == len(wanted)
    one = comparing.page(asked(text="i SEE a"), limit=200)
    assert 0 < one.total < one.all
    assert all(row.excerpt.startswith("I see a") for row in one.items)
    assert comparing.page(asked(text=next(iter(everything)))).total == 1
    assert comparing.page(asked(text="zebra")).total == 0


@pytest.mark.slow
def test_stepping_goes_through_the_list(comparing):
    filters = asked(only="improved")
    wanted = [row.prompt_id for row in comparing.page(filters, limit=200).items]
    seen, here = [], wanted[0]
    while here:
        record = comparing.record(here, filters)
        assert record.previous == (seen[-1] if seen else None)
        seen.append(here)
        here = record.next
    assert seen == wanted
    worse = comparing.page(asked(only="worse")).items[0].prompt_id
    outside = comparing.record(worse, filters)
    assert (outside.position, outside.previous, outside.next) == (None, None, None)


@pytest.mark.slow
def test_without_the_base_the_first_is_the_reference_and_one_model_stands_alone(comparing):
    page = comparing.page(Filters(set="heldout", model=["opadpo", "opa"]))
    assert (page.target, page.reference) == ("opa", "opadpo")
    alone = comparing.page(Filters(set="heldout", model=["opa"]))
    assert (alone.total, alone.reference, alone.items[0].delta) == (compared_workspace.COUNT, None, None)
    with pytest.raises(NotFound, match=r"no captions(?s:.)*opadpo caption \S+ --model ghost"):
        comparing.page(Filters(set="heldout", model=["ghost"]))
    with pytest.raises(UserError, match="not allowed"):
        comparing.page(Filters(set="heldout", model=["../base"]))


def test_figures_with_intervals_and_differences(comparing):
    metrics = comparing.metrics(Asked(set="heldout", model=MODELS))
    assert [(one.name, one.role, one.direction) for one in metrics.metrics] == [
        ("chair_s", "hallucination", "lower"), ("coverage", "coverage", "higher"), ("chair_i", "other", "lower"),
    ]  # fmt: skip
    chair = metrics.metrics[0].values
    assert chair["base"].value == 100
    assert chair["opadpo"].low < chair["opadpo"].value < chair["opadpo"].high
    found = comparing.differences(Asked(set="heldout", model=MODELS))
    assert found.reference == "base"
    assert found.differences["opadpo"]["chair_s"].value == pytest.approx(chair["opadpo"].value - 100)


@pytest.mark.slow
def test_captions_made_anew_are_read_and_no_old_figure_is_shown_with_them(comparing, workspace):
    assert comparing.overview("ada").sets[0].models[2].scored
    give_captions(workspace, "opadpo", lambda prompt: "Nothing at all.")
    page = comparing.page(asked())
    assert {row.excerpt for row in page.items} == {"Nothing at all."}
    assert page.unscored == ["opadpo"]
    assert page.command == f"opadpo evaluate {workspace.shown} --benchmark toy --model opadpo"
    assert set(comparing.metrics(asked()).metrics[0].values) == {"base", "opa"}
    assert not comparing.overview("ada").sets[0].models[2].scored
    evaluate(workspace, ["opadpo"], ["toy"], progress=SilentProgress())
    assert comparing.page(asked()).unscored == []
    assert comparing.metrics(asked()).metrics[1].values["opadpo"].value == 0


@pytest.mark.slow
def test_partial_captions_and_no_captions(comparing, workspace):
    prompts = prompts_of_set(workspace, "heldout")
    give_captions(workspace, "half", lambda prompt: "A cup.", prompts[:10])
    filters = Filters(set="heldout", model=["base", "half"], sort="prompted")
    last = comparing.record(prompts[-1].prompt_id, filters).columns[1]
    assert (last.pieces, last.words, last.delta) == (None, None, None)
    ballot = comparing.ballot("ada", PairAsked(set="heldout", first="half", second="base"), None)
    assert (ballot.total, ballot.same) == (10, 0)
    empty = Workspace.create(workspace.root.parent / "empty", preset_text("toy"))
    overview = Comparing(empty, lambda: ReviewStore.of(empty)).overview("ada")
    assert (overview.sets, overview.command) == ([], f"opadpo caption {empty.shown} --model base")


@pytest.mark.slow
def test_benchmarks_of_objects_and_of_yes_no_questions(tmp_path, monkeypatch):
    files = small_benchmarks.make(tmp_path, monkeypatch)
    workspace = Workspace.create(tmp_path / "ws", preset_text("toy"), [f"evaluate.files={files}"])
    for name in ("amber", "pope"):
        make_set(workspace, name, progress=SilentProgress())
    give_captions(workspace, "base", lambda prompt: "A puppy and a cat on the grass in the light.", prompt_set="amber")
    give_captions(workspace, "opa", lambda prompt: "A puppy on the grass.", prompt_set="amber")
    give_captions(workspace, "base", lambda prompt: "Yes.", prompt_set="pope")
    give_captions(workspace, "opa", lambda prompt: "Yes." if "dog" in prompt.question else "No.", prompt_set="pope")
    evaluate(workspace, None, ["amber", "pope"], progress=SilentProgress())
    comparing = Comparing(workspace, lambda: ReviewStore.of(workspace))
    filters = Filters(set="amber", model=["base", "opa"], sort="prompted")
    base, opa = comparing.record(prompts_of_set(workspace, "amber")[0].prompt_id, filters).columns
    assert (marked(base, "grounded"), marked(base, "hallucinated")) == (["puppy", "grass"], ["cat"])
    assert (base.covered, base.missed, opa.delta) == (["dog", "grass"], [], -1)
    assert comparing.image("amber", prompts_of_set(workspace, "amber")[0].prompt_id).is_file()
    pope = comparing.page(Filters(set="pope", model=["base", "opa"]))
    assert pope.counts == {"changed": 3, "improved": 3, "worse": 0}
    about_dog = next(p for p in prompts_of_set(workspace, "pope") if "dog" in p.question)
    answers = comparing.record(about_dog.prompt_id, Filters(set="pope", model=["base"])).columns[0].answers
    assert [(one.label, one.predicted) for one in answers] == [("yes", "yes")] * 3


@pytest.mark.slow
def test_what_a_judge_thinks_stands_beside_the_answer(comparing, workspace):
    """The toy benchmark's files with items as those of MMHal-Bench and LLaVA-Bench are."""
    for model, judged in (("base", {"rating": 1}), ("opadpo", {"scores": [9.0, 4.5]})):
        path = workspace.evaluation(model, "toy")
        evaluation = read_evaluation(path)
        kept = ("prompt_id", "image_id", "question", "counts")
        items = [{**{name: one[name] for name in kept}, "reason": "<b>so</b>", **judged} for one in evaluation.items]
        write_evaluation(path, evaluation.model_copy(update={"items": items}))
    page = comparing.page(asked(model=["base", "opadpo"]), limit=1)
    base, opadpo = comparing.record(page.items[0].prompt_id, asked(model=["base", "opadpo"])).columns
    assert (base.rating, opadpo.rating, opadpo.reason) == (1, 4.5, "<b>so</b>")
    assert opadpo.delta == page.items[0].delta == -3.5
    assert page.counts["improved"] == compared_workspace.COUNT


# -- votes ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sides_and_order_are_each_voters_own_and_stay(comparing):
    def way(voter):
        seen, here = [], comparing.ballot(voter, PAIR, None)
        while here:
            seen.append((here.prompt_id, here.left))
            here = comparing.ballot(voter, PAIR, here.next) if here.next else None
        return seen

    ada, bob = way("ada"), way("bob")
    assert ada == way("ada")
    assert ada != bob
    assert sorted(prompt for prompt, _ in ada) == sorted(prompt for prompt, _ in bob)
    base = {prompt: said(comparing.record(prompt, asked()).columns[0]) for prompt, _ in ada}
    assert {left == base[prompt] for prompt, left in ada} == {True, False}
    assert comparing.ballot("ada", PairAsked(set="heldout", first="opadpo", second="base"), None).left == ada[0][1]


@pytest.mark.slow
def test_votes_count_for_the_model_behind_the_side(comparing, workspace):
    ballot = comparing.ballot("ada", PAIR, None)
    assert ballot.vote is None
    last = ballot.prompt_id
    while ballot and ballot.voted < 4:
        record = comparing.record(ballot.prompt_id, asked())
        better = said(record.columns[2])
        outcome = "left" if ballot.left == better else "right"
        voted = comparing.vote(
            "ada", VoteIn(**PAIR.model_dump(), prompt_id=ballot.prompt_id, outcome=outcome, note="n")
        )
        last = voted.prompt_id
        assert voted.vote.outcome == outcome
        assert {voted.vote.left, voted.vote.right} == {"base", "opadpo"}
        ballot = comparing.ballot("ada", PAIR, None)
    comparing.vote("bob", vote_on(ballot.prompt_id, "tie"))
    bad = comparing.vote("bob", vote_on(last, "both_bad"))
    results = comparing.results(PAIR)
    assert (results.first, results.second) == ("opadpo", "base")
    total = results.total
    assert (total.first, total.second, total.tie, total.both_bad, results.images) == (4, 0, 1, 1, 5)
    assert results.rate.value == 90
    assert results.rate.low < 90 < results.rate.high
    assert [(one.voter, one.first, one.tie) for one in results.voters] == [("ada", 4, 0), ("bob", 0, 1)]
    comparing.withdraw("bob", bad.vote.vote_id)
    with pytest.raises(NotFound):
        comparing.withdraw("ada", bad.vote.vote_id)
    assert comparing.results(PAIR).total.both_bad == 0
    give_captions(workspace, "opadpo", lambda prompt: "Nothing at all.")
    results = comparing.results(PAIR)
    assert (results.rate, results.outdated) == (None, 5)
    assert comparing.ballot("ada", PAIR, None).voted == 0


@pytest.mark.slow
def test_what_cannot_be_voted_on(comparing):
    with pytest.raises(UserError, match="two models"):
        comparing.ballot("ada", PairAsked(set="heldout", first="opa", second="opa"), None)
    ballot = comparing.ballot("ada", PAIR, None)
    assert ballot.same == 3
    assert ballot.total + ballot.same == compared_workspace.COUNT
    alike = next(row.prompt_id for row in comparing.page(asked(), limit=200).items if row.words == 0)
    with pytest.raises(NotFound, match="nothing to vote on"):
        comparing.vote("ada", vote_on(alike, "tie"))
