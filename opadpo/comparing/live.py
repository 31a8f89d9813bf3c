"""Questions that people ask now: waiting in a queue, answered one by one by a process that holds the models.

The app's own process never loads a model. The worker starts with the first question and ends when nobody has asked for
a while, or with the app, so that memory is free for training.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from opadpo.comparing.messages import LiveAnswer, LiveProblem, LiveQuestion
from opadpo.errors import Busy, DataError, NotFound, UserError
from opadpo.images import ImageProblem, load_image
from opadpo.steps import plans
from opadpo.workspace import Workspace

MAX_WAITING = 20
"""Questions that wait at once, of everybody."""
MAX_OWN = 3
"""Questions that one person may have waiting or being answered."""
KEPT = 100
"""Answered questions that are kept for who asked."""
IDLE_SECONDS = 600.0
_LOG = "worker.log"


class LiveAsking:
    """The queue and the worker of a workspace; any number of threads may ask."""

    def __init__(self, workspace: Workspace, *, idle_seconds: float = IDLE_SECONDS) -> None:
        """Nothing runs before the first question."""
        self.workspace = workspace
        self._idle_seconds = idle_seconds
        self._questions: OrderedDict[str, LiveQuestion] = OrderedDict()
        self._images: dict[str, Path] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._worker: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def models(self) -> list[str]:
        """Who can be asked: the base, and every adapter that is there."""
        folder = self.workspace.root / "adapters"
        names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted([plans.BASE, *filter(self._is_there, names)], key=plans.place_of)

    def ask(self, me: str, models: Sequence[str], question: str, image: bytes) -> LiveQuestion:
        """Put a question into the queue.

        Raises:
            UserError: if there is no question, no model, or a model is not there.
            DataError: if the image cannot be used.
            Busy: if too many questions wait.
        """
        asked = question.strip()
        chosen = list(dict.fromkeys(models))
        if not asked:
            raise UserError("There is no question", seen="an empty text", remedy="ask something about the image")
        if not chosen:
            raise UserError("There is no model to answer", seen="an empty list", remedy="choose one at least")
        for name in chosen:
            self._check_model(name)
        data = self._checked(image)
        with self._change:
            waiting = [q for q in self._questions.values() if q.state in ("waiting", "answering")]
            own = sum(q.asked_by == me for q in waiting)
            if len(waiting) >= MAX_WAITING or own >= MAX_OWN:
                raise Busy(
                    "Too many questions wait for an answer",
                    seen=f"{own} of yours, {len(waiting)} in all",
                    remedy="wait until one is answered, or take one back",
                )
            key = uuid.uuid4().hex
            self._images[key] = self._store(key, data)
            self._questions[key] = LiveQuestion(id=key, asked_by=me, question=asked, models=chosen, state="waiting")
            self._forget()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._change.notify_all()
            return self._shown(key)

    def look(self, me: str, key: str) -> LiveQuestion:
        """A question of one's own, with what is answered so far.

        Raises:
            NotFound: if there is none of this id, or it is somebody else's.
        """
        with self._change:
            found = self._questions.get(key)
            if found is None or found.asked_by != me:
                raise NotFound("There is no such question of yours", seen=key[:80], remedy="ask it again")
            return self._shown(key)

    def take_back(self, me: str, key: str) -> None:
        """Give up a question; one that is being answered is answered to nobody.

        Raises:
            NotFound: as `look`.
        """
        self.look(me, key)
        with self._change:
            self._drop(key)

    def close(self) -> None:
        """End the worker."""
        with self._change:
            worker, self._worker = self._worker, None
            folder, self._folder = self._folder, None
        if worker is not None:
            _end(worker)
        if folder is not None:
            folder.cleanup()

    # -- inside ------------------------------------------------------------------------------------------------

    def _is_there(self, name: str) -> bool:
        try:
            return self.workspace.manifest(f"adapters/{self.workspace.adapter(name).name}") is not None
        except UserError:  # damaged, or not one of our names
            return False

    def _check_model(self, name: str) -> None:
        self.workspace.adapter(name)
        if name != plans.BASE and not self._is_there(name):
            raise UserError("There is no such model", seen=name, remedy="train it first, or choose another")

    def _checked(self, image: bytes) -> bytes:
        limit = self.workspace.recipe.image.max_pixels
        try:
            return load_image(image, limit).data
        except ImageProblem as error:
            raise DataError("The image cannot be used", seen=str(error), remedy="choose another file") from error

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="opadpo-live-")  # for this user's eyes only
        return Path(self._folder.name)

    def _store(self, key: str, data: bytes) -> Path:
        path = self._place() / key
        path.write_bytes(data)
        return path

    def _forget(self) -> None:
        """Let go of the oldest answered questions."""
        over = len(self._questions) - KEPT
        for key in [k for k, q in self._questions.items() if q.state in ("done", "failed")][: max(0, over)]:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._questions.pop(key, None)
        if path := self._images.pop(key, None):
            path.unlink(missing_ok=True)

    def _shown(self, key: str) -> LiveQuestion:
        found = self._questions[key]
        if found.state != "waiting":
            return found
        before = [k for k, q in self._questions.items() if q.state in ("waiting", "answering")].index(key)
        return found.model_copy(update={"before": before})

    def _update(self, key: str, change: Callable[[LiveQuestion], dict[str, Any]]) -> None:
        with self._change:
            if found := self._questions.get(key):
                self._questions[key] = found.model_copy(update=change(found))

    def _work(self) -> None:
        """Answer what waits, in order; end the worker where nothing comes for a while."""
        while True:
            with self._change:
                ready = self._change.wait_for(self._next, timeout=self._idle_seconds)
                if not ready:
                    # Whoever asks from now on gets a thread and a worker of their own.
                    self._thread, idle, self._worker = None, self._worker, None
                    break
                key = self._next()
                assert key is not None
                self._questions[key] = self._questions[key].model_copy(update={"state": "answering"})
            try:
                self._answer(key)
            except (OSError, ValueError):
                self._fail(key)
                with self._change:
                    lost, self._worker = self._worker, None
                if lost is not None:
                    _end(lost)
        if idle is not None:
            _end(idle)

    def _next(self) -> str | None:
        return next((key for key, q in self._questions.items() if q.state == "waiting"), None)

    def _answer(self, key: str) -> None:
        """Have one question answered.

        Raises:
            OSError: if the worker has gone.
            ValueError: the same, in the middle of a line.
        """
        with self._change:
            question, image = self._questions.get(key), self._images.get(key)
        if question is None or image is None:
            return
        worker = self._running()
        assert worker.stdin is not None
        assert worker.stdout is not None
        asked = {"id": key, "question": question.question, "image": str(image), "models": question.models}
        worker.stdin.write(json.dumps(asked) + "\n")
        worker.stdin.flush()
        while True:
            event = json.loads(worker.stdout.readline())
            if event.get("done"):
                break
            self._take(key, event)
        self._update(key, lambda q: {"state": "done" if q.answers else "failed", "doing": None})
        with self._change:
            if path := self._images.pop(key, None):
                path.unlink(missing_ok=True)

    def _take(self, key: str, event: dict[str, Any]) -> None:
        if "doing" in event:
            self._update(key, lambda _: {"doing": event["doing"]})
        elif "answer" in event:
            self._update(key, lambda q: {"answers": [*q.answers, LiveAnswer(**event["answer"])]})
        else:
            self._update(key, lambda q: {"problems": [*q.problems, LiveProblem(**event["error"])]})

    def _fail(self, key: str) -> None:
        with self._change:
            status = self._worker.wait() if self._worker else None
            log = self._place() / _LOG
            said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        problem = LiveProblem(
            model=None,
            what="The process with the models has ended",
            seen=f"exit status {status}"
            + (f"; its last words: {said.strip().splitlines()[-1][:300]}" if said.strip() else ""),
            remedy="ask again; if it ends again, the machine may be out of memory",
        )
        self._update(key, lambda q: {"state": "failed", "doing": None, "problems": [*q.problems, problem]})
        with self._change:
            if path := self._images.pop(key, None):
                path.unlink(missing_ok=True)

    def _running(self) -> subprocess.Popen[str]:
        with self._change:
            if self._worker is None or self._worker.poll() is not None:
                with (self._place() / _LOG).open("w", encoding="utf-8") as log:
                    self._worker = subprocess.Popen(
                        [sys.executable, "-m", "opadpo.steps.live", str(self.workspace.root)],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=log,
                        text=True,
                        encoding="utf-8",
                        start_new_session=True,
                    )
            return self._worker


def _end(worker: subprocess.Popen[str], patience: float = 5.0) -> None:
    """End a worker: it goes when its input ends, unless it is in the middle of an answer."""
    assert worker.stdin is not None
    with contextlib.suppress(OSError):
        worker.stdin.close()
    deadline = time.monotonic() + patience
    while worker.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if worker.poll() is None:
        worker.kill()
        worker.wait()
