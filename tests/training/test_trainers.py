"""The two stages, trained for real on a tiny model: what they promise about batching, resuming and references."""

import json
import math
import resource
import shutil
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from opadpo.errors import Busy, DataError, DiskFull, MissingArtefact, ModelError, StepFailed, UserError
from opadpo.models.adapters import adapter_digest
from opadpo.progress import SilentProgress
from opadpo.steps.train import train
from opadpo.training.checkpoints import newest_complete

pytestmark = pytest.mark.slow


def weights(workspace, name):
    return load_file(workspace.adapter(name) / "adapter_model.safetensors")


def metrics(workspace, name):
    return [json.loads(line) for line in (workspace.run(name) / "metrics.jsonl").read_text().splitlines()]


def run(workspace, name, stage: Any = "opadpo", progress=None, **options):
    return train(workspace, stage, name=name, progress=progress or SilentProgress(), **options)


def both_stages(setting):
    """A lora setting of both stages: the recipe refuses another one for the second."""
    return [f"train.{stage}.lora.{setting}" for stage in ("opa", "opadpo")]


def newest(workspace, name):
    found = newest_complete(workspace.run(name))
    assert found is not None
    return found


def assert_same(one, other, tolerance):
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], atol=tolerance, rtol=0, msg=lambda text, key=key: f"{key} {text}")


