"""A workspace for the review desk: toy images, captions with every kind of mistake, the toy expert's revisions."""

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType

import numpy as np
from stored_image import store_image

from opadpo.expert.parsing import read_answer
from opadpo.records import Prompt, Revision, Rollout, Sampling
from opadpo.review.desk import Desk
from opadpo.review.editing import SentenceEdit
from opadpo.review.filters import Filters
from opadpo.review.messages import CommitIn
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.tables import write_records
from opadpo.text.revising import Decision, compose
from opadpo.text.sentences import split_sentences
from opadpo.toy.captions import OWN_TEMPLATES
from opadpo.toy.dataset import rows
from opadpo.toy.expert import judge
from opadpo.toy.world import NOUNS, PLACES
from opadpo.workspace import Workspace

SEED = 5


def fill(
    workspace: Workspace,
    count: int = 24,
    *,
    images: Mapping[int, bytes] = MappingProxyType({}),
    texts: Mapping[int, str] = MappingProxyType({}),
) -> list[str]:
    """Fill an empty workspace; `images` and `texts` replace some of the toy's. Returns the rollouts' ids in order."""
    prompts = _prompts(workspace, count, images, texts)
    rng = np.random.default_rng(SEED)
    rollouts, revisions = [], []
    for index, prompt in enumerate(prompts):
        rollout = _rollout(prompt, texts.get(index) or _caption(prompt, rng), index)
        rollouts.append(rollout)
        revisions.append(_revision(prompt, rollout, judged=index not in texts))
    with workspace.writing(plans.rollouts(workspace)) as writer:
        write_records(writer.folder / "part-00000.parquet", rollouts, Rollout)
        writer.finish({"rollouts": count})
    with ReviewStore.open(workspace.reviews_db) as store:
        store.append(revisions)
    return [rollout.rollout_id for rollout in rollouts]


def decide(workspace: Workspace, rollout_id: str, author: str, position: int, text: str) -> str:
    """Have somebody else rewrite one sentence and accept the record; returns the new revision's id."""
    desk = Desk(workspace)
    record = desk.record(author, rollout_id, Filters())
    sentences = [SentenceEdit.model_validate(s.model_dump()) for s in record.sentences]
    sentences[position] = sentences[position].model_copy(
        update={"kind": "edited", "revised": text, "score": 3, "error_type": "image_recognition_error"}
    )
    decision = CommitIn(base_revision_id=record.base_revision_id, action="accept", sentences=sentences)
    return desk.commit(author, rollout_id, decision, Filters()).revision_id


def _prompts(workspace: Workspace, count: int, images: Mapping[int, bytes], texts: Mapping[int, str]) -> list[Prompt]:
    prompts = []
    with workspace.writing(plans.prompts(workspace)) as writer:
        for index, row in enumerate(islice(rows(SEED, count, 0), count)):
            content: bytes = images.get(index) or row["image"]
            image = store_image(writer.folder, content)
            prompts.append(
                Prompt.create(
                    **image, question=texts.get(index) or row["question"],
                    reference=texts.get(index) or row["reference"], source="toy", split="train", subset="train-0",
                    extra=row["extra"],
                )
            )  # fmt: skip
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({"prompts": count})
    return prompts


def _caption(prompt: Prompt, rng: np.random.Generator) -> str:
    """What is there, now and then under another name or in another place, and something that is not there."""
    things = [(thing["noun"], thing["place"]) for thing in prompt.extra["truth"]["objects"]]
    absent = [noun for noun in NOUNS if noun not in [thing[0] for thing in things]]
    told = []
    for noun, place in things:
        mistake = rng.choice(["none", "noun", "place"], p=[0.4, 0.35, 0.25])
        if mistake == "noun":
            noun = absent.pop(int(rng.integers(len(absent))))
        elif mistake == "place":
            place = str(rng.choice([other for other in PLACES if other != place]))
        told.append((noun, place))
    told.insert(int(rng.integers(1, len(told) + 1)), (absent[0], str(rng.choice(PLACES))))
    told.append(told[0])
    return " ".join(str(rng.choice(OWN_TEMPLATES)).format(noun=noun, place=place) for noun, place in told)


def _rollout(prompt: Prompt, response: str, index: int) -> Rollout:
    return Rollout.create(
        prompt_id=prompt.prompt_id, response=response, response_token_ids=list(range(len(response.split()) + 1)),
        model="toy@1", adapter="base", adapter_hash="", template="toy", image_aspect="pad",
        sampling=Sampling(temperature=1, top_k=30, top_p=0.95, max_new_tokens=96),
        finish_reason="length" if index % 10 == 9 else "stop", sample_index=0, seed=index,
    )  # fmt: skip


def _revision(prompt: Prompt, rollout: Rollout, *, judged: bool) -> Revision:
    """The toy expert's; with `judged` off, everything is kept and the image described by the response."""
    texts = [rollout.response[span.start : span.end] for span in split_sentences(rollout.response)]
    decisions, description = [Decision() for _ in texts], rollout.response
    if judged:
        answer = judge(dict(enumerate(texts, 1)), prompt.extra["truth"]).model_dump_json()
        reading = read_answer(answer, texts)
        assert reading.problems == []
        decisions, description = reading.decisions, reading.image_description
    sentences, text = compose(rollout.response, decisions)
    return Revision.create(
        rollout_id=rollout.rollout_id, author_kind="expert", author="toy-expert", sentences=sentences, text=text,
        image_description=description,
    )  # fmt: skip
