"""What the doctor finds, on this machine and on ones that lack something."""

from pathlib import Path

import pytest
from servers import chat_server

from opadpo import doctor
from opadpo.doctor import Check, examine
from opadpo.recipe import preset_text
from opadpo.training import fitting


def check(report: doctor.Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(preset_text("toy") + "\n" + text)
    return str(path)


@pytest.mark.slow
def test_everything_required_is_there_for_the_toy_world() -> None:
    report = examine("toy")
    assert report.missing == []
    for name in ("python", "torch", "transformers", "peft", "accelerate", "gradio", "base model"):
        assert check(report, name).state == "ok"
    assert all(found.cost and found.remedy for found in report.checks if found.state != "ok")
    assert check(report, "expert").seen == "`opadpo revise` starts a server of its own"


def test_a_missing_package_and_a_wrong_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"peft": None, "gradio": "5.0"}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))
    report = examine()
    assert [found.name for found in report.missing] == ["peft"]
    assert check(report, "peft").remedy.startswith("pip install 'peft")
    assert check(report, "gradio").state == "warning"
    assert "peft" in report.verdict


def test_without_a_recipe_only_the_key_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert check(examine(), "key of the expert").state == "missing"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    report = examine()
    assert check(report, "key of the expert").state == "ok"
    assert "sk-secret" not in str(report.as_dict())


@pytest.mark.slow
def test_the_recipes_servers_are_asked_with_one_call_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with chat_server() as server:
        one = f"{{api_key_env: MY_KEY, base_url: '{server.url}', model: MODEL}}"
        recipe = tmp_path / "r.yaml"
        recipe.write_text(
            f"revise: {{endpoint: {one.replace('MODEL', 'test-model')}, more_endpoints:"
            f" [{one.replace('MODEL', 'other')}, {one.replace('MY_KEY', 'NO_KEY')},"
            f" {one.replace(server.url, 'http://127.0.0.1:9/v1')}]}}\n"
            f"rollout: {{engine: server, server: {{endpoint: {one.replace('MODEL', 'test-model')}}}}}"
        )
        report = examine(str(recipe))
        assert server.paths == ["GET /v1/models"] * 3
        assert server.keys == set()
    assert check(report, "expert 1").state == "ok"
    assert "does not list the model other" in check(report, "expert 2").seen
    assert "NO_KEY is not set" in check(report, "expert 3").seen
    assert "cannot be reached" in check(report, "expert 4").seen
    assert check(report, "sampling server").state == "ok"
    assert [found.name for found in report.missing] == ["expert 3", "expert 4"]
    assert "sk-secret" not in str(report.as_dict())


def test_a_base_model_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {base: nobody/nothing-at-all}")
    assert check(examine(str(recipe)), "base model").state == "warning"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    report = examine(str(recipe))
    assert "base model" in [found.name for found in report.missing]
    folder = tmp_path / "empty"
    folder.mkdir()
    recipe.write_text(f"model: {{base: {folder}}}")
    assert "config.json" in check(examine(str(recipe)), "base model").seen


@pytest.mark.slow
def test_memory_of_both_stages_is_told_without_the_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("opadpo.training.fitting.memory_at_hand", lambda *_: fitting.Memory("RAM", 2**33, gpu=False))
    report = examine("llava-1.5-7b")
    for stage in ("opa", "opadpo"):
        found = check(report, f"memory of train.{stage}")
        assert found.state == "warning"
        assert "weights 13.2" in found.seen
        assert "of 8.0 GiB (RAM)" in found.seen
        assert "none in 24 GiB" in found.remedy
    assert check(examine("toy"), "memory of train.opadpo").state == "ok"
    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {base: nobody/nothing-at-all}")
    unknown = check(examine(str(recipe)), "memory of training")
    assert "opadpo prepare" in unknown.remedy


@pytest.mark.slow
def test_what_the_recipe_asks_of_the_gpu_is_required(tmp_path: Path) -> None:
    import torch

    recipe = tmp_path / "r.yaml"
    recipe.write_text("model: {device: cuda, attention: flash_attention_2, quantization: 4bit}")
    missing = {found.name for found in examine(str(recipe)).missing}
    if not torch.cuda.is_available():
        assert {"gpu", "bitsandbytes", "attention: flash-attn"} <= missing


def test_little_room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_DISK_GIB", 1e9)
    found = check(examine(), "disk of this folder")
    assert found.state == "warning"
    assert "GiB free" in found.seen


def test_the_exit_status_answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from opadpo.cli import main

    report = doctor.Report([Check("torch", "missing", "no", "all", "install it", required=True)])
    monkeypatch.setattr(doctor, "examine", lambda **_: report)
    assert main(["doctor"]) == 1
    assert "torch: all\n  -> install it" in capsys.readouterr().out
    optional = doctor.Report([Check("gpu", "missing", "no", "slow", "buy one")])
    monkeypatch.setattr(doctor, "examine", lambda **_: optional)
    assert main(["doctor", "--json"]) == 0
    assert '"exit": 0' in capsys.readouterr().out
