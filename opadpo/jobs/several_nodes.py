"""A command of this package on every node of a Slurm allocation: `python -m opadpo.jobs.several_nodes VERB ...`.

`srun` starts one task on each node, and each task one `accelerate launch`, which starts the node's processes: one for
each of its GPUs. The first process of the first node leads. See docs/clusters.md.
"""

import os
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence

from opadpo.errors import UserError

_TASK = 'exec "$0" -m accelerate.commands.launch --machine_rank "$SLURM_NODEID" "$@"'
_FIRST_PORT, _PORTS = 20000, 20000


def command(python: str, arguments: Sequence[str], environment: Mapping[str, str], head: str) -> list[str]:
    """The call of srun for a command of this package.

    Args:
        python: the interpreter, at the same path on every node.
        arguments: what follows `opadpo`.
        environment: that of the batch script, with what Slurm has put there.
        head: name of the first node, where the processes meet.

    Raises:
        UserError: if this is no allocation of Slurm.
    """
    try:
        nodes, job = int(environment["SLURM_NNODES"]), environment["SLURM_JOB_ID"]
    except (KeyError, ValueError) as error:
        raise UserError(
            "This is no allocation of Slurm", seen="SLURM_NNODES is not set", remedy="submit it with target slurm"
        ) from error
    each = max(1, int(environment.get("SLURM_GPUS_ON_NODE") or 1))
    # One port for each job, so that two on one node do not meet.
    port = _FIRST_PORT + zlib.crc32(job.encode()) % _PORTS
    # The tasks get what the runner has, keys included; sbatch has told srun to hand on less.
    spread = [
        "srun",
        "--export=ALL",
        "--kill-on-bad-exit=1",
        f"--nodes={nodes}",
        f"--ntasks={nodes}",
        "--ntasks-per-node=1",
    ]
    shares = ["--multi_gpu", "--num_machines", str(nodes), "--num_processes", str(nodes * each)]
    meeting = ["--main_process_ip", head, "--main_process_port", str(port), "--rdzv_backend", "static"]
    # Precision comes from the recipe.
    plain = ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*spread, "bash", "-c", _TASK, python, *shares, *meeting, *plain, "-m", "opadpo", *arguments]


def main(arguments: Sequence[str]) -> None:
    """Become srun."""
    listed = os.environ.get("SLURM_JOB_NODELIST", "")
    shown = subprocess.run(["scontrol", "show", "hostnames", listed], capture_output=True, text=True)
    head = shown.stdout.split("\n")[0] or "localhost"
    words = command(sys.executable, arguments, os.environ, head)
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(sys.argv[1:])
