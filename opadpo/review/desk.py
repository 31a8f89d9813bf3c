"""The review desk: what pages and the API ask of the store and the catalogue. No other query leaves this package."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np

from opadpo.errors import NotFound, OpadpoError, UserError
from opadpo.records import Revision, SentenceReview
from opadpo.review import editing
from opadpo.review.catalogue import Catalogue, Reader, state_name
from opadpo.review.filters import Columns, Filters, Found, facets, histograms, medians
from opadpo.review.index import DECISIONS, DEGENERATE
from opadpo.review.messages import (
    Card,
    ClaimOut,
    CommitIn,
    Committed,
    DeskRecord,
    Disagreement,
    DraftIn,
    HandedOut,
    OwnDraft,
    Page,
    Progress,
    Saved,
    Step,
    TakenBack,
)
from opadpo.review.places import Draft
from opadpo.review.store import Mark, StaleEdit
from opadpo.review.verdicts import verdicts
from opadpo.workspace import Workspace

STATUS = {"accept": "done", "reject": "rejected", "flag": "flagged"}
EXCERPT = 300
MAX_PAGE = 200
_OPEN, _DISAGREED = DECISIONS.index("open"), DECISIONS.index("disagreed")


class Look(NamedTuple):
    """What a reviewer sees under a set of filters at one moment."""

    reader: Reader
    """Who looks."""
    filters: Filters
    """What was asked for."""
    columns: Columns
    """Facts about every record."""
    found: Found
    """The records that match."""


class Desk:
    """The desk of a workspace; one instance per process, for any number of threads and reviewers."""

    def __init__(self, workspace: Workspace) -> None:
        """Nothing is read before it is asked for."""
        self.catalogue = Catalogue(workspace)

    def prepare(self) -> None:
        """Make or read the index before anybody asks for it; what is wrong is told to those who then ask."""
        with contextlib.suppress(OpadpoError):
            self.catalogue.columns()

    # -- looking -----------------------------------------------------------------------------------------------

    def look(self, reviewer: str, filters: Filters) -> Look:
        """The records that match, as a reviewer sees them now."""
        reader = self.catalogue.reader(reviewer)
        return Look(reader, filters, *self.catalogue.find(filters, reader))

    def page(self, reviewer: str, filters: Filters, *, offset: int = 0, limit: int = 48) -> Page:
        """A stretch of the records that match, with counts over all of them."""
        look = self.look(reviewer, filters)
        places = look.found.order[offset : offset + min(limit, MAX_PAGE)].tolist()
        return Page(
            total=len(look.found.order),
            all=len(look.columns),
            offset=offset,
            items=[_card(look, card) for card in self.catalogue.cards(look.columns, places)],
            facets=facets(look.columns, look.found),
            histograms=histograms(look.columns, look.found),
            medians=medians(look.columns, look.found),
        )

    def record(self, reviewer: str, rollout_id: str, filters: Filters) -> DeskRecord:
        """Everything about a record.

        Raises:
            NotFound: if there is none of this id.
        """
        return self._record(self.look(reviewer, filters), rollout_id)

    def history(self, rollout_id: str) -> list[Revision]:
        """All revisions of a record, oldest first.

        Raises:
            NotFound: if there is no such record.
        """
        self.catalogue.place(self.catalogue.columns(), rollout_id)
        return self.catalogue.store.history(rollout_id)

    def peek(self, reviewer: str, filters: Filters, after: str | None) -> str | None:
        """The record that will probably be handed out after `after`; nothing is claimed."""
        look = self.look(reviewer, filters)
        return next(self._free(look, after), None)

    # -- working -----------------------------------------------------------------------------------------------

    def hand_out(self, reviewer: str, filters: Filters, after: str | None, *, skip: bool = False) -> HandedOut:
        """Claim the next record to work on; `skip` puts `after` at the end of the reviewer's queue.

        Raises:
            NotFound: if `after` is no record.
        """
        look = self.look(reviewer, filters)
        work = self._work(look, after)
        if after is not None:
            self.catalogue.place(look.columns, after)
            if skip:
                self.catalogue.store.places.skip(reviewer, after)
                work = chain(work, [after])
        return self._hand_out(look, work, look.columns.mark)

    def claim(self, reviewer: str, rollout_id: str) -> ClaimOut:
        """Take a record that was opened by a link, if nobody else has it.

        Raises:
            NotFound: if there is no such record.
        """
        self.catalogue.place(self.catalogue.columns(), rollout_id)
        claim = self.catalogue.store.places.claim(reviewer, rollout_id)
        return ClaimOut(mine=claim.reviewer == reviewer, by=claim.reviewer, until=claim.until)

    def save_draft(self, reviewer: str, rollout_id: str, draft: DraftIn) -> Saved:
        """Keep what was typed so far; it is on disk when this returns.

        Raises:
            NotFound: if there is no such record.
        """
        self.catalogue.place(self.catalogue.columns(), rollout_id)
        body = {"sentences": [edit.model_dump(mode="json") for edit in draft.sentences], "note": draft.note}
        places = self.catalogue.store.places
        saved, newest = places.save_draft(reviewer, rollout_id, draft.base_revision_id, body, draft.seq)
        return Saved(saved=saved, saved_at=newest.updated_at, seq=newest.seq)

    def drop_draft(self, reviewer: str, rollout_id: str) -> None:
        """Throw a reviewer's draft away."""
        self.catalogue.store.places.drop_draft(reviewer, rollout_id)

    def commit(self, reviewer: str, rollout_id: str, sent: CommitIn, filters: Filters) -> Committed:
        """Append a reviewer's revision and hand out the next record.

        Raises:
            NotFound: if there is no such record.
            SentenceProblem: if what was sent is inconsistent.
            StaleEdit: if another revision is in force than the one it starts from; nothing is written.
        """
        response = self.catalogue.rollout(rollout_id)["response"]
        base = self._base(rollout_id, sent.base_revision_id)
        if sent.action != "accept" and not sent.note.strip():
            raise UserError(
                f"To {sent.action} a record needs a reason", seen="an empty note", remedy="say why in the note"
            )
        start = editing.starting_point(response, base)
        edits = [editing.as_edit(record) for record in start] if sent.sentences is None else sent.sentences
        sentences, text = editing.revised(response, start, edits)
        revision = Revision.create(
            rollout_id=rollout_id,
            parent_revision_id=sent.base_revision_id,
            author_kind="human",
            author=reviewer,
            sentences=sentences,
            text=text,
            status=STATUS[sent.action],
            note=sent.note.strip(),
        )
        before = self.look(reviewer, filters)
        kept = self.catalogue.store.commit(revision, seq=sent.seq)
        look = self.look(reviewer, filters)
        # Where the reviewer was is a place in the order from before: new scores may have moved the record.
        work = self._work(before, rollout_id) if sent.go_on else []
        following = self._hand_out(look, work, before.columns.mark)
        upcoming = next(self._free(look, following.rollout_id), None) if following.rollout_id else None
        return self._committed(look, rollout_id, kept, following, upcoming)

    def restore(
        self, reviewer: str, rollout_id: str, revision_id: str, base_revision_id: str | None, filters: Filters
    ) -> Committed:
        """Append a copy of an earlier revision of a record.

        Raises:
            NotFound: if the record has no such revision.
            StaleEdit: as `commit`.
        """
        source = next((r for r in self.history(rollout_id) if r.revision_id == revision_id), None)
        if source is None or source.status == "failed":
            raise NotFound(
                "The record has no such revision to restore", seen=revision_id, remedy="choose one from its history"
            )
        revision = Revision.create(
            rollout_id=rollout_id,
            parent_revision_id=base_revision_id,
            author_kind="human",
            author=reviewer,
            sentences=source.sentences,
            text=source.text,
            status=source.status,
            note=f"{source.note} (restored {revision_id})".strip(),
        )
        kept = self.catalogue.store.commit(revision)
        look = self.look(reviewer, filters)
        here = HandedOut(rollout_id=rollout_id, record=self._record(look, rollout_id))
        return self._committed(look, rollout_id, kept, here, next(self._free(look, rollout_id), None))

    def undo(self, reviewer: str, filters: Filters) -> TakenBack:
        """Withdraw a reviewer's last revision that stands.

        Raises:
            NotFound: if there is none.
            StaleEdit: if somebody has built on it.
        """
        withdrawn = self.catalogue.store.undo(reviewer).withdrawn
        record = self._record(self.look(reviewer, filters), withdrawn.rollout_id)
        return TakenBack(
            rollout_id=withdrawn.rollout_id, revision_id=withdrawn.revision_id, state=record.state, record=record
        )

    # -- inside ------------------------------------------------------------------------------------------------

    def _base(self, rollout_id: str, revision_id: str | None) -> Revision | None:
        """The revision that a change starts from."""
        if revision_id is None:
            return None
        found = next((r for r in self.catalogue.store.history(rollout_id) if r.revision_id == revision_id), None)
        if found is None:
            raise StaleEdit(self.catalogue.store.current(rollout_id), revision_id)
        return found

    def _hand_out(self, look: Look, candidates: Iterable[str], seen: Mark) -> HandedOut:
        chosen = self.catalogue.store.hand_out(look.reader.name, candidates, seen=seen)
        return HandedOut(rollout_id=chosen, record=self._record(look, chosen) if chosen else None)

    def _work(self, look: Look, after: str | None) -> Iterator[str]:
        """Records to work on after `after`: those that are not decided, round to the start, what was skipped last.

        If decided ones are asked for, the list is gone through once.
        """
        order, columns = look.found.order, look.columns
        place = columns.place.get(after) if after is not None else None
        at = look.found.before(place) if place is not None else 0
        if set(look.filters.state) <= {"open", "draft"}:
            order = np.concatenate([order[at:], order[:at]])
            order = order[columns["decision"][order] == _OPEN]
            late = np.isin(order, [columns.place[r] for r in look.reader.skipped if r in columns.place])
            order = np.concatenate([order[~late], order[late]])
        else:
            order = order[at:]
        return (columns.ids[candidate] for candidate in order if candidate != place)

    def _free(self, look: Look, after: str | None) -> Iterator[str]:
        """`_work` without what others are at."""
        me, busyness = look.reader.name, look.reader.busyness
        for rollout in self._work(look, after):
            others = set(busyness.drafts.get(rollout, {})) - {me}
            if not others and busyness.claims.get(rollout, me) == me:
                yield rollout

    def _record(self, look: Look, rollout_id: str) -> DeskRecord:
        catalogue, columns, found, reader = self.catalogue, look.columns, look.found, look.reader
        place = catalogue.place(columns, rollout_id)
        rollout = catalogue.rollout(rollout_id)
        prompt = catalogue.prompt(rollout["prompt_id"]) or {}
        dossier = catalogue.store.dossier(rollout_id, reader.name)
        history, current, draft = dossier.history, dossier.current, dossier.draft
        at = {name for name in reader.busyness.drafts.get(rollout_id, {}) if name != reader.name}
        if (holder := reader.busyness.claims.get(rollout_id, reader.name)) != reader.name:
            at.add(holder)
        before, after = found.neighbour(place, -1), found.neighbour(place, 1)
        return DeskRecord(
            me=reader.name,
            rollout=rollout,
            prompt={**prompt, "image": f"/images?{urlencode({'prompt': rollout['prompt_id']})}"},
            expert=next((r for r in reversed(history) if r.author_kind != "human"), None),
            current=current,
            base_revision_id=current.revision_id if current else None,
            sentences=editing.starting_point(rollout["response"], current),
            state=state_name(int(found.states[place])),
            in_review_by=sorted(at),
            disagree=self._disagree(look, place, current),
            draft=_own_draft(draft),
            draft_seq=draft.seq if draft else 0,
            history=_steps(history, dossier.withdrawn),
            position=found.before(place) + 1,
            total=len(found.order),
            previous=columns.ids[before] if before is not None else None,
            next=columns.ids[after] if after is not None else None,
            progress=_progress(look),
        )

    def _disagree(self, look: Look, place: int, current: Revision | None) -> Disagreement | None:
        """Who decided differently about a record, and whether this reviewer can settle it."""
        if current is None or look.columns["decision"][place] != _DISAGREED:
            return None
        judges = self.catalogue.workspace.recipe.build.adjudicators
        verdict = verdicts(self.catalogue.store, judges, among=[current.rollout_id]).get(current.rollout_id)
        if verdict is None or verdict.how != "disagreed":
            return None
        me = look.reader.name
        return Disagreement(people=verdict.people, settles=me != current.author or me in judges)

    def _committed(
        self, look: Look, rollout_id: str, kept: Revision, following: HandedOut, upcoming: str | None
    ) -> Committed:
        return Committed(
            revision_id=kept.revision_id,
            state=state_name(int(look.found.states[look.columns.place[rollout_id]])),
            next=following.rollout_id,
            record=following.record,
            upcoming=upcoming,
            progress=_progress(look),
        )


