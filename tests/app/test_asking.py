"""Questions asked now, over HTTP: only those who are in, images of a fair size, each their own."""

import io
import time

import httpx
import pytest
import tiny_workspace
from PIL import Image
from running_app import RunningApp

pytestmark = pytest.mark.slow

ADDRESS = "/api/asking/questions"


@pytest.fixture(scope="module")
def app(tiny_llava_folder, tmp_path_factory):
    made = tiny_workspace.make(tmp_path_factory.mktemp("asking") / "ws", tiny_llava_folder, train=1, heldout=1)
    with RunningApp(made.root) as running:
        yield running


def picture(side: int = 50) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def asked(app, image, **query):
    with app.client() as client:
        headers = {"Origin": app.url, "Content-Type": "image/png"}
        return client.post(
            ADDRESS, params={"question": "What?", "model": "base"} | query, content=image, headers=headers
        )


def test_an_answer(app):
    image = picture(1000)
    assert len(image) > 2_500_000, "more than other addresses take"
    answer = asked(app, image)
    assert answer.status_code == 200, answer.text
    key, end = answer.json()["id"], time.monotonic() + 90
    with app.client() as client:
        while (found := client.get(f"{ADDRESS}/{key}").json())["state"] not in ("done", "failed"):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert found["state"] == "done"
        assert found["answers"][0]["model"] == "base"
        assert client.delete(f"{ADDRESS}/{key}", headers={"Origin": app.url}).status_code == 200
        assert client.get(f"{ADDRESS}/{key}").status_code == 404


def test_what_is_refused(app):
    wrong = asked(app, b"<svg onload=alert(1)>")
    assert wrong.status_code == 422
    assert wrong.json()["error"]["what"] == "The image cannot be used"
    assert asked(app, picture(), model="nobody").status_code == 422
    assert asked(app, picture(), question="").status_code == 422
    assert asked(app, b"x" * 20_000_001).status_code == 413
    query = {"question": "What?", "model": "base"}
    assert httpx.post(app.url + ADDRESS, params=query, content=picture()).status_code == 401
    with app.client() as client:
        foreign = {"Origin": "http://evil.example"}
        assert client.post(ADDRESS, params=query, content=picture(), headers=foreign).status_code == 403
