"""Captions of a model as `opadpo caption` leaves them, with texts of the test's choice."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from opadpo.records import Caption, Prompt, Sampling
from opadpo.steps import plans
from opadpo.steps.sets import prompts_of_set
from opadpo.tables import write_records
from opadpo.workspace import Workspace

HASH = "5" * 64
"""Of every adapter."""


def give_captions(
    workspace: Workspace,
    model: str,
    say: Callable[[Prompt], str],
    prompts: Sequence[Prompt] | None = None,
    prompt_set: str = "heldout",
    **fields: Any,
) -> None:
    """Captions of these prompts (None: of the set) that `say(prompt)` makes; `fields` of every one of them."""
    rows = [
        Caption(
            prompt_id=prompt.prompt_id,
            prompt_set=prompt_set,
            response=text,
            response_token_ids=[*[5] * len(text.split()), 2],
            adapter=model,
            adapter_hash="" if model == "base" else HASH,
            finish_reason="stop",
            **{
                "model": "tiny@1",
                "template": "toy",
                "image_aspect": "pad",
                "sampling": Sampling(temperature=0, top_k=0, top_p=1, max_new_tokens=12),
                **fields,
            },
        )
        for prompt in (prompts or prompts_of_set(workspace, prompt_set))
        for text in (say(prompt),)
    ]
    with workspace.writing(plans.captions(workspace, model, prompt_set)) as writer:
        write_records(writer.folder / f"{prompt_set}.parquet", rows, Caption)
        writer.finish({"captions": len(rows)}, content=json.dumps([row.response for row in rows]))
