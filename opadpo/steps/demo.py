"""The whole method on the toy world, end to end, in one go."""

import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opadpo import plots
from opadpo.errors import WorkspaceError
from opadpo.evaluation.result import read_evaluation
from opadpo.files import atomic_write
from opadpo.progress import Progress
from opadpo.recipe import preset_text
from opadpo.records import Caption, Prompt
from opadpo.steps.build import build
from opadpo.steps.caption import caption
from opadpo.steps.evaluate import evaluate
from opadpo.steps.prepare import prepare
from opadpo.steps.result import StepResult
from opadpo.steps.revise import revise
from opadpo.steps.rollout import rollout
from opadpo.steps.train import train
from opadpo.tables import read_records
from opadpo.text.sentences import split_sentences
from opadpo.toy.captions import mentions
from opadpo.workspace import RECIPE_FILE, Workspace

MODELS = ["base", "opa", "opadpo", "dpo"]
PROMPT_SET = "heldout"
DEFAULT_SIZE = 500


def demo(
    root: Path | None, *, seed: int | None = None, size: int | None = None, keep: bool = False, progress: Progress
) -> StepResult:
    """Run every step on the toy world and draw what came out.

    `root` is the workspace, made if it is not there and continued if it is; None means a temporary folder that is
    deleted at the end unless `keep`. `seed` (default 0) draws the scenes, the samples and the training order, `size`
    (default 500) is the number of training images; both must fit an existing workspace.

    Raises:
        WorkspaceError: if `root` is a workspace with another recipe, seed or size.
    """
    started = time.monotonic()
    with _root(root, keep) as folder:
        workspace = open_demo(folder, seed, size)
        dropped = _all_steps(workspace, progress)
        figures = draw(workspace)
        if root is None and not keep:
            progress.say("The workspace was temporary; use --workspace DIR or --keep to keep it.")
            outputs: list[str] = []
        else:
            outputs = [str(folder / "figures" / name) for name in ("results.md", *plots.FIGURES)]
            progress.say(f"Look at it in the browser:  opadpo app {shlex.quote(str(folder))}")
    return StepResult(
        step="demo",
        status="done",
        outputs=outputs,
        figures=figures,
        dropped=dropped,
        seconds=round(time.monotonic() - started, 1),
    )


