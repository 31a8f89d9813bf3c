"""How fast `prepare` is, and how much memory it takes, on a Parquet file in the shape of RLAIF-V.

    python benchmarks/prepare.py [--rows 20000] [--folder DIR]

The file is generated once (JPEG pictures of 336 to 480 pixels, all different, one row group: the worst case for
memory) and found again in the folder. `prepare` then runs in a process of its own with the recipe's default sizes
(4 x 2,500 and 500 held out for 20,000 rows). Targets: peak below 1 GB, at least 500 rows/s on two cores.
"""

import argparse
import io
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_ORIGINS = {"COCO": 0.45, "VQAv2": 0.25, "LCS-558K": 0.15, "OK-VQA": 0.10, "TextVQA": 0.05}

_CHUNK = 500

_RECIPE = """
name: prepare-benchmark
model: {{base: "{base}"}}
prepare:
  source: {{kind: rlaifv, path: "{path}"}}
  subsets: {subsets}
  subset_size: {subset_size}
  heldout_size: {heldout_size}
"""

_CHILD = """
import json, resource, sys, time
from pathlib import Path
from opadpo.progress import SilentProgress
from opadpo.steps.prepare import prepare
from opadpo.workspace import Workspace
workspace = Workspace.create(sys.argv[1], Path(sys.argv[2]).read_text())
started = time.monotonic()
result = prepare(workspace, progress=SilentProgress())
seconds = time.monotonic() - started
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "seconds": seconds,
    "cpu_seconds": usage.ru_utime + usage.ru_stime,
    # Not ru_maxrss: it starts at what the process that started this one had.
    "peak_bytes": next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM")),
    "counts": result.counts,
}))
"""


class Figures(NamedTuple):
    """What was measured."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    counts: dict[str, int]

    @property
    def rows_per_second(self) -> float:
        """Rows of the source, read, checked and divided."""
        return self.counts["rows_read"] / self.seconds

    @property
    def images_per_second(self) -> float:
        """Images decoded and stored."""
        return self.counts["images"] / self.seconds


def write_source(path: Path, rows: int) -> None:
    """Write the Parquet file; every third image is asked two questions, as in RLAIF-V."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    fields = ("ds_name", "question", "chosen", "rejected", "origin_dataset", "origin_split", "image_path")
    image = ("image", pa.struct([("bytes", pa.binary()), ("path", text)]))
    schema = pa.schema([image, ("idx", pa.int64()), *((name, text) for name in fields)])
    temporary = path.with_suffix(".tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(temporary, schema, compression="none") as writer:
        remaining = _rows(rows)
        while chunk := list(itertools.islice(remaining, _CHUNK)):
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema=schema), row_group_size=rows)
    temporary.replace(path)


def _rows(count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    picture, number, origin = b"", 0, ""
    for index in range(count):
        if index % 4 != 3:
            number, picture, origin = index, _jpeg(rng), str(rng.choice(list(_ORIGINS), p=list(_ORIGINS.values())))
        yield {
            "ds_name": "RLAIF-V",
            "image": {"bytes": picture, "path": f"{number:06d}.jpg"},
            "idx": index,
            "question": f"What can you tell me about picture {index}? Describe it in detail, please.",
            "chosen": f"A good description of picture {number}, number {index}. " * 8,
            "rejected": f"A worse description of picture {number}, number {index}. " * 8,
            "origin_dataset": origin,
            "origin_split": json.dumps({"model": "benchmark", "type": "detailed_description"}),
            "image_path": f"{number:06d}.jpg",
        }


def _jpeg(rng: np.random.Generator) -> bytes:
    """A picture with coarse and fine structure, about as large as a photograph of its size."""
    width, height = (int(side) for side in rng.integers(336, 481, size=2))
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    fine = Image.fromarray(rng.integers(0, 256, (height // 5, width // 5, 3), dtype=np.uint8)).resize((width, height))
    buffer = io.BytesIO()
    Image.blend(coarse, fine, 0.3).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def measure(source: Path, subsets: int, subset_size: int, heldout_size: int, base: str = "toy") -> Figures:
    """Run `prepare` in a process of its own and in a fresh workspace, which is deleted again."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        recipe = Path(folder) / "recipe.yaml"
        sizes = {"subsets": subsets, "subset_size": subset_size, "heldout_size": heldout_size}
        recipe.write_text(_RECIPE.format(path=source, base=base, **sizes))
        command = [sys.executable, "-c", _CHILD, str(Path(folder) / "workspace"), str(recipe)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    """Generate if needed, measure, print; status 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "opadpo-benchmarks")
    arguments = parser.parse_args()
    source = arguments.folder / f"rlaifv-{arguments.rows}.parquet"
    if not source.exists():
        started = time.monotonic()
        write_source(source, arguments.rows)
        print(f"generated {source} in {time.monotonic() - started:.0f} s", file=sys.stderr)
    figures = measure(source, 4, arguments.rows // 8, arguments.rows // 40)
    print(f"source        {arguments.rows} rows, {source.stat().st_size / 1e6:.0f} MB, one row group")
    print(f"time          {figures.seconds:.1f} s ({figures.cpu_seconds:.1f} s of processor, start included)")
    print(f"rows          {figures.rows_per_second:.0f} per second (target 500)")
    print(f"images        {figures.counts['images']} checked and stored, {figures.images_per_second:.0f} per second")
    print(f"peak memory   {figures.peak_bytes / 1e6:.0f} MB (target 1000)")
    return 0 if figures.rows_per_second >= 500 and figures.peak_bytes < 1e9 else 1


if __name__ == "__main__":
    sys.exit(main())
