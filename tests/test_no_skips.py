"""The plugin that lets continuous integration skip nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skipif(True, reason="no browser")
def test_by_mark(): ...

def test_by_call():
    pytest.importorskip("a_package_that_nobody_has")

@pytest.mark.gpu
@pytest.mark.skipif(True, reason="no gpu")
def test_gpu(): ...

@pytest.mark.xfail
def test_known_failure():
    assert False

def test_fine(): ...
"""


def run_pytest(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("OPADPO_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no_skips", "-c", "pytest.ini", "--continue-on-collection-errors"],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_skip_fails_where_all_tests_are_required(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n", encoding="utf-8")
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('nobody_has_this')\n", "utf-8")

    relaxed = run_pytest(tmp_path)
    assert relaxed.returncode == 0, relaxed.stdout
    assert "1 passed, 4 skipped, 1 xfailed" in relaxed.stdout

    strict = run_pytest(tmp_path, OPADPO_REQUIRE_ALL="1")
    assert strict.returncode != 0
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in strict.stdout, strict.stdout
    assert "allows no skipped tests" in strict.stdout
    for reason in ("no browser", "a_package_that_nobody_has", "nobody_has_this"):
        assert reason in strict.stdout
