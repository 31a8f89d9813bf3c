"""Questions asked now, over HTTP: the image is the body, everything else is in the query."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool

from app.api.review import Me
from opadpo.comparing.live import LiveAsking
from opadpo.comparing.messages import MAX_MODELS, LiveQuestion, Name

PREFIX = "/api/asking"


def router(live: LiveAsking) -> APIRouter:
    """The routes of a workspace's live questions."""
    api = APIRouter(prefix=PREFIX)

    @api.get("/models")
    def models() -> list[str]:
        return live.models()

    @api.post("/questions")
    async def ask(
        request: Request,
        question: Annotated[str, Query(max_length=2000)],
        model: Annotated[list[Name], Query(max_length=MAX_MODELS)],
        me: Me,
    ) -> LiveQuestion:
        return await run_in_threadpool(live.ask, me, model, question, await request.body())

    @api.get("/questions/{key}")
    def look(key: Name, me: Me) -> LiveQuestion:
        return live.look(me, key)

    @api.delete("/questions/{key}")
    def take_back(key: Name, me: Me) -> dict:
        live.take_back(me, key)
        return {}

    return api
