"""The compiler's child: what it has, what it may take, and what is said when it fails."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ram_ebpf.dataplane import compiler, features
from ram_ebpf.dataplane.bytecode import Bytecode
from ram_ebpf.dataplane.compiler import Compilation, CompileError
from ram_ebpf.dataplane.programs import CGROUP_PROGRAMS

SOURCE = CGROUP_PROGRAMS.source
MODULE = compiler.__name__
ROOT = Path(__file__).parents[2]
OWN = Path("/proc/self/ns/net")
HALVES = min(len(os.sched_getaffinity(0)), 2)
MAPS = Path("/proc/self/maps")

pytestmark = pytest.mark.heavy


def compile_source(flags: Sequence[str]) -> Bytecode:
    return Compilation(SOURCE, flags).result()


class Watched:
    """One in a thread of its own, and what is seen of its child meanwhile."""

    def __init__(self, flags: Sequence[str] = ()) -> None:
        self.result: Bytecode | CompileError | None = None
        self._flags = flags
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = compile_source((*features.compiler_flags(), *self._flags))
        except CompileError as error:
            self.result = error

    def child(self) -> Path:
        """Its directory in /proc, as soon as it runs our module."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for task in Path("/proc/self/task").iterdir():
                for pid in (task / "children").read_text().split():
                    found = Path("/proc", pid)
                    if MODULE.encode() in (found / "cmdline").read_bytes().split(b"\0"):
                        return found
        raise TimeoutError("no child compiles")

    def wait(self) -> Bytecode | CompileError | None:
        self._thread.join()
        return self.result


def descendants(process: Path, count: int) -> list[Path]:
    """The process, its child, the child of that and so on, as soon as there are so many."""
    deadline = time.monotonic() + 20
    found = [process]
    while len(found) < count:
        assert time.monotonic() < deadline
        found = [process]
        while pids := " ".join(path.read_text() for path in found[-1].glob("task/*/children")).split():
            found.append(Path("/proc", pids[0]))
    return found


@pytest.fixture
def compilation() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.wait()


def test_child_has_no_network_and_nothing_of_it_stays(compilation: Watched) -> None:
    child = compilation.child()
    own = OWN.stat().st_ino
    namespaces: set[int] = set()
    devices: set[str] = set()
    while child.exists():
        try:
            namespaces.add((child / "ns/net").stat().st_ino)
            lines = (child / "net/dev").read_text().splitlines()[2:]
            routes = (child / "net/route").read_text().splitlines()[1:]
            flags = (child / "net/if_inet6").read_text()  # empty: not even loopback is up
        except OSError:  # it has just ended
            break
        if namespaces - {own}:
            devices.update(line.split(":")[0].strip() for line in lines)
            assert (routes, flags) == ([], "")
    assert len(namespaces - {own}) == 1
    assert devices == {"lo"}
    assert isinstance(compilation.wait(), Bytecode)
    # Of each line the name alone: an address may well spell bcc.
    mapped = {line.split(maxsplit=5)[5] for line in MAPS.read_text().splitlines() if line.count("/")}
    assert any("libc" in name for name in mapped)
    assert [name for name in mapped if "bcc" in name or "LLVM" in name] == []


def test_child_has_few_capabilities(compilation: Watched) -> None:
    status = compilation.child() / "status"
    effective = []
    while True:
        try:
            effective.append(int(re.findall(r"CapEff:\s*(\w+)", status.read_text())[0], 16))
        except (OSError, IndexError):  # it has just ended
            break
    assert isinstance(compilation.wait(), Bytecode)
    kept = sum(1 << each for each in (2, 21, 24, 39))  # include/uapi/linux/capability.h
    assert [found for found in effective if found & ~kept == 0 and found]


def test_child_sees_no_symbols_of_the_kernel(compilation: Watched) -> None:
    """bcc reads all that there are. Those of everybody else stay."""
    symbols: set[str] = set()
    for process in descendants(compilation.child(), 2):
        with contextlib.suppress(OSError), (process / "root/proc/kallsyms").open(encoding="ascii") as file:
            symbols.add(file.readline())
    assert symbols == {""}
    assert isinstance(compilation.wait(), Bytecode)
    assert Path("/proc/kallsyms").read_text(encoding="ascii")


def test_compiler_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "PATIENCE", 0.05)
    started = time.monotonic()
    with pytest.raises(CompileError, match=r"^the compiler of bpf/cgroup\.c did not end within 0 seconds"):
        compile_source(features.compiler_flags())
    assert time.monotonic() - started < 5


@pytest.mark.skipif(HALVES < 2, reason="there is no other half on one processor")
def test_half_that_is_killed(compilation: Watched) -> None:
    child = compilation.child()
    (copy,) = descendants(child, 2)[1:]
    os.kill(int(copy.name), 9)
    result = compilation.wait()
    assert isinstance(result, CompileError)
    assert str(result) == "half of the compiler ended with status -9"


def test_child_that_is_killed(compilation: Watched) -> None:
    os.kill(int(compilation.child().name), 9)
    result = compilation.wait()
    assert isinstance(result, CompileError)
    assert str(result) == "the compiler ended with status -9"


def test_what_the_compiler_says_arrives() -> None:
    with pytest.raises(CompileError) as caught:
        compile_source([*features.compiler_flags(), "-Dram_reason_for=+"])
    said = str(caught.value)
    assert "error: " in said
    assert "bpf/lib/verdict.h:" in said  # the file and line that it is in


def test_without_the_right_to_take_the_network_away() -> None:
    """It is not run then; to compile is no reason to have a network."""
    command = [sys.executable, "-m", MODULE, SOURCE]
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "the compiler is not run, as its network cannot be taken away: unshare: Operation not permitted\n"
    )


def test_modules_of_the_working_directory_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may start ram-ebpf anywhere, also where somebody else has put a package of that name."""
    package = tmp_path / "ram_ebpf"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('not ours')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *(path for path in sys.path if path)])
    assert isinstance(compile_source(features.compiler_flags()), Bytecode)


def test_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    """A daemon that is killed while it starts leaves no compiler behind."""
    script = f"from ram_ebpf.dataplane.compiler import Compilation; Compilation({SOURCE!r}, ()).result()"
    parent = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 20
    children = descendants(Path("/proc", str(parent.pid)), 1 + HALVES)[1:]
    for child in children:
        while (child / "ns/net").stat().st_ino == OWN.stat().st_ino:
            assert time.monotonic() < deadline
    parent.kill()
    parent.wait()
    while any(child.exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_halves_make_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two compilers come to what one comes to, where there is but one processor."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    halves = compile_source(features.compiler_flags())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    whole = compile_source(features.compiler_flags())
    assert halves == whole


def test_no_second_process_can_be_started() -> None:
    script = f"""\
import errno, sys
from ram_ebpf.dataplane import compiler, features
def fork():
    raise OSError(errno.EAGAIN, "no more")
flags = features.compiler_flags()
compiler._load_binding()
compiler.os.fork = fork
sys.exit(compiler._print_halves({SOURCE!r}, flags))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert Bytecode.from_json(done.stdout) == compile_source(features.compiler_flags())
