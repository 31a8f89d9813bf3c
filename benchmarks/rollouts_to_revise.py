"""A workspace with rollouts that wait for the expert, for the benchmarks of revising; prints nothing by itself."""

import io
from pathlib import Path

from PIL import Image

from opadpo.hashing import bytes_digest
from opadpo.recipe import preset_text
from opadpo.records import Prompt, Rollout, Sampling
from opadpo.steps import plans
from opadpo.tables import write_records
from opadpo.workspace import Workspace

_SAMPLING = Sampling(temperature=1, top_k=0, top_p=1, max_new_tokens=64)


def make_workspace(root: Path, rows: int, *overrides: str) -> Workspace:
    """One picture, `rows` questions about it, and a response of four sentences to each, all different."""
    workspace = Workspace.create(root, preset_text("toy"), list(overrides))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, format="PNG")
    image = buffer.getvalue()
    prompts, rollouts = [], []
    for number in range(rows):
        prompt = Prompt.create(
            image_id=bytes_digest(image),
            image_file="images/red.png",
            question=f"What is in picture {number}?",
            reference="A red square.",
            source="benchmark",
            split="train",
            subset="train-0",
        )
        prompts.append(prompt)
        rollouts.append(
            Rollout.create(
                prompt_id=prompt.prompt_id,
                response=f"This is picture {number}. There is a cat. The cat sits on a mat. The mat is red.",
                response_token_ids=[number],
                model="none@1",
                adapter="base",
                adapter_hash="",
                template="toy",
                image_aspect="pad",
                sampling=_SAMPLING,
                finish_reason="stop",
                sample_index=0,
                seed=0,
            )
        )
    with workspace.writing(plans.prompts(workspace)) as writer:
        (writer.folder / "images").mkdir()
        (writer.folder / "images" / "red.png").write_bytes(image)
        write_records(writer.folder / "prompts.parquet", prompts, Prompt)
        writer.finish({})
    with workspace.writing(plans.rollouts(workspace)) as writer:
        write_records(writer.folder / "part-00000.parquet", rollouts, Rollout)
        writer.finish({})
    return workspace
