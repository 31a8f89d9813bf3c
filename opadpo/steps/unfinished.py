"""What runs that were stopped, or run now, have written."""

from collections.abc import Iterator
from pathlib import Path

from opadpo.manifest import Plan
from opadpo.workspace import Workspace

AT_BATCH_SERVICE = "requests_at_batch_service"
"""A count of the expert: requests that wait there, for a run with `--batch`."""


def written(workspace: Workspace, plan: Plan) -> dict[str, int] | None:
    """What an unfinished run of a plan has written; None if there is none."""
    kind, _, name = plan.artefact.partition("/")
    if kind == "expert":
        return _asked(workspace)
    if kind == "adapters":
        counts = _trained(workspace.root / "runs" / name, plan)
        return {} if not counts and workspace.unfinished(plan) else counts
    folder = workspace.unfinished(plan)
    return None if folder is None else _rows(folder)


def unfinished_adapters(workspace: Workspace) -> Iterator[str]:
    """Names of adapters that are being trained, or of which a run has left something."""
    for run in (workspace.root / "runs").glob("*"):
        if _checkpoints(run) or _reference_rows(run) or workspace.writer(f"adapters/{run.name}"):
            yield run.name


def _trained(run: Path, plan: Plan) -> dict[str, int] | None:
    """Updates of a run of this plan or, before the first checkpoint, rows of the reference."""
    from opadpo.training.job import PLAN_FILE

    marker = run / PLAN_FILE
    if not marker.is_file() or plan.key not in marker.read_text(encoding="utf-8", errors="replace"):
        return None
    if checkpoints := _checkpoints(run):
        return {"updates": max(checkpoints)}
    return {"reference_computed": rows} if (rows := _reference_rows(run)) else None


def _checkpoints(run: Path) -> list[int]:
    """The updates after which one was written."""
    return [int(path.name.rpartition("-")[2]) for path in run.glob("checkpoint-*")]


def _reference_rows(run: Path) -> int:
    from opadpo.training.job import REFERENCE_FOLDER
    from opadpo.training.shards import Shards

    return len(Shards(run / REFERENCE_FOLDER))


def _rows(folder: Path) -> dict[str, int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    for part in folder.rglob("*.parquet"):
        # A part that is just being written has no footer yet.
        try:
            rows += pq.read_metadata(part).num_rows
        except (pa.ArrowInvalid, OSError):
            continue
    return {"rows": rows} if rows else {}


def _asked(workspace: Workspace) -> dict[str, int] | None:
    from opadpo.llm.batch_ledger import BatchLedger
    from opadpo.llm.store import RequestStore

    if not workspace.requests_db.exists():
        return None
    with RequestStore.open(workspace.requests_db) as store:
        waiting = len(BatchLedger(store).waiting_keys())
        counts = {f"requests_{name}": count for name, count in store.counts().items()}
        return counts | ({AT_BATCH_SERVICE: waiting} if waiting else {})
