"""What a start began without, and when it is loaded."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from ram_ebpf.daemon.completing import Completing
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.compiler import CompileError
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.programs import ProgramSet

from .running import eventually


class Part(Plane):
    """Lacks something, which is compiled when it may be."""

    def __init__(self, problem: CompileError | None = None) -> None:
        self.may_compile = threading.Event()
        self.threads: list[str] = []
        self.loaded: list[str] = []
        self._problem = problem

    @property
    def is_whole(self) -> bool:
        return False

    def compile_rest(self) -> Mapping[ProgramSet, Compiled]:
        self.threads.append(threading.current_thread().name)
        assert self.may_compile.wait(20)
        if self._problem is not None:
            raise self._problem
        return {}

    def load_rest(self, rest: Mapping[ProgramSet, Compiled]) -> None:
        self.loaded.append(threading.current_thread().name)


def test_loaded_by_who_follows() -> None:
    plane = Part()
    completing = Completing(plane)
    completing.begin()
    completing.follow()
    assert (completing.is_under_way, plane.loaded) == (True, [])
    plane.may_compile.set()
    completing.wait()
    completing.follow()
    completing.follow()
    assert not completing.is_under_way
    assert plane.loaded == [threading.current_thread().name]
    assert plane.threads == ["compile the rest"]


def test_what_goes_wrong_is_raised_there() -> None:
    plane = Part(CompileError("no"))
    completing = Completing(plane)
    completing.begin()
    plane.may_compile.set()
    with pytest.raises(CompileError, match="no"):
        completing.wait()
    with pytest.raises(CompileError, match="no"):
        completing.follow()
    assert plane.loaded == []


def test_at_once() -> None:
    plane = Part()
    plane.may_compile.set()
    Completing(plane).finish()
    assert plane.loaded == plane.threads == [threading.current_thread().name]


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    plane = Part()
    plane.may_compile.set()
    completing = Completing(plane)
    completing.begin()
    completing.follow()
    assert plane.loaded == plane.threads == [threading.current_thread().name]


def test_nothing_is_missing() -> None:
    class Whole(Part):
        @property
        def is_whole(self) -> bool:
            return True

    plane = Whole()
    completing = Completing(plane)
    for call in (completing.begin, completing.follow, completing.wait, completing.finish):
        call()
    assert not completing.is_under_way
    assert not eventually(lambda: bool(plane.threads), 0.1)
