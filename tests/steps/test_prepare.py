"""`prepare` from real files to prompts and images: what is kept, dropped, refused, resumed and repeated."""

import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image
from source_data import image_bytes, make_workspace, rlaifv_rows, write_parquet

from opadpo.errors import Busy, DataError, DiskFull, ModelError
from opadpo.images import open_rgb
from opadpo.models.base import read_pin
from opadpo.progress import SilentProgress
from opadpo.records import Prompt
from opadpo.steps import plans
from opadpo.steps.prepare import prepare
from opadpo.steps.result import StepResult
from opadpo.tables import read_records
from opadpo.workspace import Workspace

CHILD = """
import os, signal, sys, time
from pathlib import Path
from opadpo.progress import SilentProgress
from opadpo.steps import image_store
from opadpo.steps.prepare import prepare
from opadpo.workspace import Workspace

calls, mode, number = 0, sys.argv[2], int(sys.argv[3])
original = image_store.ImageStore.add
def add(self, *arguments):
    global calls
    calls += 1
    if mode == "kill" and calls == number:
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "wait" and calls == number:
        Path(sys.argv[4]).touch()
        while Path(sys.argv[4]).exists():
            time.sleep(0.01)
    return original(self, *arguments)
image_store.ImageStore.add = add
prepare(Workspace.open(sys.argv[1]), progress=SilentProgress())
"""


def run(workspace: Workspace, **options) -> StepResult:
    return prepare(workspace, progress=SilentProgress(), **options)


def prompts_of(workspace: Workspace) -> list[Prompt]:
    return read_records(workspace.prompts / "prompts.parquet", Prompt)


def dropped_of(workspace: Workspace) -> list[dict[str, str]]:
    return [json.loads(line) for line in (workspace.prompts / "dropped.jsonl").read_text().splitlines()]


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file but the manifest, which holds times."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "manifest.json"
    }


@pytest.fixture
def new_workspace(tmp_path: Path, tiny_llava_folder: Path) -> Callable[..., Workspace]:
    """Make a workspace in a fresh folder."""
    count = iter(range(100))

    def make(source: dict, folder: Path | None = None, **prepare_section) -> Workspace:
        return make_workspace(folder or tmp_path / f"ws{next(count)}", tiny_llava_folder, source, **prepare_section)

    return make


@pytest.fixture
def rlaifv(tmp_path: Path) -> dict:
    """A source of 100 rows with nothing wrong."""
    return {"kind": "rlaifv", "path": str(write_parquet(tmp_path / "rows.parquet", rlaifv_rows(100)))}


def test_rlaifv_becomes_stratified_disjoint_subsets(new_workspace, rlaifv) -> None:
    workspace = new_workspace(rlaifv)
    result = run(workspace)
    prompts = prompts_of(workspace)
    assert result.counts == {"rows_read": 100, "train": 40, "heldout": 8, "images": 48, "dropped": 0}
    assert Counter(p.subset for p in prompts) == {"train-0": 20, "train-1": 20, "heldout": 8}
    assert Counter((p.subset, p.source) for p in prompts if p.source == "VQAv2") == {
        ("train-0", "VQAv2"): 5,
        ("train-1", "VQAv2"): 5,
        ("heldout", "VQAv2"): 2,
    }
    rows = {row["idx"]: row for row in rlaifv_rows(100)}
    for prompt in prompts:
        row = rows[prompt.extra["idx"]]
        assert (prompt.question, prompt.reference) == (row["question"], row["chosen"])
        assert prompt.extra["rejected"] == row["rejected"]
        assert prompt.extra["image_path"] == row["image_path"]
        stored = (workspace.prompts / prompt.image_file).read_bytes()
        assert stored == row["image"]["bytes"]
        assert hashlib.sha256(stored).hexdigest() == prompt.image_id
    held = {p.image_id for p in prompts if p.split == "heldout"}
    assert held.isdisjoint(p.image_id for p in prompts if p.split == "train")
    assert read_pin(workspace).family == "llava"


