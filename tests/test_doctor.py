"""What the doctor finds, on this machine and on ones that lack something."""

from pathlib import Path

import pytest

from opadpo import doctor
from opadpo.doctor import Check, examine
from opadpo.recipe import preset_text


def check(report: doctor.Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(preset_text("toy") + "\n" + text)
    return str(path)


def test_everything_required_is_there_for_the_toy_world() -> None:
    report = examine("toy")
    assert report.missing == []
    for name in ("python", "torch", "transformers", "peft", "accelerate", "gradio", "base model"):
        assert check(report, name).state == "ok"
    assert all(found.cost and found.remedy for found in report.checks if found.state != "ok")
    assert check(report, "key of the expert").seen == "the recipe's expert takes no key"


def test_a_missing_package_and_a_wrong_version(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"peft": None, "gradio": "5.0"}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))
    report = examine()
    assert [found.name for found in report.missing] == ["peft"]
    assert check(report, "peft").remedy.startswith("pip install 'peft")
    assert check(report, "gradio").state == "warning"
    assert "peft" in report.verdict


def test_keys_are_looked_for_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("revise: {endpoint: {api_key_env: MY_KEY}}")
    monkeypatch.delenv("MY_KEY", raising=False)
    assert check(examine(str(recipe)), "key of the expert").seen == "MY_KEY is not set"
    monkeypatch.setenv("MY_KEY", "sk-secret")
    report = examine(str(recipe))
    assert check(report, "key of the expert").state == "ok"
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
