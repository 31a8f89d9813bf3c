"""Run the notebooks: `python tests/run_notebooks.py` (`make notebooks`) runs all and keeps them with their outputs.

They run in one workspace in a temporary folder, so that no path of this machine gets into them, and what an execution
leaves that changes with each one (times, counters of the kernel, versions) is taken out.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from photograph_expert import photograph_expert

from opadpo.display.shipped import OWN_WORKSPACE, shipped, to_text, with_parameters, without_outputs

TIMEOUT = 600
PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
    "grass.png", "horse.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
)  # fmt: skip
"""Of the images in scikit-image's wheel, those that are photographs."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def execute(notebook: Mapping[str, Any], folder: Path, *, allow_errors: bool = False) -> dict[str, Any]:
    """A copy of a notebook with the outputs of its run in `folder`."""
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.reads(json.dumps(notebook), as_version=4)
    client = NotebookClient(
        node,
        timeout=TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
    )
    return json.loads(json.dumps(client.execute()))


def source_digest(notebook: Mapping[str, Any]) -> str:
    """Changes with the code of a notebook."""
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def kept(source: Mapping[str, Any], executed: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The source with the outputs of its run, without what the next run would have otherwise."""
    notebook = without_outputs(source)
    for cell, ran in zip(notebook["cells"], executed["cells"], strict=True):
        if cell["cell_type"] != "code":
            continue
        cell["execution_count"] = ran["execution_count"]
        text = json.dumps([{**output, "metadata": {}} if "metadata" in output else output for output in ran["outputs"]])
        outputs = json.loads(text.replace(str(folder) + "/", ""))
        cell["outputs"] = [_as_lines(_without_machine(output)) for output in outputs]
    notebook["metadata"]["opadpo"] = {"source": source_digest(source)}
    return notebook


def _without_machine(output: dict[str, Any]) -> dict[str, Any]:
    """Without the lines that tell of this machine's memory."""
    html = output.get("data", {}).get("text/html")
    if html is not None:
        text = "".join(html)
        output["data"]["text/html"] = re.sub(r'<div class="small t muted">Memory: [^<]*</div>\s*', "", text)
        plain = "".join(output["data"].get("text/plain", ""))
        output["data"]["text/plain"] = "\n".join(line for line in plain.splitlines() if not line.startswith("Memory: "))
    return output


def _as_lines(output: dict[str, Any]) -> dict[str, Any]:
    """Texts as lists of lines, as notebook files have them."""
    for holder in (output.get("data", {}), output):
        for name in ("text/html", "text/plain", "text"):
            if isinstance(holder.get(name), str):
                holder[name] = holder[name].splitlines(keepends=True)
    return output


def copy_photographs(folder: Path) -> Path:
    """A folder with photographs."""
    import skimage.data

    folder.mkdir()
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.data.__file__).parent / name, folder / name)
    return folder


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = Path(tempfile.mkdtemp(prefix="notebooks-")).resolve()
    with photograph_expert() as url:
        copy_photographs(folder / "photographs")
        for path in shipped():
            print(path.name, flush=True)
            source = without_outputs(read(path))
            runs = source
            if path.name == OWN_WORKSPACE:
                values = {"base_url": url, "model": "photograph-expert", "api_key_env": None}
                runs = with_parameters(source, values)
            path.write_text(to_text(kept(source, execute(runs, folder), folder)), encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
