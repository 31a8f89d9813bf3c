"""A pytest plugin: where OPADPO_REQUIRE_ALL=1 is set, a skipped test is a failed one.

Continuous integration sets it, so that a missing browser, package or vector file cannot hide what it was to test.
Tests marked `gpu` or `annotations` may still be skipped: that machine may have no GPU, and no copy of the benchmarks,
which are not ours to hand on.
"""

import os
from collections.abc import Generator
from typing import Any

import pytest

MAY_SKIP = ("gpu", "annotations")


def _forbid(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"OPADPO_REQUIRE_ALL=1 allows no skipped tests; this one says: {reason}"


def required() -> bool:
    """Whether every test has to run and pass, as in continuous integration."""
    return os.environ.get("OPADPO_REQUIRE_ALL") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    excused = any(item.get_closest_marker(name) for name in MAY_SKIP)
    if required() and report.skipped and not expected_failure and not excused:
        _forbid(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, pytest.CollectReport]:
    report = yield
    if required() and report.skipped:
        _forbid(report)
    return report