def open_demo(folder: Path, seed: int | None, size: int | None) -> Workspace:
    """Make the demo's workspace, or open it again.

    Raises:
        WorkspaceError: as `demo`.
    """
    if not (folder / RECIPE_FILE).exists():
        images = DEFAULT_SIZE if size is None else size
        heldout = min(300, max(50, images * 3 // 5))
        overrides = [f"seed={seed or 0}", f"prepare.subset_size={images}", f"prepare.heldout_size={heldout}"]
        return Workspace.create(folder, preset_text("toy"), overrides)
    workspace = Workspace.open(folder)
    recipe = workspace.recipe
    asked = {"seed": seed, "size": size}
    there = {"seed": recipe.seed, "size": recipe.prepare.subset_size}
    if recipe.prepare.source.kind != "toy":
        raise WorkspaceError(
            "This workspace is not of the toy world", seen=folder, remedy="choose a new folder for the demo"
        )
    if any(value is not None and value != there[key] for key, value in asked.items()):
        raise WorkspaceError(
            "The demo's workspace was made with other arguments",
            seen=f"{folder}: seed {there['seed']}, size {there['size']}; asked for"
            + "".join(f" {key} {value}" for key, value in asked.items() if value is not None),
            remedy="leave --seed and --size away to continue it, or choose a new folder",
        )
    return workspace


def _all_steps(workspace: Workspace, progress: Progress) -> dict[str, int]:
    """Run the steps in order; returns what they dropped, by reason."""
    results = []

    def done(result: StepResult) -> None:
        told = [(name, number) for name, number in result.counts.items() if number and "/" not in name]
        counts = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in told[:4])
        progress.say(f"{result.step:14} {result.status.replace('_', ' '):11} {result.seconds:6.1f} s   {counts}")
        results.append(result)

    done(prepare(workspace, progress=progress, offline=True))
    done(rollout(workspace, progress=progress))
    done(revise(workspace, progress=progress))
    done(build(workspace, progress=progress))
    done(train(workspace, "opa", progress=progress))
    done(train(workspace, "opadpo", progress=progress))
    done(train(workspace, "opadpo", name="dpo", progress=progress))
    done(caption(workspace, MODELS, progress=progress, prompt_set=PROMPT_SET))
    done(evaluate(workspace, MODELS, ["toy"], progress=progress))
    dropped: dict[str, int] = {}
    for result in results:
        for reason, number in result.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + number
    return dropped


def draw(workspace: Workspace) -> dict[str, Any]:
    """Write the results' table and the three figures into `figures/`; returns the metrics by model."""
    folder = workspace.root / "figures"
    metrics = {model: read_evaluation(workspace.evaluation(model, "toy")).metrics for model in MODELS}
    points = [plots.Point(model, values["chair_s"], values["coverage"]) for model, values in metrics.items()]
    plots.save(plots.tradeoff(points), folder / plots.FIGURES[0])
    measured = json.loads((workspace.run("opadpo") / "onpolicy.json").read_text(encoding="utf-8"))
    means = {
        model: {response: values["mean"] for response, values in under.items()}
        for model, under in measured["under"].items()
    }
    plots.save(plots.on_policy(means), folder / plots.FIGURES[1])
    plots.save(plots.before_and_after(_examples(workspace)), folder / plots.FIGURES[2])
    atomic_write(folder / "results.md", results_table(metrics))
    return metrics


def results_table(metrics: dict[str, dict[str, float]]) -> str:
    """The metrics of every model as a Markdown table."""
    lines = ["| model | CHAIR_i % | CHAIR_s % | coverage % |", "|---|---|---|---|"]
    lines += [
        f"| {plots.series(model).label} | {v['chair_i']:.1f} | {v['chair_s']:.1f} | {v['coverage']:.1f} |"
        for model, v in metrics.items()
    ]
    return "\n".join(lines) + "\n"


def _examples(workspace: Workspace, count: int = 4) -> list[plots.CaptionedImage]:
    """Held-out images, hallucinating base captions first: half of them mended, the others as they come.

    Mended ones alone would flatter the method.
    """
    prompts = {p.prompt_id: p for p in read_records(workspace.prompts / "prompts.parquet", Prompt)}
    before = {c.prompt_id: c for c in read_records(workspace.captions("base", PROMPT_SET), Caption)}
    after = {c.prompt_id: c for c in read_records(workspace.captions("opadpo", PROMPT_SET), Caption)}
    wrong = [k for k in before if any(bad for _, bad in _marked(before[k], prompts[k]))]
    mended = [k for k in wrong if not any(bad for _, bad in _marked(after[k], prompts[k]))]
    rest = [k for k in before if k not in mended]
    chosen = [*mended[: count // 2], *rest[: count - min(len(mended), count // 2)]]
    return [
        plots.CaptionedImage(
            image=workspace.prompts / prompts[key].image_file,
            before=_marked(before[key], prompts[key]),
            after=_marked(after[key], prompts[key]),
        )
        for key in chosen
    ]


def _marked(caption: Caption, prompt: Prompt) -> Sequence[tuple[str, bool]]:
    """Sentences of a caption, each with True if it names something that is not in the scene."""
    there = {thing["noun"] for thing in prompt.extra["truth"]["objects"]}
    sentences = [caption.response[span.start : span.end] for span in split_sentences(caption.response)]
    return [(text, any(mention.noun not in there for mention in mentions(text))) for text in sentences]


@contextmanager
def _root(root: Path | None, keep: bool) -> Iterator[Path]:
    if root is not None:
        yield root
        return
    folder = Path(tempfile.mkdtemp(prefix="opadpo-demo-")) / "workspace"
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder.parent)
