"""Files of benchmarks: used only if they are the published ones, fetched once, refused with the remedy."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_benchmarks
from annotation_files import annotation_files

from opadpo.errors import DataError, MissingArtefact, StepFailed, UserError
from opadpo.evaluation.files import RELEASES, Release, cache_folder, find_files, image_paths, stamp
from opadpo.hashing import file_digest
from opadpo.progress import SilentProgress

QUERY = "query/query_generative.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files that count as the published ones; nothing is in the cache."""
    monkeypatch.setenv("OPADPO_CACHE", str(tmp_path / "cache"))
    small_benchmarks.make(tmp_path, monkeypatch)
    return tmp_path / "amber"


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """The address of a server with the files in `folder`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def find(release: Release, folder: Path | None, *names: str, offline: bool = False) -> dict[str, Path]:
    wanted = names or tuple(file.name for file in release.files)
    found = find_files(release, wanted, str(folder) if folder else None, SilentProgress(), offline=offline)
    return {name: file.path for name, file in found.items()}


def test_files_are_found_as_the_authors_have_them_and_flat(folder: Path) -> None:
    assert find(RELEASES["amber"], folder, QUERY) == {QUERY: folder / QUERY}
    (folder / QUERY).rename(folder / "query_generative.json")
    assert find(RELEASES["amber"], folder, QUERY) == {QUERY: folder / "query_generative.json"}
    pope = folder.parent / "pope"
    (pope / "coco_pope_random.json").rename(pope / "coco_pope_random.jsonl")
    assert len(find(RELEASES["pope"], pope)) == 3


@pytest.mark.parametrize("damage", ["truncated", "another version"])
def test_another_content_is_refused_with_both_checksums(folder: Path, damage: str) -> None:
    path = folder / "annotations.json"
    published = file_digest(path)
    text = path.read_text()
    path.write_text(text[:-30] if damage == "truncated" else text.replace("grass", "straw"))
    with pytest.raises(DataError, match=rf"{file_digest(path)}; published: {published}(.|\n)*fetch it again"):
        find(RELEASES["amber"], folder)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "relation.json").unlink()
    with pytest.raises(MissingArtefact, match=r"relation\.json(.|\n)*evaluate\.files\.amber\.path to null"):
        find(RELEASES["amber"], folder)


def test_files_are_fetched_once_and_then_need_no_network(folder: Path, server: str) -> None:
    release = small_benchmarks.published(RELEASES["amber"], folder, server)
    first = find(release, None)
    assert first[QUERY] == cache_folder() / "amber" / QUERY
    assert first[QUERY].read_bytes() == (folder / QUERY).read_bytes()
    assert find(release, None, offline=True) == first
    first[QUERY].write_text("[")
    with pytest.raises(MissingArtefact, match="network is switched off"):
        find(release, None, offline=True)
    assert find(release, None) == first
    assert first[QUERY].read_bytes() == (folder / QUERY).read_bytes()


def test_what_is_fetched_wrong_is_not_kept(folder: Path, server: str) -> None:
    release = small_benchmarks.published(RELEASES["amber"], folder, server)
    (folder / "safe_words.txt").write_text("another\n")
    with pytest.raises(DataError, match=r"http://127.0.0.1(.|\n)*SHA-256"):
        find(release, None, "safe_words.txt")
    assert not (cache_folder() / "amber" / "safe_words.txt").exists()


def test_a_file_that_cannot_be_fetched_fails_the_step(folder: Path, server: str) -> None:
    release = small_benchmarks.published(RELEASES["amber"], folder, f"{server}/nowhere")
    with pytest.raises(StepFailed, match=r"nowhere(.|\n)*evaluate\.files\.amber\.path") as caught:
        find(release, None)
    assert caught.value.exit_status == 1


def test_offline_and_absent_names_the_setting(folder: Path) -> None:
    with pytest.raises(MissingArtefact, match=r"network is switched off(.|\n)*evaluate\.files\.amber\.path"):
        find(RELEASES["amber"], None, offline=True)


def test_files_that_are_not_fetched_must_be_named(folder: Path) -> None:
    with pytest.raises(UserError, match=r"evaluate\.files\.chair\.path is needed(.|\n)*cocodataset"):
        find(RELEASES["chair"], None)


def test_images_are_never_guessed(folder: Path) -> None:
    release, names = RELEASES["amber"], list(small_benchmarks.AMBER_IMAGES)
    images = folder.parent / "amber_images"
    assert image_paths(release, names, str(images))[names[1]] == images / names[1]
    with pytest.raises(UserError, match=r"evaluate\.files\.amber\.images is needed"):
        image_paths(release, names, None)
    (images / names[2]).unlink()
    with pytest.raises(MissingArtefact, match=rf"1 of 3 are not in (.|\n)*{re.escape(names[2])}"):
        image_paths(release, [*names, names[2]], str(images))
    with pytest.raises(MissingArtefact, match="3 of 3"):
        image_paths(release, names, str(folder / "nowhere"))


def test_files_without_a_known_checksum_are_told_apart_by_size_and_time(folder: Path) -> None:
    names = ("instances_val2014.json",)
    coco = folder.parent / "chair"
    before = stamp(RELEASES["chair"], names, str(coco))
    assert stamp(RELEASES["chair"], names, str(coco)) == before
    (coco / names[0]).write_text("{}")
    assert stamp(RELEASES["chair"], names, str(coco)) != before
    assert stamp(RELEASES["chair"], names, None) == {}


@pytest.mark.annotations
@pytest.mark.parametrize("key", ["amber", "pope"])
def test_the_checksums_are_those_of_the_published_files(key: str) -> None:
    folder = annotation_files(key)
    assert len(find(RELEASES[key], folder)) == len(RELEASES[key].files)