class StopAt(SilentProgress):
    """Calls `action` when an update is done."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    @contextmanager
    def task(self, description, total, *, done=0):
        outer = self

        class Task:
            count = done

            def advance(self, amount=1):
                self.count += amount
                if description.startswith("train") and self.count == outer.step:
                    outer.action()

            def note(self, text):
                pass

        yield Task()


def interrupt():
    raise KeyboardInterrupt


def test_before_the_first_update_nothing_has_moved(trainable):
    workspace = trainable.open()
    result = run(workspace, "start")
    assert result.counts == {
        "examples": 12, "held_out": 0, "updates": 4, "resumed_from": 0,
        "reference_computed": 12 + 16, "reference_reused": 0,
    }  # fmt: skip
    first, *later = metrics(workspace, "start")
    assert first["loss"] == pytest.approx(6.4 * math.log(2), abs=1e-5)
    assert first["kl"] == first["rewards/margins"] == first["rewards/accuracies"] == 0
    assert [line["step"] for line in later] == [2, 3, 4]
    assert later[-1]["loss"] < first["loss"]
    assert later[-1]["rewards/margins"] > 0
    assert later[-1]["epoch"] == pytest.approx(16 / 12)
    wanted = {"parts/anchor", "rewards/chosen", "rewards/rejected", "logps/generated", "learning_rate",
              "tokens_per_second", "grad_norm"}  # fmt: skip
    assert wanted <= later[-1].keys()
    assert run(workspace, "start").status == "up_to_date"


def test_a_reference_that_is_not_the_start_stops_the_run(trainable, monkeypatch):
    from opadpo.training import run as run_module

    whole = run_module.continued_adapter

    def replaced(*arguments, **options):
        model = whole(*arguments, **options)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B.reference" in name:
                    parameter.add_(0.01)
        return model

    monkeypatch.setattr(run_module, "continued_adapter", replaced)
    workspace = trainable.open()
    with pytest.raises(StepFailed, match="policy and reference differ"):
        run(workspace, "moved")
    assert not workspace.adapter("moved").exists()


@pytest.mark.parametrize("loss", ["", "reduction=sequence", "mask_padding=true"], ids=["token", "sequence", "masked"])
def test_micro_batches_do_not_change_the_result(trainable, loss):
    shared = ["train.opadpo.max_steps=2", *([f"train.opadpo.loss.{loss}"] if loss else [])]
    results = []
    for setting in ("micro_batch_size=4", "micro_batch_size=1", "micro_batch_tokens=450"):
        workspace = trainable.open(*shared, f"train.opadpo.{setting}")
        shutil.rmtree(workspace.root / "adapters" / "micro", ignore_errors=True)
        shutil.rmtree(workspace.root / "runs" / "micro", ignore_errors=True)
        run(workspace, "micro")
        results.append((weights(workspace, "micro"), [line["loss"] for line in metrics(workspace, "micro")]))
    for other, losses in results[1:]:
        # Adam divides by tiny second moments: rounding of a few 1e-7 in gradients grows to this.
        assert_same(results[0][0], other, 2e-4)
        assert losses == pytest.approx(results[0][1], abs=1e-5)


def test_micro_batches_do_not_change_opa(trainable):
    results = []
    for size in (4, 1):
        workspace = trainable.open(f"train.opa.micro_batch_size={size}")
        shutil.rmtree(workspace.root / "adapters" / "opa-micro", ignore_errors=True)
        shutil.rmtree(workspace.root / "runs" / "opa-micro", ignore_errors=True)
        run(workspace, "opa-micro", "opa")
        results.append((weights(workspace, "opa-micro"), [line["loss"] for line in metrics(workspace, "opa-micro")]))
    assert_same(results[0][0], results[1][0], 2e-4)
    assert results[0][1] == pytest.approx(results[1][1], abs=1e-5)
    assert_same(results[0][0], weights(workspace, "opa"), 2e-4)  # another name, the same run


def test_the_same_command_gives_the_same_adapter(trainable):
    workspace = trainable.open("train.opadpo.max_steps=2")
    run(workspace, "same-1")
    run(workspace, "same-2")
    assert adapter_digest(workspace.adapter("same-1")) == adapter_digest(workspace.adapter("same-2"))
    assert workspace.manifest("adapters/same-1").content == adapter_digest(workspace.adapter("same-1"))


def test_opa_raises_what_it_is_trained_on(trainable):
    workspace = trainable.open("train.opa.epochs=4")
    run(workspace, "longer", "opa")
    lines = metrics(workspace, "longer")
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    assert lines[-1]["logps/revised"] > lines[0]["logps/revised"]


def test_opadpo_replaces_a_copy_and_leaves_tower_and_projector(trainable):
    workspace = trainable.open("train.opa.lora.targets=all", "train.opadpo.lora.targets=all")
    run(workspace, "wide", "opa")
    before = adapter_digest(workspace.adapter("wide"))
    run(workspace, "wide-dpo", start="wide")
    assert adapter_digest(workspace.adapter("wide")) == before
    start, end = weights(workspace, "wide"), weights(workspace, "wide-dpo")
    assert start.keys() == end.keys()
    assert {key: value.shape for key, value in start.items()} == {key: value.shape for key, value in end.items()}
    assert any("vision_tower" in key for key in start)
    for key, value in start.items():
        assert torch.equal(value, end[key]) == ("language_model" not in key), key


def test_the_ablations_start_from_the_base(trainable):
    workspace = trainable.open()
    progress = SilentProgress()
    result = run(workspace, "dpo", progress=progress)
    assert "OPA is skipped" in result.warnings[0]
    assert progress.warnings == result.warnings
    measured = json.loads((workspace.run("dpo") / "onpolicy.json").read_text())
    assert measured["under"].keys() == {"base"}
    assert run(workspace, "dpo-plain").status == "done"
    lines = metrics(workspace, "dpo-plain")
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert "logps/standard" not in lines[0]


def test_on_policy_measure(trainable):
    workspace = trainable.open()
    result = run(workspace, "measured")
    assert result.warnings == []
    under = json.loads((workspace.run("measured") / "onpolicy.json").read_text())["under"]
    assert under.keys() == {"base", "opa"}
    for name in ("standard", "revised"):
        assert under["opa"][name]["mean"] > under["base"][name]["mean"]
        assert under["opa"][name]["n"] == under["base"][name]["n"] > 100


def test_rollouts_of_another_model_raise_the_alarm(trainable, tmp_path):
    from opadpo.records import Rollout
    from opadpo.tables import read_records, write_records

    shutil.copytree(trainable.root, tmp_path / "ws")
    workspace = type(trainable)(tmp_path / "ws", trainable.base).open("train.opadpo.max_steps=1")
    rollouts = read_records(workspace.rollouts, Rollout)
    others = [rollout.model_copy(update={"model": "another/model@1"}) for rollout in rollouts]
    write_records(workspace.rollouts / "part-00000.parquet", others, Rollout)
    result = run(workspace, "foreign")
    assert "another/model@1 sampled them" in result.warnings[0]


@pytest.mark.parametrize("stage", ["opa", "opadpo"])
def test_an_interrupted_run_ends_like_one_that_was_not(trainable, stage):
    steps = ["train.opa.epochs=2", "train.opadpo.max_steps=6", "train.opa.lora.dropout=0.1"]
    workspace = trainable.open(*steps)
    run(workspace, f"whole-{stage}", stage)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, f"cut-{stage}", stage, progress=StopAt(5, interrupt))
    folder = workspace.run(f"cut-{stage}")
    assert newest(workspace, f"cut-{stage}").name == "checkpoint-4"
    torn = folder / "checkpoint-5"
    shutil.copytree(folder / "checkpoint-4", torn)
    (torn / "complete.json").unlink()
    damaged = folder / "checkpoint-6"
    shutil.copytree(folder / "checkpoint-4", damaged)
    with (damaged / "optimizer.pt").open("r+b") as stream:
        stream.truncate(1000)
    result = run(workspace, f"cut-{stage}", stage)
    assert result.counts["resumed_from"] == 4
    # On one machine a resumed run repeats the other's arithmetic: not a tolerance, the same numbers.
    assert_same(weights(workspace, f"whole-{stage}"), weights(workspace, f"cut-{stage}"), 0.0)
    curves = [[(line["step"], line["loss"]) for line in metrics(workspace, f"{n}-{stage}")] for n in ("whole", "cut")]
    assert curves[0] == curves[1]


def test_checkpoints_of_another_plan_are_not_continued(trainable):
    with pytest.raises(KeyboardInterrupt):
        run(trainable.open(), "replanned", progress=StopAt(3, interrupt))
    workspace = trainable.open("train.opadpo.learning_rate=0.005")
    result = run(workspace, "replanned")
    assert result.counts["resumed_from"] == 0
    assert len(metrics(workspace, "replanned")) == 4


def test_a_run_killed_before_its_adapter_was_in_place_only_writes_it(trainable):
    workspace = trainable.open()
    run(workspace, "unwritten")
    trained = weights(workspace, "unwritten")
    shutil.rmtree(workspace.adapter("unwritten"))
    assert run(workspace, "unwritten").counts["resumed_from"] == 4
    assert_same(trained, weights(workspace, "unwritten"), 0.0)
    assert len(metrics(workspace, "unwritten")) == 4


def test_only_so_many_checkpoints_stay(trainable):
    workspace = trainable.open("train.opadpo.save_steps=1", "train.opadpo.keep_checkpoints=2")
    run(workspace, "few")
    assert sorted(p.name for p in workspace.run("few").glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


def test_no_pickle_of_ours_is_written(trainable):
    workspace = trainable.open()
    folder = newest(workspace, "opa")
    assert not (folder / "training_args.bin").exists()
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.load(folder / name, weights_only=True)


def test_a_full_disk_leaves_the_checkpoint_before(trainable):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))

    workspace = trainable.open()
    try:
        with pytest.raises(DiskFull, match="free some space"):
            run(workspace, "full", progress=StopAt(3, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in workspace.run("full").glob("checkpoint-*")] == ["checkpoint-2"]
    assert run(workspace, "full").counts["resumed_from"] == 2


def test_numbers_that_are_not_finite_stop_the_run(trainable):
    workspace = trainable.open("train.opadpo.learning_rate=1e30", "train.opadpo.save_steps=1")
    with pytest.raises(StepFailed, match="not finite at update 2"):
        run(workspace, "nan")
    report = json.loads((workspace.run("nan") / "bad_batch.json").read_text())
    assert report["step"] == 2
    assert len(report["example_ids"]) == 4
    assert all(example.startswith("e-") for example in report["example_ids"])
    assert not workspace.adapter("nan").exists()


def test_no_gpu_memory_names_the_setting(trainable, monkeypatch):
    from opadpo.training import opadpo

    def explode(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(opadpo, "response_logps", explode)
    with pytest.raises(StepFailed) as caught:
        run(trainable.open(), "oom")
    assert "train.opadpo.micro_batch_size from 4 to 2" in str(caught.value)
    assert "gradient_checkpointing" in str(caught.value)


def test_evaluation_on_held_out_images(trainable):
    shared = ["train.opadpo.eval_share=0.25", "train.opadpo.eval_steps=2"]
    curves = []
    for size in (4, 1):
        workspace = trainable.open(*shared, f"train.opadpo.micro_batch_size={size}")
        result = run(workspace, f"held-{size}")
        assert result.counts["held_out"] == 3
        assert result.counts["examples"] == 9
        lines = [line for line in metrics(workspace, f"held-{size}") if "eval_loss" in line]
        assert [line["step"] for line in lines] == [2, 4]
        assert "eval_rewards/margins" in lines[0]
        curves.append([line["eval_loss"] for line in lines])
    assert curves[0] == pytest.approx(curves[1], abs=1e-3)


@pytest.mark.parametrize(
    "override", ["gradient_checkpointing=true", "precision=bfloat16", "schedule=cosine", "weight_decay=0.1"]
)
def test_options_of_the_trainer(trainable, override):
    name = override.partition("=")[0].replace("_", "-")
    workspace = trainable.open(f"train.opadpo.{override}", "train.opadpo.warmup_steps=1")
    run(workspace, name)
    lines = metrics(workspace, name)
    assert lines[0]["loss"] == pytest.approx(6.4 * math.log(2), abs=1e-5)
    assert [line["learning_rate"] for line in lines][:2] == [0.0, 0.01]
    if override == "schedule=cosine":
        assert lines[-1]["learning_rate"] < 0.005
    else:
        assert lines[-1]["learning_rate"] == 0.01


def test_lora_dropout_does_not_trip_the_first_check(trainable):
    workspace = trainable.open("train.opadpo.max_steps=1", "train.opadpo.lora.dropout=0.5")
    run(workspace, "dropout", start="base")
    assert metrics(workspace, "dropout")[0]["rewards/margins"] == 0  # a new adapter's second half is zero


def test_adapters_that_do_not_fit_are_refused(trainable, tmp_path):
    with pytest.raises(ModelError, match="r is not the recipe's"):
        run(trainable.open(*both_stages("rank=8")), "other-rank")
    with pytest.raises(ModelError, match="target_modules is not the recipe's"):
        run(trainable.open(*both_stages("targets=all")), "other-targets")
    shutil.copytree(trainable.root, tmp_path / "ws")
    workspace = type(trainable)(tmp_path / "ws", trainable.base).open()
    config = workspace.adapter("opa") / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "another/base"}))
    with pytest.raises(ModelError, match="another base"):
        run(workspace, "other-base")
    assert not workspace.adapter("other-base").exists()


def test_mistakes_are_told_before_anything_starts(trainable, tmp_path):
    workspace = trainable.open()
    before = sorted(workspace.root.glob(".staging/*"))
    with pytest.raises(UserError, match="cannot start from itself"):
        run(workspace, "itself", start="itself")
    for names in ({"name": "a/b"}, {"name": "x", "start": "../.."}):
        with pytest.raises(UserError, match="characters that are not allowed"):
            train(workspace, "opa", progress=SilentProgress(), **names)
    assert sorted(workspace.root.glob(".staging/*")) == before
    with pytest.raises(UserError, match="without an adapter"):
        run(workspace, "base")
    with pytest.raises(MissingArtefact, match="--name nobody"):
        run(workspace, "child", start="nobody")
    with pytest.raises(Exception, match="optimizer adamw_8bit needs a CUDA GPU"):
        run(trainable.open("train.opadpo.optimizer=adamw_8bit"), "eight")
    with workspace.lock("adapters/busy"), pytest.raises(Busy):
        run(workspace, "busy")
    with pytest.raises(DataError, match="eval_share"):
        run(trainable.open("train.opadpo.eval_share=0.99"), "all-held")


def test_a_run_of_other_settings_begins_anew_and_says_why(trainable):
    shared = ["train.opadpo.reference=on_the_fly", "train.opadpo.save_steps=1"]
    workspace = trainable.open(*shared)
    with pytest.raises(KeyboardInterrupt):
        run(workspace, "other", progress=StopAt(3, interrupt))
    progress = SilentProgress()
    result = run(trainable.open(*shared, "train.opadpo.learning_rate=0.02"), "other", progress=progress)
    assert result.counts["resumed_from"] == 0
    (told,) = [message for message in progress.messages if "from the beginning" in message]
    assert "learning_rate was 0.01, is now 0.02" in told


def test_a_launcher_s_processes_share_the_memory(trainable, monkeypatch):
    from opadpo.steps import train as step

    seen = []
    monkeypatch.setattr(step, "processes_wanted", lambda configured: 2 * configured)
    monkeypatch.setattr(step, "_carry_out", lambda job, progress: seen.append(job.recipe) or interrupt())
    with pytest.raises(KeyboardInterrupt):
        run(trainable.open("train.opadpo.micro_batch_size=2"), "launched-memory")
    assert seen[0].train.processes == 2
    with pytest.raises(UserError, match="with the processes that were started"):
        run(trainable.open("train.opadpo.batch_size=3", "train.opadpo.micro_batch_size=3"), "launched-odd")
