"""A command of this package on every node of a Slurm allocation: `python -m opadpo.jobs.several_nodes VERB ...`.

`srun` starts one task on each node, and each task one `accelerate launch`, which starts the node's processes: one for
each of its GPUs. The first process of the first node, this one, leads. See docs/clusters.md.
"""

import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from opadpo.errors import UserError
from opadpo.jobs.descendants import GRACE_VARIABLE, JOB_VARIABLE, ends_with_parent, marked, send

_TASK = 'exec "$0" -m accelerate.commands.launch --machine_rank "$SLURM_NODEID" "$@"'
_FIRST_PORT, _PORTS = 20000, 12000
_LAST_SECONDS = 5.0
"""Of the grace: what srun gets to end what is left on all nodes."""
_ADDRESS = re.compile(r"\bNodeAddr=(\S+)")


def command(python: str, arguments: Sequence[str], environment: Mapping[str, str], head: str) -> list[str]:
    """The call of srun for a command of this package.

    Args:
        python: the interpreter, at the same path on every node.
        arguments: what follows `opadpo`.
        environment: that of the batch script, with what Slurm has put there.
        head: address of the first node, where the processes meet.

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


def main(arguments: Sequence[str]) -> int:
    """Run srun; a wish to stop goes to the leading process, with which all the others stop."""
    words = command(sys.executable, arguments, os.environ, _head(os.environ.get("SLURM_JOB_NODELIST", "")))
    # In a group of its own: srun kills its tasks at once when it gets the signal to stop.
    srun = subprocess.Popen(words, process_group=0, preexec_fn=ends_with_parent())

    def stop(number: int, _: object) -> None:
        leaders = _leaders()
        send(number, leaders or [psutil.Process(srun.pid)])
        # Killed with us, srun could not end the tasks on other nodes any more.
        grace = float(os.environ.get(GRACE_VARIABLE, "0"))
        signal.setitimer(signal.ITIMER_REAL, grace - min(_LAST_SECONDS, grace / 2))

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, lambda *_: srun.terminate())
    code = srun.wait()
    return code if code >= 0 else 128 - code


def _leaders() -> list[psutil.Process]:
    """The leading process of this job; none while the launchers start. What it has started has its rank too."""
    job = os.environ.get(JOB_VARIABLE)
    found: dict[int, tuple[psutil.Process, int]] = {}
    for process in marked(job) if job else ():
        with suppress(psutil.Error):
            if process.environ().get("RANK") == "0":
                found[process.pid] = process, process.ppid()
    return [process for process, parent in found.values() if parent not in found]


def _head(nodes: str) -> str:
    """Address of the first node of a list: the one by which Slurm reaches it; its name need not be known elsewhere."""
    name = _scontrol("hostnames", nodes).split("\n")[0] or "localhost"
    found = _ADDRESS.search(_scontrol("node", name))
    return found[1] if found else name


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", "show", *words], capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