def _card(look: Look, card: dict[str, Any]) -> Card:
    rollout, prompt = json.loads(card["rollout"]), json.loads(card["prompt"])
    scores = json.loads(card["scores"])
    return Card(
        rollout_id=rollout["rollout_id"],
        prompt_id=rollout["prompt_id"],
        question=prompt["question"][:EXCERPT],
        response=rollout["response"][:EXCERPT],
        scores=scores,
        state=state_name(int(look.found.states[card["place"]])),
        author=card["author"],
        tokens=rollout["tokens"],
        sentences=int(look.columns["sentences"][card["place"]]),
        finish_reason=rollout["finish_reason"],
        source=prompt["source"],
        degenerate=[name for bit, name in enumerate(DEGENERATE) if card["degenerate"] & (1 << bit)],
    )


def _own_draft(draft: Draft | None) -> OwnDraft | None:
    if draft is None or draft.body is None:
        return None
    return OwnDraft(base_revision_id=draft.base_revision_id, updated_at=draft.updated_at, seq=draft.seq, **draft.body)


def _steps(history: Sequence[Revision], withdrawn: set[str]) -> list[Step]:
    known = {revision.revision_id: revision for revision in history}
    steps: list[Step] = []
    for revision in history:
        parent = known.get(revision.parent_revision_id or "")
        fields = revision.model_dump(include=set(Step.model_fields))
        changed = _changed(revision.sentences, parent.sentences) if parent else 0
        steps.append(Step(**fields, changed=changed, withdrawn=revision.revision_id in withdrawn))
    return steps


def _changed(new: Sequence[SentenceReview], old: Sequence[SentenceReview]) -> int:
    """Sentences that somebody did something about: spans of deleted ones move by themselves."""
    before, after = [{_said(record) for record in records} for records in (old, new)]
    removed = sum(1 for record in old if record.kind == "added" and _said(record) not in after)
    return len(after - before) + removed


def _said(record: SentenceReview) -> tuple[Any, ...]:
    return (
        record.index, record.kind, record.revised.strip(), record.score, record.error_type, tuple(record.objects),
        record.reason,
    )  # fmt: skip


def _progress(look: Look) -> Progress:
    columns = look.columns
    decided = int(np.count_nonzero(columns["decision"] != _OPEN))
    names = list(columns.names["author"])
    code = names.index(look.reader.name) if look.reader.name in names else -1
    mine = int(np.count_nonzero(columns["author"] == code))
    return Progress(mine=mine, mine_total=mine + len(columns) - decided, team=decided, team_total=len(columns))