def test_run_again_it_does_nothing(new_workspace, rlaifv) -> None:
    workspace = new_workspace(rlaifv)
    first = run(workspace)
    before = {p: p.stat().st_mtime_ns for p in workspace.root.rglob("*") if p.is_file()}
    again = run(workspace)
    assert (again.status, again.outputs, again.counts) == ("up_to_date", [], first.counts)
    assert before == {p: p.stat().st_mtime_ns for p in workspace.root.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_the_result_depends_on_data_and_seed_and_not_on_files_and_order(new_workspace, rlaifv, tmp_path) -> None:
    rows = rlaifv_rows(100)
    parts = tmp_path / "parts"
    parts.mkdir()
    write_parquet(parts / "b.parquet", rows[:30])
    write_parquet(parts / "a.parquet", rows[:29:-1], row_group_size=1000)
    whole, split = new_workspace(rlaifv), new_workspace({"kind": "rlaifv", "path": str(parts / "*.parquet")})
    run(whole)
    run(split)
    assert prompts_of(whole) == prompts_of(split)
    reseeded = new_workspace(rlaifv)
    reseeded = Workspace.open(reseeded.root, ["seed=1"])
    run(reseeded)
    assert {p.prompt_id for p in prompts_of(reseeded)} != {p.prompt_id for p in prompts_of(whole)}


def test_every_unusable_row_is_listed_with_its_reason(new_workspace, tmp_path) -> None:
    rows = rlaifv_rows(60)
    truncated = image_bytes(901)[:-300]
    buffer = io.BytesIO()
    Image.new("RGB", (400, 1)).save(buffer, format="PNG")
    ribbon = buffer.getvalue()
    bad: list[tuple[dict, str, str]] = [
        ({"image": {"bytes": b"no image at all", "path": "x"}}, "broken image", "not a readable image"),
        ({"image": {"bytes": truncated, "path": "x"}}, "broken image", "cannot be decoded"),
        ({"image": {"bytes": None, "path": None}}, "no image", "empty"),
        ({"image": {"bytes": None, "path": "nowhere.png"}}, "no image", "nowhere.png"),
        ({"image": {"bytes": image_bytes(902, side=2000, kind="JPEG"), "path": "x"}}, "broken image", "too large"),
        ({"image": {"bytes": ribbon, "path": "x"}}, "broken image", "too elongated: 400 x 1"),
        ({"question": " <image>\n"}, "no question", "empty"),
        ({"chosen": None}, "no reference", "empty"),
        ({}, "duplicate", "rows.parquet, row"),
    ]
    for index, (change, _, _) in enumerate(bad):
        rows.insert(7 * index, {**rows[7 * index], **change})
    path = write_parquet(tmp_path / "rows.parquet", rows)
    workspace = new_workspace({"kind": "rlaifv", "path": str(path)}, subsets=1, subset_size=50, heldout_size=10)
    workspace = Workspace.open(workspace.root, ["image.max_pixels=1000000"])
    result = run(workspace)
    dropped = dropped_of(workspace)
    assert [(entry["row"], entry["reason"]) for entry in dropped[:-1]] == [
        (f"rows.parquet, row {7 * index}", reason) for index, (_, reason, _) in enumerate(bad[:-1])
    ]
    assert dropped[-1]["reason"] == "duplicate"
    for entry, (_, _, detail) in zip(dropped, bad, strict=True):
        assert detail in entry["detail"]
    assert result.dropped == {"broken image": 4, "no image": 2, "no question": 1, "no reference": 1, "duplicate": 1}
    assert result.counts["train"] + result.counts["heldout"] == 60
    assert result.warnings == []


def test_images_of_every_kind_are_stored_as_browsers_and_models_read_them(new_workspace, tmp_path) -> None:
    rows = rlaifv_rows(12)
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (60, 40), (200, 30, 30))
    odd: list[tuple[str, Image.Image, str, dict]] = [
        ("JPEG", wide.convert("CMYK"), "png", {}),
        ("PNG", Image.new("I;16", (60, 40), 40_000), "png", {}),
        ("GIF", wide, "png", {"save_all": True, "append_images": [Image.new("RGB", (60, 40), "blue")]}),
        ("JPEG", wide.rotate(90, expand=True), "png", {"exif": exif}),
        ("PNG", wide.quantize(2), "png", {"transparency": 0}),
        ("PNG", Image.new("RGB", (60, 1), (200, 30, 30)), "png", {}),
    ]
    for row, (kind, image, _, options) in zip(rows, odd, strict=False):
        buffer = io.BytesIO()
        image.save(buffer, format=kind, **options)
        row["image"]["bytes"] = buffer.getvalue()
    path = write_parquet(tmp_path / "rows.parquet", rows)
    workspace = new_workspace({"kind": "rlaifv", "path": str(path)}, subsets=1, subset_size=12, heldout_size=0)
    assert run(workspace).dropped == {}
    stored = {p.extra["idx"]: workspace.prompts / p.image_file for p in prompts_of(workspace)}
    for row, (_, image, extension, _) in zip(rows, odd, strict=False):
        file = stored[row["idx"]]
        picture = open_rgb(file)
        assert file.suffix == f".{extension}"
        assert picture.size == (60, min(image.size)) if 1 in image.size else (60, 40)
        red, _, blue = picture.getpixel((30, picture.height // 2))  # type: ignore[misc]  # RGB
        assert red > 100
        assert blue < 100 or red == blue


@pytest.mark.slow
def test_a_row_with_a_broken_image_is_replaced_by_one_of_the_same_origin(new_workspace, tmp_path, rlaifv) -> None:
    sound = new_workspace(rlaifv)
    run(sound)
    broken = {p.extra["idx"] for p in prompts_of(sound)[::2]}
    rows = rlaifv_rows(100)
    for index in broken:
        rows[index]["image"]["bytes"] = rows[index]["image"]["bytes"][:-200]
    path = write_parquet(tmp_path / "broken.parquet", rows)
    workspace = new_workspace({"kind": "rlaifv", "path": str(path)})
    result = run(workspace)
    prompts = prompts_of(workspace)
    assert broken.isdisjoint(p.extra["idx"] for p in prompts)
    assert Counter((p.subset, p.source == "COCO") for p in prompts) == Counter(
        (p.subset, p.source == "COCO") for p in prompts_of(sound)
    )
    found = {int(entry["row"].split()[-1]) for entry in dropped_of(workspace)}
    assert result.dropped == {"broken image": len(found)}
    assert found
    assert found <= broken


def test_too_few_rows_are_taken_in_proportion_with_a_warning(new_workspace, rlaifv) -> None:
    workspace = new_workspace(rlaifv, subsets=4, subset_size=100, heldout_size=100)
    progress = SilentProgress()
    result = prepare(workspace, progress=progress)
    assert result.counts["train"] == 80
    assert result.counts["heldout"] == 20
    assert progress.warnings == result.warnings
    assert "80 training rows of 400 wanted and 20 held-out rows of 100" in result.warnings[0]


def test_an_image_is_stored_once_and_its_questions_stay_on_one_side(new_workspace, tmp_path) -> None:
    rows = [{**row, "question": f"{row['question']} {n}"} for row in rlaifv_rows(20) for n in range(3)]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    workspace = new_workspace({"kind": "rlaifv", "path": str(path)}, subsets=1, subset_size=50, heldout_size=10)
    run(workspace)
    prompts = prompts_of(workspace)
    files = [p for p in (workspace.prompts / "images").rglob("*") if p.is_file()]
    assert len(files) == len({p.image_id for p in prompts}) < len(prompts)
    held = {p.image_id for p in prompts if p.split == "heldout"}
    assert held
    assert held.isdisjoint(p.image_id for p in prompts if p.split == "train")


def test_images_that_become_the_same_when_stored_are_one_image(new_workspace, tmp_path) -> None:
    # The same pixels in two files that both have to be encoded again.
    rows = rlaifv_rows(12, origin_dataset="COCO")
    for index, row in enumerate(rows):
        kind = "TIFF" if index % 2 else "BMP"
        row["image"]["bytes"] = image_bytes(index // 2, kind=kind)
        row["question"] = "What is this?"
    path = write_parquet(tmp_path / "rows.parquet", rows)
    workspace = new_workspace({"kind": "rlaifv", "path": str(path)}, subsets=1, subset_size=9, heldout_size=3)
    result = run(workspace)
    prompts = prompts_of(workspace)
    assert result.dropped == {"duplicate": 6}
    assert len({p.image_id for p in prompts}) == len(prompts) == 6
    assert {Path(p.image_file).suffix for p in prompts} == {".png"}


def test_a_folder_of_images_with_one_question(new_workspace, tmp_path) -> None:
    folder = tmp_path / "photos"
    for index in range(12):
        file = folder / ("indoor" if index % 3 else "outdoor") / f"{index}.PNG"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_bytes(index))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"x")
    source = {"kind": "folder", "path": str(folder), "question": "Describe the image."}
    workspace = new_workspace(source, subsets=1, subset_size=8, heldout_size=4)
    assert run(workspace).counts["train"] == 8
    prompts = prompts_of(workspace)
    assert {p.question for p in prompts} == {"Describe the image."}
    assert {p.reference for p in prompts} == {""}
    assert Counter(p.source for p in prompts) == {"indoor": 8, "outdoor": 4}
    (folder / "indoor" / "new.png").write_bytes(image_bytes(99))
    assert workspace.state(plans.prompts(workspace)) == "stale"
    shutil.rmtree(folder)
    assert workspace.state(plans.prompts(workspace)) == "done", "prompts outlive the folder that they came from"


def test_the_toy_world_keeps_its_own_splits(new_workspace) -> None:
    workspace = new_workspace({"kind": "toy"}, subsets=2, subset_size=10, heldout_size=7)
    run(workspace)
    prompts = prompts_of(workspace)
    assert Counter((p.subset, p.split) for p in prompts) == {
        ("train-0", "train"): 10,
        ("train-1", "train"): 10,
        ("heldout", "heldout"): 7,
    }
    assert all(p.extra["truth"] for p in prompts)
    assert all(open_rgb(workspace.prompts / p.image_file).mode == "RGB" for p in prompts)


# -- bad input ---------------------------------------------------------------------------------------------------


def _missing_columns(folder: Path) -> dict:
    rows = [{k: v for k, v in row.items() if k not in ("question", "chosen")} for row in rlaifv_rows(3)]
    return {"kind": "rlaifv", "path": str(write_parquet(folder / "rows.parquet", rows))}


def _image_column_of_numbers(folder: Path) -> dict:
    return {"kind": "rlaifv", "path": str(write_parquet(folder / "rows.parquet", rlaifv_rows(3, image=7)))}


def _no_rows(folder: Path) -> dict:
    path = write_parquet(folder / "rows.parquet", rlaifv_rows(3))
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).slice(0, 0), path)
    return {"kind": "rlaifv", "path": str(path)}


