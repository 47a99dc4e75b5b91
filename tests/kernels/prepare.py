"""What is done on the host before the guest starts, as everything takes about ten times as long in there."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ram_ebpf.dataplane import cache, features
from ram_ebpf.dataplane.compiler import CompileError
from ram_ebpf.dataplane.programs import PROGRAM_SETS

from .errors import RunError

PROJECT = Path(__file__).resolve().parents[2]
_SELECTION = ("-p", "tests.kernels.selection", "--timeout=400")  # a guest is slow
_DEFAULT_PATHS = ("tests", "--ignore=tests/unit")
_NO_TESTS = 5

# In the order of features.compiler_flags(), which is part of the cache's key. Kernels without the first have
# none of the others, and those with the last one have all.
_BOOT_TIME = "-DRAM_HAVE_KTIME_BOOT"
_FLAGS = ("-DRAM_HAVE_SOCK_ADDR_PERF", "-DRAM_HAVE_SOCK_ADDR_TASK", "-DRAM_HAVE_SOCK_ADDR_CGROUP_ID")


def bytecode(directory: Path) -> None:
    """Compiles for every kernel that there may be, and removes what earlier sources left."""
    combinations = [
        (),
        *(
            (_BOOT_TIME, *flags)
            for size in range(len(_FLAGS) + 1)
            for flags in itertools.combinations(_FLAGS, size)
        ),
        (_BOOT_TIME, *_FLAGS, features.MAY_GOTO),
    ]
    jobs = [(programs.source, flags) for programs in PROGRAM_SETS for flags in combinations]
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda job: cache.load_or_compile(job[0], job[1], directory), jobs))
    except CompileError as error:
        raise RunError(f"the programs do not compile (bcc makes maps, so be root): {error}") from error
    wanted = {f"{cache.cache_key(*job)}.json" for job in jobs}
    for path in directory.iterdir():
        if path.name not in wanted:
            path.unlink()


def servers() -> None:
    """Unpacks the programs that the lab takes from packages: the guest has no network to fetch them by."""
    command = [sys.executable, "-m", "tests.lab.servers.aside"]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RunError(f"the lab's servers cannot be fetched:\n{result.stdout}{result.stderr}")


def tests(arguments: Sequence[str]) -> list[list[str]]:
    """The arguments of each pytest in the guest: those given, and what to run unless they name a path.

    Two run side by side otherwise, as the lab's tests mostly wait. The tests are collected here once. That
    finds errors, leaves Python's and pytest's own bytecode beside the sources, and tells which files the
    guest has to read.
    """
    if any((PROJECT / argument.partition("::")[0]).exists() for argument in arguments):
        _collect(arguments)
        return [list(arguments)]
    with tempfile.TemporaryDirectory() as directory:
        listing = Path(directory) / "files"
        _collect([*_SELECTION, f"--list-files={listing}", *_DEFAULT_PATHS, *arguments])
        files = [os.path.relpath(line, PROJECT) for line in listing.read_text().splitlines()]
    dataplane = [file for file in files if file.startswith("tests/dataplane/")]
    others = [file for file in files if file not in dataplane]
    return [[*_SELECTION, *arguments, *group] for group in (others, dataplane) if group]


def _collect(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if result.returncode == _NO_TESTS:
        raise RunError("no test is selected")
    if result.returncode != 0:
        raise RunError(f"the tests cannot be collected:\n{result.stdout}{result.stderr}")
