"""Comparing captions over HTTP: JSON in and out, and images of any set, all below `/api/compare`."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse
from pydantic import Field

from app.api.review import Me
from opadpo.comparing.messages import (
    MAX_PAGE,
    Asked,
    Ballot,
    Differences,
    Filters,
    List,
    Metrics,
    Name,
    Overview,
    PairAsked,
    Record,
    Results,
    VoteIn,
)
from opadpo.comparing.service import Comparing


class PageQuery(Filters):
    """Filters, and which stretch of what they find."""

    offset: int = Field(default=0, ge=0, le=10_000_000)
    """Where it begins."""
    limit: int = Field(default=50, ge=0, le=MAX_PAGE)
    """How long it is."""


class BallotQuery(PairAsked):
    """Two models, and which of their captions."""

    prompt: Name | None = None
    """None: the first that the reader has not voted on."""


def router(comparing: Comparing) -> APIRouter:
    """The routes of a workspace's comparisons."""
    api = APIRouter(prefix="/api/compare")

    @api.get("/sets")
    def sets(me: Me) -> Overview:
        return comparing.overview(me)

    @api.get("/records")
    def records(asked: Annotated[PageQuery, Query()]) -> List:
        filters = Filters(**asked.model_dump(exclude={"offset", "limit"}))
        return comparing.page(filters, offset=asked.offset, limit=asked.limit)

    @api.get("/records/{prompt_id}")
    def record(prompt_id: Name, filters: Annotated[Filters, Query()]) -> Record:
        return comparing.record(prompt_id, filters)

    @api.get("/images")
    def image(set: Name, prompt: Name) -> FileResponse:
        headers = {"Cache-Control": "private, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return FileResponse(comparing.image(set, prompt), headers=headers)

    @api.get("/metrics")
    def metrics(asked: Annotated[Asked, Query()]) -> Metrics:
        return comparing.metrics(asked)

    @api.get("/differences")
    def differences(asked: Annotated[Asked, Query()]) -> Differences:
        return comparing.differences(asked)

    @api.get("/ballots")
    def ballot(asked: Annotated[BallotQuery, Query()], me: Me) -> Ballot | None:
        return comparing.ballot(me, asked, asked.prompt)

    @api.post("/votes")
    def vote(body: VoteIn, me: Me) -> Ballot:
        return comparing.vote(me, body)

    @api.delete("/votes/{vote_id}")
    def withdraw(vote_id: Name, me: Me) -> dict:
        comparing.withdraw(me, vote_id)
        return {}

    @api.get("/results")
    def results(asked: Annotated[PairAsked, Query()]) -> Results:
        return comparing.results(asked)

    return api
