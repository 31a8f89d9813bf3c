"""On-policy alignment of vision-language models with expert revisions (OPA-DPO, arXiv 2501.09695)."""

import os

__version__ = "0.1.0"

# Idle OpenMP threads spin by default. Where other programs want the cores too, that makes small models five times
# slower (benchmarks/shared_cores.py). The setting is read when PyTorch loads, so it has to be made here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
