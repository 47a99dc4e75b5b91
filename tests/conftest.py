"""Everything outside tests/unit needs root, and says so instead of being skipped unnoticed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis
import pytest

# What daemons keep on disk is not to outlive the run; those that the tests start inherit this. Processes
# that run tests side by side have one each.
if "RAM_EBPF_STATE" not in os.environ or "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["RAM_EBPF_STATE"] = tempfile.mkdtemp(prefix="ram-ebpf-state-")
    atexit.register(shutil.rmtree, os.environ["RAM_EBPF_STATE"], ignore_errors=True)

# Examples kept by a run as root would be in the way of the next one as somebody else. No deadlines: how long
# something takes on a busy machine is no test.
hypothesis.settings.register_profile("ram-ebpf", database=None, deadline=None)
hypothesis.settings.load_profile("ram-ebpf")

NEEDS_ROOT = "this test needs root: run `sudo make test`"
_UNIT = Path(__file__).resolve().parent / "unit"


_MARKERS = (
    "guest: changes the whole machine, so it runs in a guest alone (make test-kernel), or with -m guest",
    "alone: a guest test that changes the machine for good, so it has a guest of its own: -m alone",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Here, as pytest takes options from the top of what it is given alone."""
    parser.addoption("--long", action="store_true", help="tests/faults in full, as `make test-faults` does")


def pytest_configure(config: pytest.Config) -> None:
    """Markers that are no concern of a run on a host, where their tests are left out."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


def mark_root(items: list[pytest.Item]) -> None:
    """By its path, so that a new test cannot forget the marker."""
    for item in items:
        if not item.path.is_relative_to(_UNIT):
            item.add_marker(pytest.mark.root)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Says of each test what it needs, and leaves out elsewhere what is for guests."""
    mark_root(items)
    wanted = {"guest", "alone"} & set(config.option.markexpr.split())
    if wanted or config.pluginmanager.hasplugin("tests.kernels.selection"):
        return
    left_out = [item for item in items if item.get_closest_marker("guest")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """First of all: a fixture that fails for want of rights would hide the one sentence that helps."""
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.fail(NEEDS_ROOT, pytrace=False)
