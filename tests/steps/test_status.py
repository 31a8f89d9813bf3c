"""What a changed recipe, a changed input or a stopped run does to the state of a workspace."""

import json
import shutil
from pathlib import Path

import made_workspace
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from opadpo.cli.showing import status_text
from opadpo.errors import WorkspaceError
from opadpo.llm.batch_ledger import BatchLedger
from opadpo.llm.store import RequestStore
from opadpo.recipe import preset_text
from opadpo.steps import plans
from opadpo.steps.status import WorkspaceStatus, status
from opadpo.training.job import PLAN_FILE
from opadpo.training.shards import ShardWriter
from opadpo.workspace import Workspace

DATA = {"datasets/opa", "datasets/opadpo"}
OPA, OPADPO, DPO = (
    {f"adapters/{name}", f"captions/{name}/heldout.parquet", f"evaluations/{name}/toy.json"}
    for name in ("opa", "opadpo", "dpo")
)
BASE = {"captions/base/heldout.parquet", "evaluations/base/toy.json"}
TRAINED = OPA | OPADPO | DPO
REVISED = {"expert", "reviews.db"} | DATA | TRAINED
EVERYTHING = {"prompts", "rollouts"} | REVISED | BASE


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_workspace.make(tmp_path_factory.mktemp("finished") / "w").root


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(finished, tmp_path / "w"))


def states(found: WorkspaceStatus, state: str) -> set[str]:
    return {artefact.artefact for artefact in found.artefacts if artefact.state == state}


