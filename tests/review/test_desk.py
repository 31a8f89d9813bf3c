"""The desk over both kinds of store, and two servers on one workspace."""

from pathlib import Path
from typing import Any

import pytest
from filled_workspace import COUNT, fill

from opadpo.errors import WorkspaceError
from opadpo.recipe import preset_text
from opadpo.records import Revision
from opadpo.review.desk import Desk
from opadpo.review.filters import Filters
from opadpo.review.index import index_path
from opadpo.review.messages import CommitIn, DeskRecord, DraftIn
from opadpo.review.store import ReviewStore, StaleEdit
from opadpo.workspace import Workspace

pytestmark = pytest.mark.slow

ALL = Filters()


@pytest.fixture
def workspace(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    overrides = ["prepare.subset_size=60"]
    if address.startswith("postgresql:"):
        monkeypatch.setenv("TEAM_URL", address)
        overrides.append("review.database_url_env=TEAM_URL")
    made = Workspace.create(tmp_path / "birds", preset_text("toy"), overrides)
    fill(made)
    return made


def accept(record: DeskRecord) -> CommitIn:
    return CommitIn(base_revision_id=record.base_revision_id, action="accept")


def handed(desk: Desk, reviewer: str) -> DeskRecord:
    record = desk.hand_out(reviewer, ALL, None).record
    assert record is not None
    return record


def test_two_servers_see_each_others_commits_drafts_and_claims(workspace: Workspace) -> None:
    one, two = Desk(workspace), Desk(workspace)
    first = handed(one, "anna")
    name = first.rollout["rollout_id"]
    second = handed(two, "ben")
    assert second.rollout["rollout_id"] != name
    assert two.record("ben", name, ALL).in_review_by == ["anna"]
    kept = one.commit("anna", name, accept(first), ALL)
    with pytest.raises(StaleEdit) as caught:
        two.commit("ben", name, accept(first), ALL)
    assert caught.value.theirs is not None
    assert caught.value.theirs.revision_id == kept.revision_id
    assert two.page("ben", Filters(state=["accepted"])).total == 1
    draft = DraftIn(base_revision_id=second.base_revision_id, sentences=[], note="half", seq=1)
    two.save_draft("ben", second.rollout["rollout_id"], draft)
    assert one.record("anna", second.rollout["rollout_id"], ALL).state == "draft"
    undone = one.undo("anna", ALL)
    assert undone.state == "open"
    assert two.page("ben", Filters(state=["accepted"])).total == 0


@pytest.mark.slow
def test_the_queue_ends_and_decided_records_are_gone_through_once(workspace: Workspace) -> None:
    desk = Desk(workspace)
    record: DeskRecord | None = handed(desk, "anna")
    done = 0
    while record is not None:
        record = desk.commit("anna", record.rollout["rollout_id"], accept(record), ALL).record
        done += 1
    assert done == COUNT
    assert desk.hand_out("anna", ALL, None).rollout_id is None
    again = Filters(state=["accepted"], sort="newest")
    seen = [desk.hand_out("anna", again, None).rollout_id]
    while seen[-1] is not None:
        seen.append(desk.hand_out("anna", again, seen[-1]).rollout_id)
    assert len(set(seen)) == len(seen) == COUNT + 1


def reject(record: DeskRecord, **fields: Any) -> CommitIn:
    return CommitIn(base_revision_id=record.base_revision_id, action="reject", note="blurred", **fields)


def test_people_who_decided_differently_are_shown_and_somebody_else_settles_it(workspace: Workspace) -> None:
    desk = Desk(workspace)
    record = handed(desk, "anna")
    name = record.rollout["rollout_id"]
    disputed = Filters(state=["disagreed"])
    desk.commit("anna", name, reject(record), ALL)
    assert desk.record("anna", name, ALL).disagree is None
    with ReviewStore.of(workspace) as store:  # as an import brings it from a copy of the workspace
        accepted = store.history(name)[0].model_dump(exclude={"revision_id", "created_at", "parent_revision_id"})
        parent = record.base_revision_id
        human = {"author_kind": "human", "author": "ben", "status": "done", "parent_revision_id": parent}
        store.append([Revision.create(**{**accepted, **human})])
    assert [card.rollout_id for card in desk.page("cleo", disputed).items] == [name]
    shown = {reader: desk.record(reader, name, ALL) for reader in ("anna", "ben", "cleo")}
    assert {one.state for one in shown.values()} == {"disagreed"}
    assert {reader: one.disagree and one.disagree.settles for reader, one in shown.items()} == {
        "anna": True, "ben": False, "cleo": True,
    }  # fmt: skip
    assert shown["cleo"].disagree is not None
    assert shown["cleo"].disagree.people == ["anna", "ben"]
    index_path(workspace).unlink()
    assert Desk(workspace).page("cleo", disputed).total == 1
    judge = Desk(Workspace.open(workspace.root, ["build.adjudicators=[anna]"]))
    assert judge.page("cleo", disputed).total == 0
    handed_out = desk.hand_out("cleo", disputed, None).record
    assert handed_out is not None
    answer = desk.commit("cleo", name, accept(handed_out), disputed)
    assert (answer.state, answer.next) == ("accepted", None)
    assert desk.page("cleo", disputed).total == 0


def test_a_decision_in_passing_hands_out_and_claims_nothing(workspace: Workspace) -> None:
    desk = Desk(workspace)
    record = handed(desk, "anna")
    answer = desk.commit("anna", record.rollout["rollout_id"], reject(record, go_on=False), ALL)
    assert (answer.state, answer.next, answer.record, answer.upcoming) == ("rejected", None, None, None)
    assert desk.page("ben", Filters(state=["draft"])).total == 0


def test_a_damaged_index_is_made_again_and_damaged_rollouts_are_told(workspace: Workspace) -> None:
    assert Desk(workspace).page("anna", ALL).all == COUNT
    index_path(workspace).write_bytes(b"no database at all" * 4000)
    assert Desk(workspace).page("anna", ALL).all == COUNT
    index_path(workspace).unlink()
    next(workspace.rollouts.glob("*.parquet")).write_bytes(b"nothing")
    with pytest.raises(WorkspaceError, match="damaged"):
        Desk(workspace).page("anna", ALL)
