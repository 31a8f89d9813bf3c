"""Running a coroutine to its end from ordinary code."""

import asyncio
import contextlib
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_to_end(work: Coroutine[Any, Any, Result]) -> Result:
    """The coroutine's result, also where an event loop runs already (a notebook, the app).

    Raises:
        KeyboardInterrupt: if this was interrupted; the coroutine was cancelled then, and has ended.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def told() -> Result:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(lambda: asyncio.run(told()))
        try:
            return running.result()
        except KeyboardInterrupt:
            # It came to this thread alone, and leaving the block waits for the other one.
            loop, task = started.result()
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(task.cancel)
            raise
