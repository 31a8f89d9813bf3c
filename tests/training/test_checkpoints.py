"""Complete checkpoints are found, torn ones are not."""

import errno

import pytest

from opadpo.errors import DiskFull
from opadpo.training.checkpoints import clear_torn, keep_newest, mark_complete, newest_complete, saving
from opadpo.training.reporting import cut_metrics


def checkpoint(run, step, *, complete=True):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 100)
    if complete:
        mark_complete(folder)
    return folder


def test_the_newest_complete_one(tmp_path):
    assert newest_complete(tmp_path) is None
    checkpoint(tmp_path, 9)
    ten = checkpoint(tmp_path, 10)
    cut = checkpoint(tmp_path, 20)
    (cut / "weights").write_bytes(b"x" * 50)
    checkpoint(tmp_path, 30, complete=False)
    (tmp_path / "checkpoint-x").mkdir()
    rotten = checkpoint(tmp_path, 15)
    (rotten / "weights").write_bytes(b"x" * 99 + b"y")
    assert newest_complete(tmp_path) == ten
    clear_torn(tmp_path, after=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]
    keep_newest(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-10"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_a_full_disk_is_told_and_the_torn_folder_goes(tmp_path, error):
    folder = checkpoint(tmp_path, 4, complete=False)
    with pytest.raises(DiskFull, match="free some space"), saving(folder):
        raise error
    assert not folder.exists()


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="shape"), saving(tmp_path / "checkpoint-1"):
        raise RuntimeError("shape mismatch")


def test_a_resumed_run_writes_its_lines_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n{"step": 3, "loss": 1}\n{"step": 4, "lo')
    cut_metrics(path, 2)
    assert path.read_text() == '{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n'
