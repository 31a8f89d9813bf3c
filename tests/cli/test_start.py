"""Help and completion answer at once, because nothing heavy is imported."""

import json
import subprocess
import sys
from pathlib import Path

HEAVY = {
    "accelerate", "datasets", "gradio", "huggingface_hub", "matplotlib", "numpy", "openai", "pandas", "peft", "PIL",
    "psutil", "pyarrow", "pydantic", "rich", "sqlalchemy", "tokenizers", "torch", "transformers", "yaml",
}  # fmt: skip

PROGRAM = """
import json, sys
from opadpo.cli import main
status = main(["--help"])
print(json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    *text, last = done.stdout.splitlines()
    status, modules = json.loads(last)
    assert status == 0
    assert "Commands:" in text
    assert HEAVY & set(modules) == set()


def test_the_shell_completes_names_of_models_after_a_comma(finished: Path) -> None:
    words = f"opadpo caption {finished} --model base,op"
    asked = {"_OPADPO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
    command = [sys.executable, "-m", "opadpo"]
    done = subprocess.run(command, capture_output=True, text=True, env=asked, check=True)
    assert done.stdout.split() == ["base,opa", "base,opadpo"]