def _only_broken_images(folder: Path) -> dict:
    rows = rlaifv_rows(5, image={"bytes": image_bytes(1)[:-100], "path": "x"})
    return {"kind": "rlaifv", "path": str(write_parquet(folder / "rows.parquet", rows))}


def _not_parquet(folder: Path) -> dict:
    (folder / "rows.parquet").write_text("idx,question\n")
    return {"kind": "rlaifv", "path": str(folder / "rows.parquet")}


def _torn_parquet(folder: Path) -> dict:
    path = write_parquet(folder / "rows.parquet", rlaifv_rows(60))
    data = bytearray(path.read_bytes())
    data[2000:6000] = bytes(4000)
    path.write_bytes(data)
    return {"kind": "rlaifv", "path": str(path)}


def _no_images(folder: Path) -> dict:
    (folder / "empty").mkdir()
    (folder / "empty" / "readme.md").touch()
    return {"kind": "folder", "path": str(folder / "empty"), "question": "What?"}


def _file_for_folder(folder: Path) -> dict:
    (folder / "one.png").write_bytes(image_bytes(1))
    return {"kind": "folder", "path": str(folder / "one.png"), "question": "What?"}


def _nowhere(folder: Path) -> dict:
    return {"kind": "rlaifv", "path": str(folder / "nowhere.parquet")}


