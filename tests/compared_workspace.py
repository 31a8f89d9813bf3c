"""A workspace with captions of three models, scored: the base makes things up, `opa` less, `opadpo` hardly any."""

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType

from given_captions import give_captions
from stored_image import store_image

from opadpo.progress import SilentProgress
from opadpo.records import Prompt
from opadpo.steps import plans
from opadpo.steps.evaluate import evaluate
from opadpo.tables import write_records
from opadpo.toy.dataset import rows
from opadpo.toy.world import NOUNS
from opadpo.workspace import Workspace

SEED = 11
COUNT = 24


def fill(
    workspace: Workspace,
    *,
    texts: Mapping[int, str] = MappingProxyType({}),
    images: Mapping[int, bytes] = MappingProxyType({}),
) -> list[str]:
    """Fill an empty workspace; `texts` are said by `opadpo` in place of its own. Returns the prompts' ids in order."""
    prompts = _prompts(workspace, images)
    place = {prompt.prompt_id: number for number, prompt in enumerate(prompts)}

    def best(prompt: Prompt) -> str:
        """Mostly true; every eighth is the base's, every ninth makes more up, every fifth leaves one thing out."""
        number, truth = place[prompt.prompt_id], truthful(prompt)
        if number in texts:
            return texts[number]
        if number % 8 == 7:
            return f"{truth} {made_up(prompt, 2)}"
        if number % 9 == 8:
            return f"{truth} {made_up(prompt, 3)}"
        told = truth.rpartition(" There is")[0] if number % 5 == 4 else truth
        return told.replace("There is", "I see", 1)

    give_captions(workspace, "base", lambda prompt: f"{truthful(prompt)} {made_up(prompt, 2)}")
    give_captions(workspace, "opa", lambda prompt: f"{truthful(prompt)} {made_up(prompt, place[prompt.prompt_id] % 2)}")
    give_captions(workspace, "opadpo", best)
    evaluate(workspace, None, ["toy"], progress=SilentProgress())
    return list(place)


def truthful(prompt: Prompt) -> str:
    things = prompt.extra["truth"]["objects"]
    return " ".join(f"There is a {thing['noun']} at the {thing['place']}." for thing in things)


def made_up(prompt: Prompt, count: int) -> str:
    there = {thing["noun"] for thing in prompt.extra["truth"]["objects"]}
    absent = [noun for noun in NOUNS if noun not in there]
    return " ".join(f"A {noun} stands at the top left." for noun in absent[:count])


def _prompts(workspace: Workspace, images: Mapping[int, bytes]) -> list[Prompt]:
    prompts = []
    with workspace.writing(plans.prompts(workspace)) as writer:
        for index, row in enumerate(islice(rows(SEED, COUNT, 0), COUNT)):
            content: bytes = images.get(index) or row["image"]
            image = store_image(writer.folder, content)
            prompts.append(
                Prompt.create(
                    **image, question=row["question"], reference=row["reference"],
                    source="toy", split="heldout", subset="heldout", extra=row["extra"],
                )
            )  # fmt: skip
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({"heldout": COUNT})
    return prompts
