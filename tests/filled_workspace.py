"""A workspace with rollouts and revisions, made in no time."""

from itertools import islice

import numpy as np
from stored_image import store_image

from opadpo.records import Prompt, Revision, Rollout, Sampling
from opadpo.review.store import ReviewStore
from opadpo.steps import plans
from opadpo.tables import write_records
from opadpo.text.revising import Decision, compose
from opadpo.text.sentences import split_sentences
from opadpo.toy.captions import mentions, own_caption
from opadpo.toy.dataset import rows
from opadpo.toy.world import sample_scene
from opadpo.workspace import Workspace

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\'"&${window.hacked=1}{{7*7}}'
COUNT = 60


def fill(workspace: Workspace) -> None:
    """Toy prompts, captions with the language prior as rollouts, and revisions of half of them by the truth."""
    rng = np.random.default_rng(3)
    prompts, rollouts, revisions = [], [], []
    with workspace.writing(plans.prompts(workspace)) as writer:
        for index, row in enumerate(islice(rows(3, COUNT, 0), COUNT)):
            image = store_image(writer.folder, row["image"])
            reference = HOSTILE if index == 0 else row["reference"]
            prompts.append(
                Prompt.create(
                    **image, question=row["question"], reference=reference, source="toy",
                    split="train", subset="train-0", extra=row["extra"],
                )
            )  # fmt: skip
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({"prompts": COUNT})
    for index, prompt in enumerate(prompts):
        response = f"There is a cup. {HOSTILE}" if index == 0 else own_caption(sample_scene(rng), rng)
        rollout = _rollout(prompt, response, index)
        rollouts.append(rollout)
        if index % 2 == 0:
            revisions.append(_revision(prompt, rollout))
    with workspace.writing(plans.rollouts(workspace)) as writer:
        write_records(writer.folder / "part-00000.parquet", rollouts, Rollout)
        writer.finish({"rollouts": COUNT})
    with ReviewStore.of(workspace) as store:
        store.append(revisions)


def _rollout(prompt: Prompt, response: str, index: int) -> Rollout:
    return Rollout.create(
        prompt_id=prompt.prompt_id, response=response, response_token_ids=list(range(len(response.split()))),
        model="toy@1", adapter="base", adapter_hash="", template="toy", image_aspect="pad",
        sampling=Sampling(temperature=1, top_k=30, top_p=0.95, max_new_tokens=96),
        finish_reason="length" if index % 10 == 0 else "stop", sample_index=0, seed=index,
    )  # fmt: skip


def _revision(prompt: Prompt, rollout: Rollout) -> Revision:
    there = {thing["noun"] for thing in prompt.extra["truth"]["objects"]}
    decisions = []
    for span in split_sentences(rollout.response):
        text = rollout.response[span.start : span.end]
        wrong = [mention.noun for mention in mentions(text) if mention.noun not in there]
        if wrong:
            right = sorted(there)[0]
            edit = Decision(
                "edited", text.replace(wrong[0], right), 2, "image_recognition_error", [f"{wrong[0]} -> {right}"]
            )
            decisions.append(edit if len(decisions) % 2 else Decision("deleted", "", 1, "image_recognition_error"))
        else:
            decisions.append(Decision())
    sentences, text = compose(rollout.response, decisions)
    return Revision.create(
        rollout_id=rollout.rollout_id, author_kind="expert", author="toy-expert", sentences=sentences, text=text
    )