def _nothing_matches(folder: Path) -> dict:
    return {"kind": "rlaifv", "path": str(folder / "*.parquet")}


def _several_kinds(folder: Path) -> dict:
    write_parquet(folder / "rows.parquet", rlaifv_rows(3))
    (folder / "rows.csv").write_text("image,question\n")
    return {"kind": "table", "path": str(folder)}


def _no_table(folder: Path) -> dict:
    (folder / "rows.xlsx").touch()
    return {"kind": "table", "path": str(folder / "rows.xlsx")}


def _json_array(folder: Path) -> dict:
    (folder / "rows.json").write_text('[{"image": "a.png", "question": "What?"}]')
    return {"kind": "table", "path": str(folder / "rows.json")}


def _csv_of_another_encoding(folder: Path) -> dict:
    (folder / "rows.csv").write_bytes("image,question\na.png,Où?\n".encode("latin-1"))
    return {"kind": "table", "path": str(folder / "rows.csv")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing_columns, r"needed columns question \(the question\), chosen \(the reference\)(.|\n)*has .*rejected"),
        (_image_column_of_numbers, "column image cannot hold images(.|\n)*int64"),
        (_no_rows, "no rows"),
        (_only_broken_images, "no usable training row(.|\n)*5 broken image"),
        (_not_parquet, "damaged or of another kind"),
        (_torn_parquet, "damaged or of another kind"),
        (_no_images, "folder has no images"),
        (_file_for_folder, "the path is a file"),
        (_nowhere, r"does not exist(.|\n)*nowhere\.parquet"),
        (_nothing_matches, "does not exist"),
        (_several_kinds, r"several kinds(.|\n)*rows\.parquet, rows\.csv"),
        (_no_table, "no table that can be read"),
        (_json_array, "is a JSON array"),
        (_csv_of_another_encoding, "CSV file cannot be read"),
    ],
)
def test_bad_input_gives_one_message_and_leaves_nothing(new_workspace, tmp_path, make, message) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    workspace = new_workspace(make(folder))
    with pytest.raises(DataError, match=message) as caught:
        run(workspace)
    assert caught.value.exit_status == 2
    assert "remedy" in str(caught.value)
    assert workspace.state(plans.prompts(workspace)) == "missing"
    assert not workspace.prompts.exists()


