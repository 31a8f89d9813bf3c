"""The server without a browser: what it hands out, and to whom."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi.testclient import TestClient

from app.api.errors import MAX_BODY
from app.listening import bind
from app.server import create
from opadpo.errors import PortInUse, UserError
from opadpo.records import Prompt
from opadpo.tables import read_records
from opadpo.workspace import Workspace


@pytest.fixture(scope="module")
def client(filled_workspace: Workspace) -> TestClient:
    return TestClient(create(filled_workspace))


def test_images_are_served_by_the_prompts_id(client: TestClient, filled_workspace: Workspace):
    prompt = read_records(filled_workspace.prompts / "prompts.parquet", Prompt)[5]
    answer = client.get("/images", params={"prompt": prompt.prompt_id})
    assert answer.status_code == 200
    assert answer.content == (filled_workspace.prompts / prompt.image_file).read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/images?prompt=../recipe.yaml",
        "/images?prompt=p-unknown",
        "/figures/..%2f..%2frecipe.yaml",
        "/figures/recipe.yaml",
        "/gradio_api/file=../recipe.yaml",
        "/gradio_api/file=recipe.yaml",
    ],
)
def test_nothing_else_of_the_disk_is_served(client: TestClient, path: str):
    answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert b"max_new_tokens" not in answer.content


def test_the_workspaces_own_files_are_not_served_by_their_full_path(client: TestClient, filled_workspace: Workspace):
    answer = client.get(f"/gradio_api/file={filled_workspace.root}/recipe.yaml")
    assert answer.status_code in (403, 404)


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/queue/join", "/api/review/undo"])
def test_nothing_large_is_taken_in(client: TestClient, path: str):
    answer = client.post(path, content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413
    assert answer.json()["error"]["what"] == "The request is too large"


def test_a_taken_port_and_an_open_address_are_refused():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(PortInUse, match="--port"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="SSH tunnel"):
        bind("0.0.0.0", 0)


@pytest.mark.slow
def test_many_readers_at_once_see_whole_records(client: TestClient, filled_workspace: Workspace):
    ids = [p.prompt_id for p in read_records(filled_workspace.prompts / "prompts.parquet", Prompt)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: client.get("/images", params={"prompt": i}).status_code, ids))
    assert answers == [200] * len(ids)
