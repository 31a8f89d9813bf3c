"""On-policy alignment of vision-language models with expert revisions (OPA-DPO, arXiv 2501.09695)."""

import os

__version__ = "0.1.0"

# Idle OpenMP threads spin by default. Where other programs want the cores too, small models then take many times as
# long; sleeping costs less than that where nobody else does (benchmarks/shared_cores.py prints both ratios). PyTorch
# reads the setting when it loads, so it has to be made here; a value that the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
