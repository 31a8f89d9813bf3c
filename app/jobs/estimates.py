"""Estimates of memory, made one at a time in a process apart and kept."""

import json
import logging
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from typing import Any

from opadpo.hashing import bytes_digest
from opadpo.recipe import Recipe, dump_recipe

KEPT = 64
PATIENCE = 300
"""Seconds that one estimate may take."""
STAGES = ("opa", "opadpo")


class Estimates:
    """Answers at once: with an estimate, or that it is being made."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._waiting: deque[tuple[str, str, str]] = deque()
        self._lock = threading.Lock()
        self._working = False

    def ask(self, recipe: Recipe, stage: str) -> dict[str, Any]:
        """`{"state": "estimating"}`, `{"state": "done", ...}` or `{"state": "failed", "what"}`."""
        text = dump_recipe(recipe)
        key = bytes_digest(f"{stage}\n{text}".encode())
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
            if all(key != waiting for waiting, _, _ in self._waiting):
                # A form that is being filled in asks again and again: only its newest question matters.
                while len(self._waiting) > 1:
                    self._waiting.pop()
                self._waiting.append((key, stage, text))
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, daemon=True).start()
        return {"state": "estimating"}

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._working = False
                    return
                key, stage, text = self._waiting[0]
            answer = _estimate(stage, text)
            with self._lock:
                self._waiting = deque(one for one in self._waiting if one[0] != key)
                self._known[key] = answer
                while len(self._known) > KEPT:
                    self._known.popitem(last=False)


def _estimate(stage: str, recipe: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "opadpo.steps.memory", stage],
            input=recipe,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        answer = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    except (subprocess.TimeoutExpired, OSError, ValueError) as error:
        return {"state": "failed", "what": f"The estimate could not be made ({type(error).__name__})."}
    if not answer:
        logging.getLogger(__name__).warning("the estimate of memory failed: %s", done.stderr[-2000:])
        return {"state": "failed", "what": "The estimate could not be made; the app's own log says why."}
    if "error" in answer:
        told = [answer["error"][part] for part in ("what", "seen", "remedy")]
        return {"state": "failed", "what": ". ".join(filter(None, told))}
    return {"state": "done", **answer}
