"""The desk over both kinds of store, and two servers on one workspace."""

from pathlib import Path

import pytest
from filled_workspace import COUNT, fill

from opadpo.errors import WorkspaceError
from opadpo.recipe import preset_text
from opadpo.review.desk import Desk
from opadpo.review.filters import Filters
from opadpo.review.index import index_path
from opadpo.review.messages import CommitIn, DeskRecord, DraftIn
from opadpo.review.store import StaleEdit
from opadpo.workspace import Workspace

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


def test_a_damaged_index_is_made_again_and_damaged_rollouts_are_told(workspace: Workspace) -> None:
    assert Desk(workspace).page("anna", ALL).all == COUNT
    index_path(workspace).write_bytes(b"no database at all" * 4000)
    assert Desk(workspace).page("anna", ALL).all == COUNT
    index_path(workspace).unlink()
    next(workspace.rollouts.glob("*.parquet")).write_bytes(b"nothing")
    with pytest.raises(WorkspaceError, match="damaged"):
        Desk(workspace).page("anna", ALL)