def test_a_bad_source_leaves_earlier_prompts_in_place(new_workspace, rlaifv, tmp_path) -> None:
    workspace = new_workspace(rlaifv)
    run(workspace)
    before = tree(workspace.prompts)
    (tmp_path / "rows.parquet").write_bytes(b"overwritten")
    with pytest.raises(DataError, match="damaged"):
        run(workspace)
    assert tree(workspace.prompts) == before


def test_a_base_model_that_is_not_complete_is_found_before_any_image_is_read(new_workspace, rlaifv, tmp_path) -> None:
    workspace = new_workspace(rlaifv)
    (tmp_path / "base").mkdir()
    workspace = Workspace.open(workspace.root, [f"model.base={tmp_path / 'base'}"])
    with pytest.raises(ModelError, match="not complete"):
        run(workspace)
    assert not (workspace.root / ".staging").exists()


def test_another_base_model_is_pinned_without_making_prompts_again(new_workspace, rlaifv, tmp_path) -> None:
    workspace = new_workspace(rlaifv)
    run(workspace)
    made = (workspace.prompts / "manifest.json").stat().st_mtime_ns
    shutil.copytree(workspace.recipe.model.base, tmp_path / "other")
    workspace = Workspace.open(workspace.root, [f"model.base={tmp_path / 'other'}"])
    result = run(workspace)
    assert (result.status, result.outputs) == ("done", ["base.json"])
    assert read_pin(workspace).path == str(tmp_path / "other")
    assert (workspace.prompts / "manifest.json").stat().st_mtime_ns == made
    assert run(workspace).status == "up_to_date"


# -- kills, two writers, full disks ------------------------------------------------------------------------------


