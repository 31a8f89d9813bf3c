"""The benchmark of the training step runs, on a tiny model: its layouts are the same step."""

import importlib.util
import itertools
import sys
from pathlib import Path

import pytest


@pytest.fixture
def benchmark():
    path = Path(__file__).parents[2] / "benchmarks" / "training_step.py"
    spec = importlib.util.spec_from_file_location("training_step", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_layout_is_the_same_step(benchmark):
    found = {
        (layout, reference): benchmark.measure(layout, reference, benchmark.TINY, 1)
        for layout, reference in itertools.product(benchmark.LAYOUTS, benchmark.REFERENCES)
    }
    losses = [result["loss"] for result in found.values()]
    assert losses == pytest.approx([losses[0]] * 10, abs=1e-5)
    assert abs(losses[0] - 6.4 * 0.693147) > 1e-4  # the adapter is not the base
    rows = benchmark.table(found).splitlines()
    assert [row.split(" | ")[0] for row in rows[2:]] == [f"| {layout}" for layout in benchmark.LAYOUTS]
