"""The user's mistakes: one clear message, exit status 2, nothing half-written; failures: 1; interrupts: 130."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import Ended, Run

from opadpo.errors import StepFailed
from opadpo.processes.signals import Stopped
from opadpo.recipe import preset_names
from opadpo.workspace import Workspace


def only_message(ended: Ended, status: int = 2) -> str:
    """The message of a mistake: no traceback, nothing on standard output."""
    assert ended.status == status
    assert ended.out == ""
    assert "Traceback" not in ended.err
    return ended.err


def test_every_mistake_in_a_recipe_is_told_at_once(run: Run, finished: Path) -> None:
    data = yaml.safe_load((finished / "recipe.yaml").read_text())
    data["rollout"] |= {"temprature": 1, "top_p": 2, "temperature": 0, "samples_per_prompt": 3}
    data["train"]["opa"]["epochs"] = "many"
    data["nonsense"] = {}
    (finished / "recipe.yaml").write_text(yaml.safe_dump(data))
    message = only_message(run("status", finished))
    assert "recipe.yaml has 5 mistakes" in message
    for part in (
        "rollout.temprature: unknown key, seen 1; did you mean rollout.temperature?",
        "rollout.top_p:",
        "rollout.samples_per_prompt: seen 3 with rollout.temperature 0",
        "train.opa.epochs:",
        "nonsense: unknown key",
    ):
        assert part in message
    ended = run("status", finished, "--json")
    assert ended.status == ended.result["exit"] == 2
    assert ended.result["error"]["type"] == "RecipeError"
    assert len(ended.result["error"]["problems"]) == 5


def test_a_wrong_choice_names_the_right_ones(run: Run, finished: Path) -> None:
    assert "Invalid value for 'opa|opadpo': 'foo' is not one of 'opa', 'opadpo'" in run("train", "foo", finished).err


def test_a_folder_that_is_no_workspace(run: Run, tmp_path: Path) -> None:
    message = only_message(run("status", tmp_path))
    assert message.startswith("Error: This is not a workspace")
    assert f"remedy: make one with `opadpo init {tmp_path}" in message
    assert run("status", tmp_path, "--json").result == {
        "error": {
            "type": "WorkspaceError",
            "what": "This is not a workspace: it has no recipe.yaml",
            "seen": str(tmp_path),
            "remedy": f"make one with `opadpo init {tmp_path} --recipe toy`",
        },
        "exit": 2,
    }
    assert list(tmp_path.iterdir()) == []


def test_init_refuses_unknown_recipes_and_full_folders(run: Run, tmp_path: Path, finished: Path) -> None:
    message = only_message(run("init", tmp_path / "w", "--recipe", "tooy"))
    assert all(name in message for name in preset_names())
    assert "Which recipe?" in only_message(run("init", tmp_path / "w"))
    assert not (tmp_path / "w").exists()
    assert "is a workspace already" in only_message(run("init", finished, "--recipe", "toy"))
    assert "holds other files" in only_message(run("init", tmp_path, "--recipe", "toy"))
    (tmp_path / "file").write_text("")
    assert "is a file" in only_message(run("init", tmp_path / "file", "--recipe", "toy"))


def test_overrides_are_checked_together(run: Run, tmp_path: Path) -> None:
    words = ("init", tmp_path / "w", "--recipe", "toy")
    message = only_message(run(*words, "--set", "seed", "--set", "seed.x=1"))
    assert "2 mistakes" in message
    assert "--set 'seed': write section.key=value" in message
    assert "rollout.top_p" in only_message(run(*words, "--set", "rollout.top_p=7"))
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["trian"], "Did you mean 'train'?"),
        (["status"], "Missing argument 'WORKSPACE'"),
        (["train", "opq", "w"], "opadpo"),
        (["status", "w", "--nonsense"], "No such option"),
    ],
)
def test_mistakes_on_the_command_line(run: Run, words: list[str], message: str) -> None:
    text = only_message(run(*words))
    assert message in text
    assert "--help' for help" in text
    ended = run(*words, "--json")
    assert ended.status == ended.result["exit"] == 2
    assert ended.result["error"]["type"] == "UsageError"
    assert "--help" in ended.result["error"]["remedy"]


def test_a_missing_earlier_step_is_named_with_its_command(run: Run, tmp_path: Path) -> None:
    run("init", tmp_path / "w", "--recipe", "toy")
    message = only_message(run("rollout", tmp_path / "w", "--quiet"))
    assert "prompts is not there yet" in message
    assert "opadpo prepare" in message
    assert not (tmp_path / "w" / "rollouts").exists()


def test_a_second_writer_is_refused_and_told_who_writes(run: Run, tmp_path: Path) -> None:
    run("init", tmp_path / "w", "--recipe", "toy")
    with Workspace.open(tmp_path / "w").lock("prompts"):
        message = only_message(run("prepare", tmp_path / "w", "--quiet"))
    assert "Another process is writing prompts" in message
    assert f"process {os.getpid()}" in message


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_told(run: Run, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        told = only_message(run("report", finished, "--output", place, "--quiet"))
        assert "A folder cannot be made here" in told
        assert str(place) in told
    export = ("export", finished, "--format", "reviews", "--output", tmp_path / "file" / "reviews.jsonl", "--quiet")
    assert f"{tmp_path / 'file'} is a file" in only_message(run(*export))


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(program: Run, tmp_path: Path) -> None:
    ended = program("init", tmp_path / "w", "--recipe", "toy", before="ulimit -f 0")
    message = only_message(ended)
    assert "No space left" in message
    assert "free some space" in message
    assert list(tmp_path.rglob("*.*")) == []


def _raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def look(_: Workspace) -> None:
        raise error

    monkeypatch.setattr("opadpo.steps.status.status", look)


def test_a_full_disk_inside_a_library_is_recognised(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("writing failed")
    error.__cause__ = ValueError("I/O error: No space left on device (os error 28)")
    _raise(monkeypatch, error)
    assert "No space left on the disk" in only_message(run("status", finished))


def test_a_failed_step_ends_with_1(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise(monkeypatch, StepFailed("It did not work", seen=3, remedy="run it again"))
    assert only_message(run("status", finished), 1) == "Error: It did not work\n  seen: 3\n  remedy: run it again\n"


def test_an_unexpected_error_is_short_and_its_traceback_is_kept(
    run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPADPO_DEBUG", raising=False)
    _raise(monkeypatch, ZeroDivisionError("by nought\nand \udcfc"))
    ended = run("status", finished, "--json")
    assert ended.status == ended.result["exit"] == 1
    assert "unexpected ZeroDivisionError: by nought" in ended.err
    assert "Traceback" not in ended.err
    [log] = (finished / ".logs").iterdir()
    assert str(log) in ended.err
    assert "in look\n    raise error" in log.read_text()
    _raise(monkeypatch, ZeroDivisionError("by nought"))
    monkeypatch.setenv("OPADPO_DEBUG", "1")
    assert "Traceback" in run("status", finished).err


def test_a_package_that_is_not_installed_is_named(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise(monkeypatch, ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"))
    assert "seen: bitsandbytes" in only_message(run("status", finished))


def test_ctrl_c_says_how_to_continue(run: Run, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _raise(monkeypatch, KeyboardInterrupt())
    ended = run("status", finished)
    assert (ended.status, ended.err) == (130, "stopped; run the same command again to continue\n")
    _raise(monkeypatch, Stopped(signal.SIGTERM))
    assert run("status", finished, "--json").result["exit"] == 143


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_error() -> None:
    command = f"{sys.executable} -m opadpo recipe | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def test_a_port_in_use_is_told(run: Run, finished: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        message = only_message(run("app", finished, "--port", port))
    assert str(port) in message
    assert "remedy:" in message