def start_child(workspace: Workspace, *arguments: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", CHILD, str(workspace.root), *arguments], env=environment)


@pytest.mark.slow
def test_killed_anywhere_and_run_again_it_ends_the_same(new_workspace, tmp_path) -> None:
    rows = rlaifv_rows(80)
    for index in range(0, 80, 5):
        rows[index]["image"]["bytes"] = image_bytes(index, kind="BMP")
    for index in range(0, 80, 7):
        rows[index]["image"]["bytes"] = rows[index]["image"]["bytes"][:-200]
    source = {"kind": "rlaifv", "path": str(write_parquet(tmp_path / "rows.parquet", rows))}
    whole, killed = new_workspace(source), new_workspace(source)
    run(whole)
    for number in (9, 30):
        child = start_child(killed, "kill", str(number))
        assert child.wait() == -signal.SIGKILL
        assert killed.state(plans.prompts(killed)) == "partial"
        assert not killed.prompts.exists()
    [staging] = (killed.root / ".staging").iterdir()
    stored = {p.name: p.stat().st_ino for p in staging.glob("images/*/*.*") if not p.name.startswith(".")}
    assert len(stored) >= 20
    torn = next(iter(staging.glob("images/*/*.png")))
    torn.write_bytes(torn.read_bytes()[:50])
    run(killed)
    assert tree(killed.prompts) == {
        **tree(whole.prompts),
        "recipe.resolved.yaml": tree(killed.prompts)["recipe.resolved.yaml"],
    }
    after = {p.name: p.stat().st_ino for p in killed.prompts.glob("images/*/*")}
    kept = stored.keys() & after.keys() - {torn.name}
    assert kept
    assert all(stored[name] == after[name] for name in kept), "images were stored again"


@pytest.mark.slow
def test_a_second_writer_is_refused_and_the_first_finishes(new_workspace, rlaifv, tmp_path) -> None:
    workspace = new_workspace(rlaifv)
    signal_file = tmp_path / "waiting"
    child = start_child(workspace, "wait", "5", str(signal_file))
    try:
        while not signal_file.exists():
            assert child.poll() is None
            time.sleep(0.02)
        with pytest.raises(Busy, match=f"process {child.pid}"):
            run(workspace)
    finally:
        signal_file.unlink(missing_ok=True)
    assert child.wait() == 0
    assert run(workspace).status == "up_to_date"
    assert len(prompts_of(workspace)) == 48


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A real file system of a given size; calling again changes the size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        option = f"remount,size={size}" if folder.is_mount() else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system of its own cannot be mounted here: {done.stderr.strip()}")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="needs the program mount")
def test_a_disk_that_is_plainly_too_small_is_refused_before_writing(new_workspace, rlaifv, small_disk) -> None:
    workspace = new_workspace(rlaifv, folder=small_disk("128k") / "ws")
    with pytest.raises(DiskFull, match=r"MB needed, 0\.1 MB free") as caught:
        run(workspace)
    assert caught.value.exit_status == 2
    assert not workspace.prompts.exists()
    assert not list((workspace.root / ".staging").glob("*/images/*/*"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs the program mount")
def test_a_disk_that_fills_up_gives_one_message_and_the_run_can_go_on(new_workspace, tmp_path, small_disk) -> None:
    rows = rlaifv_rows(60)
    for index, row in enumerate(rows):
        # Small as JPEG; ten times as large as the PNG that CMYK forces.
        row["image"]["bytes"] = image_bytes(index, kind="JPEG", side=96, mode="CMYK", quality=1)
    source = {"kind": "rlaifv", "path": str(write_parquet(tmp_path / "rows.parquet", rows))}
    workspace = new_workspace(source, folder=small_disk("700k") / "ws")
    with pytest.raises(DiskFull, match="No space left"):
        run(workspace)
    assert not workspace.prompts.exists()
    assert workspace.state(plans.prompts(workspace)) == "partial"
    small_disk("20m")
    assert run(workspace).counts["images"] == 48
    elsewhere = new_workspace(source)
    run(elsewhere)
    assert prompts_of(workspace) == prompts_of(elsewhere)


# -- figures -----------------------------------------------------------------------------------------------------


def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_benchmark_in_short_stays_below_a_gigabyte(tmp_path, tiny_llava_folder) -> None:
    module = benchmark()
    module.write_source(tmp_path / "source.parquet", 500)
    figures = module.measure(tmp_path / "source.parquet", 4, 62, 12, base=str(tiny_llava_folder))
    assert figures.counts["train"] == 248
    assert figures.counts["heldout"] == 12
    assert figures.peak_bytes < 1e9
    assert figures.rows_per_second > 25
