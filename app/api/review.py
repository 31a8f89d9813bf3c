"""The review desk over HTTP: JSON in and out, all below `/api/review`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.access.guard import name_of
from app.api.errors import problem
from opadpo.review.desk import MAX_PAGE, Desk
from opadpo.review.filters import Filters
from opadpo.review.messages import (
    ClaimOut,
    CommitIn,
    Committed,
    DeskRecord,
    DraftIn,
    HandedOut,
    Id,
    Page,
    Saved,
    TakenBack,
)
from opadpo.review.store import StaleEdit


class NextIn(BaseModel):
    """Where a reviewer is."""

    model_config = ConfigDict(extra="forbid")

    after: Id | None = None
    """The record that is shown."""
    skip: bool = False
    """Put it off."""


class RestoreIn(BaseModel):
    """Which revision is to be in force again."""

    model_config = ConfigDict(extra="forbid")

    revision_id: Id
    """One of the record's history."""
    base_revision_id: Id | None = None
    """The revision that is in force."""


class PageQuery(Filters):
    """Filters, and which stretch of what they find."""

    offset: int = Field(default=0, ge=0, le=10_000_000)
    """Where it begins."""
    limit: int = Field(default=48, ge=0, le=MAX_PAGE)
    """How long it is."""


class NextQuery(Filters):
    """Filters, and where the reviewer is."""

    after: Id | None = None
    """The record that is shown."""


def reviewer(request: Request) -> str:
    """The name of who asks."""
    return name_of(request)


Asked = Annotated[Filters, Query()]
Me = Annotated[str, Depends(reviewer)]


def router(desk: Desk) -> APIRouter:
    """The routes of a desk."""
    api = APIRouter(prefix="/api/review")

    @api.get("/records")
    def records(asked: Annotated[PageQuery, Query()], me: Me) -> Page:
        filters = Filters(**asked.model_dump(exclude={"offset", "limit"}))
        return desk.page(me, filters, offset=asked.offset, limit=asked.limit)

    @api.get("/records/{rollout_id}")
    def record(rollout_id: Id, filters: Asked, me: Me) -> DeskRecord:
        return desk.record(me, rollout_id, filters)

    @api.get("/history/{rollout_id}")
    def history(rollout_id: Id) -> dict:
        return {"revisions": desk.history(rollout_id)}

    @api.get("/next")
    def peek(asked: Annotated[NextQuery, Query()], me: Me) -> dict:
        filters = Filters(**asked.model_dump(exclude={"after"}))
        return {"rollout_id": desk.peek(me, filters, asked.after)}

    @api.post("/next")
    def hand_out(body: NextIn, filters: Asked, me: Me) -> HandedOut:
        return desk.hand_out(me, filters, body.after, skip=body.skip)

    @api.post("/records/{rollout_id}/claim")
    def claim(rollout_id: Id, me: Me) -> ClaimOut:
        return desk.claim(me, rollout_id)

    @api.put("/records/{rollout_id}/draft")
    def save_draft(rollout_id: Id, body: DraftIn, me: Me) -> Saved:
        return desk.save_draft(me, rollout_id, body)

    @api.delete("/records/{rollout_id}/draft")
    def drop_draft(rollout_id: Id, me: Me) -> dict:
        desk.drop_draft(me, rollout_id)
        return {}

    @api.post("/records/{rollout_id}/commit", response_model=Committed)
    def commit(rollout_id: Id, body: CommitIn, filters: Asked, me: Me):
        try:
            return desk.commit(me, rollout_id, body, filters)
        except StaleEdit as error:
            theirs = error.theirs.model_dump(mode="json") if error.theirs else None
            yours = body.model_dump(mode="json", include={"sentences", "note", "base_revision_id", "action"})
            return problem(409, error.what, error.seen, error.remedy, theirs=theirs, yours=yours)

    @api.post("/records/{rollout_id}/restore")
    def restore(rollout_id: Id, body: RestoreIn, filters: Asked, me: Me) -> Committed:
        return desk.restore(me, rollout_id, body.revision_id, body.base_revision_id, filters)

    @api.post("/undo")
    def undo(filters: Asked, me: Me) -> TakenBack:
        return desk.undo(me, filters)

    return api