def test_a_finished_workspace_is_done_and_asks_for_nothing(workspace: Workspace) -> None:
    found = status(workspace)
    assert states(found, "done") == EVERYTHING | {"base.json"}
    assert len(found.artefacts) == len(EVERYTHING) + 1
    assert found.next is None
    assert found["rollouts"].counts == {"rows": 500}
    assert found["reviews.db"].counts["by_expert"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "stale", "first", "reason"),
    [
        ({"seed": 7}, EVERYTHING, "prompts", "seed was 0, is now 7"),
        ({"prepare__subset_size": 400}, EVERYTHING, "prompts", "prepare.subset_size was 500, is now 400"),
        (
            {"model__dtype": "bfloat16"},
            EVERYTHING - {"prompts"},
            "rollouts",
            'model.dtype was "float32", is now "bfloat16"',
        ),
        ({"rollout__temperature": 0.7}, {"rollouts"} | REVISED, "rollouts", "rollout.temperature was 1.0, is now 0.7"),
        ({"rollout__batch_size": 8}, set(), None, None),
        ({"revise__minimal_share": 0.5}, REVISED, "expert", "revise.minimal_share was 0.6, is now 0.5"),
        ({"build__filters": []}, DATA | TRAINED, "datasets/opa", "build.filters was"),
        ({"train__opa__learning_rate": 1e-4}, OPA | OPADPO, "adapters/opa", "train.opa.learning_rate was 0.0002"),
        ({"train__opadpo__loss__beta": 0.2}, OPADPO | DPO, "adapters/opadpo", "train.opadpo.loss.beta was 0.1"),
        ({"train__opadpo__micro_batch_size": 4}, set(), None, None),
        (
            {"caption__max_new_tokens": 40},
            {a for a in BASE | TRAINED if not a.startswith("adapters")},
            "captions/base/heldout.parquet",
            "caption.max_new_tokens was 96, is now 40",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_changed_setting_makes_exactly_what_depends_on_it_stale(
    workspace: Workspace, values: dict[str, object], stale: set[str], first: str | None, reason: str | None
) -> None:
    found = status(made_workspace.change(workspace, **values))
    assert states(found, "stale") == stale
    assert states(found, "missing") == states(found, "partial") == set()
    if first is None or reason is None:
        assert found.next is None
        return
    assert any(line.startswith(reason) for line in found[first].reasons)
    assert found.next == found[first].command
    later = [artefact for artefact in found.artefacts if artefact.state == "stale" and artefact.artefact != first]
    assert all(artefact.reasons for artefact in later)


def test_what_is_made_from_something_stale_says_so(workspace: Workspace) -> None:
    found = status(made_workspace.change(workspace, rollout__top_k=5))
    assert found["expert"].reasons == ["made from rollouts, which is stale"]
    assert found["reviews.db"].reasons == ["made from expert, which is stale"]
    assert "made from datasets/opa, which is stale" in found["adapters/opa"].reasons


def test_a_new_revision_makes_the_data_sets_stale(workspace: Workspace) -> None:
    made_workspace.review(workspace, "r-2", "human")
    found = status(workspace)
    assert states(found, "stale") == DATA | TRAINED
    assert found["datasets/opa"].reasons == ["reviews.db has been made again since"]
    assert found["reviews.db"].counts["reviewed"] == 1
    assert found.agreement is None
    assert found.next == f"opadpo build {workspace.root}"


def test_it_says_how_people_judged_the_expert(workspace: Workspace) -> None:
    assert status(workspace).trust is None
    parent = made_workspace.review(workspace, "r-2")
    made_workspace.review(workspace, "r-2", "human", parent)
    found = status(workspace)
    assert found.trust is not None
    assert (found.trust.responses, found.trust.acceptance, found.trust.scores["4"]["4"]) == (1, 1.0, 1)
    assert "100 % of 1 sentences accepted" in status_text(found)
    assert '"trust":{"responses":1' in found.model_dump_json()


def test_what_was_made_from_something_deleted_names_it(workspace: Workspace) -> None:
    shutil.rmtree(workspace.rollouts)
    found = status(workspace)
    assert found["rollouts"].state == "missing"
    assert found["expert"].reasons == ["rollouts is not there any more"]
    assert found.next == f"opadpo rollout {workspace.root}"


def test_a_damaged_manifest_stops_nothing_but_its_steps(workspace: Workspace) -> None:
    manifest = workspace.rollouts / "manifest.json"
    manifest.write_text("{")
    found = status(workspace)
    assert found["rollouts"].state == "missing"
    assert found["rollouts"].reasons == [
        f"A manifest is damaged: {manifest}; delete that file; the step makes its artefact again"
    ]
    assert found["prompts"].state == "done"
    assert found["expert"].reasons == ["rollouts is not there any more"]
    with pytest.raises(WorkspaceError, match="damaged"):
        workspace.state(plans.rollouts(workspace))


def test_overrides_that_an_artefact_was_made_with_count_as_its_recipe(workspace: Workspace) -> None:
    special = Workspace.open(workspace.root, ["caption.max_new_tokens=20"])
    made_workspace.fill(special, plans.captions(special, "opa", "short"), {"rows": 3})
    found = status(workspace)
    captions = found["captions/opa/short.parquet"]
    assert captions.state == "done"
    assert captions.overrides == ["caption.max_new_tokens=20"]
    assert captions.command == (
        f"opadpo caption {workspace.root} --model opa --set short --set caption.max_new_tokens=20"
    )
    found = status(made_workspace.change(workspace, caption__top_p=0.5))
    assert found["captions/opa/short.parquet"].reasons == ["caption.top_p was 1.0, is now 0.5"]


def test_overrides_that_no_longer_fit_make_stale(workspace: Workspace) -> None:
    special = Workspace.open(workspace.root, ["rollout.samples_per_prompt=2"])
    made_workspace.fill(special, plans.captions(special, "opa", "twice"), {"rows": 3})
    found = status(made_workspace.change(workspace, rollout__temperature=0))
    assert "no longer fits the recipe" in found["captions/opa/twice.parquet"].reasons[0]


def test_another_start_and_name_of_an_adapter_are_kept_in_its_command(workspace: Workspace) -> None:
    made_workspace.fill(workspace, plans.adapter(workspace, *plans.variant("opadpo", "mine", "base")), {})
    found = status(workspace)
    assert found["adapters/mine"].state == "done"
    assert found["adapters/mine"].command == f"opadpo train opadpo {workspace.root} --name mine --from base"
    assert found["adapters/dpo"].command == f"opadpo train opadpo {workspace.root} --name dpo"


def test_a_stopped_run_is_partial_and_counts_what_it_has(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", preset_text("toy"))
    made_workspace.fill(workspace, plans.prompts(workspace), {"train": 500})
    with workspace.writing(plans.rollouts(workspace)) as writer:
        pq.write_table(pa.table({"row": [1, 2, 3]}), writer.folder / "part-00000.parquet")
        (writer.folder / "part-00001.parquet").write_bytes(b"PAR1 half-writ")
        now = status(workspace)["rollouts"]
    assert now.writer is not None
    assert now.writer.startswith("process")
    found = status(workspace)
    assert (found["rollouts"].state, found["rollouts"].counts) == ("partial", {"rows": 3})
    assert found["rollouts"].writer is None


def test_requests_at_the_batch_service_are_told_and_come_next(workspace: Workspace) -> None:
    workspace.manifest_path("expert").unlink()
    with RequestStore.open(workspace.requests_db) as store:
        BatchLedger(store).add("0" * 32, "http://host/v1", ["a", "b"], 0.0)
    found = status(workspace)
    assert (found["expert"].state, found["expert"].counts["requests_at_batch_service"]) == ("partial", 2)
    assert found.next == f"opadpo revise {workspace.root} --batch"
    assert "2 requests at batch service" in status_text(found)


def test_another_base_model_in_the_recipe_makes_the_pin_stale(workspace: Workspace) -> None:
    found = status(made_workspace.change(workspace, model__base="someone/else"))
    assert found["base.json"].state == "stale"
    assert "someone/else" in found["base.json"].reasons[0]
    assert found.next == f"opadpo prepare {workspace.root}"


def test_without_held_out_prompts_nothing_asks_for_captions(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "w", preset_text("toy"), ["prepare.heldout_size=0"])
    assert not any("captions" in artefact.artefact for artefact in status(workspace).artefacts)


def test_imported_revisions_need_no_expert(workspace: Workspace) -> None:
    shutil.rmtree(workspace.root / "expert")
    found = status(workspace)
    assert found["expert"].state == "missing"
    assert found["reviews.db"].state == "done"
    assert found.next is None


def test_damaged_reviews_stop_nothing_but_what_is_made_from_them(workspace: Workspace) -> None:
    workspace.reviews_db.write_bytes(b"no database at all" * 500)
    found = status(workspace)
    assert found["reviews.db"].state == "stale"
    assert "A database is damaged" in found["reviews.db"].reasons[0]
    assert "restore the file from a copy" in found["reviews.db"].reasons[0]
    assert found["datasets/opa"].reasons == ["made from reviews.db, which is stale"]
    assert found["rollouts"].state == "done"


def test_a_killed_training_is_partial_and_its_command_continues_it(workspace: Workspace) -> None:
    opened = Workspace.open(workspace.root, ["train.opa.max_steps=3"])
    plan = plans.adapter(opened, *plans.variant("opa", "mine", "base"))
    run = opened.run("mine")
    (run / "reference").mkdir(parents=True)
    with opened.writing(plan):
        now = status(workspace)["adapters/mine"]
        (run / PLAN_FILE).write_text(json.dumps({"key": plan.key}))
        with ShardWriter(run / "reference" / "process-00000.rows", 0) as writer:
            writer.append([(bytes(16), np.zeros(3, np.float32))])
    assert (now.state, now.writer is not None) == ("partial", True)
    found = status(workspace)["adapters/mine"]
    assert (found.state, found.counts, found.writer) == ("partial", {"reference_computed": 1}, None)
    assert found.command == f"opadpo train opa {workspace.root} --name mine --set train.opa.max_steps=3"
    (run / "checkpoint-8").mkdir()
    assert status(workspace)["adapters/mine"].counts == {"updates": 8}
    # What another plan has left is not continued.
    assert status(made_workspace.change(workspace, seed=7))["adapters/mine"].state == "missing"
