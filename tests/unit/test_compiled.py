"""In which form a program is loaded, and when another one is."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from ram_ebpf.dataplane import cache, compiled, features
from ram_ebpf.dataplane.bytecode import Bytecode, Program
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.syscall import VerifierError

FLAG = "-DRAM_HAVE_KTIME_BOOT"
BEST = Bytecode({"one": Program(b"best one", ()), "two": Program(b"best two", ())})
PLAIN = Bytecode({"one": Program(b"plain 1.", ()), "two": Program(b"plain 2.", ())})


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The flags with which was compiled, on a kernel that has may_goto."""
    asked: list[tuple[str, ...]] = []

    def load_or_compile(name: str, flags: Sequence[str], directory: Path) -> tuple[Bytecode, bool]:
        assert (name, directory) == ("a.c", Path("/cache"))
        asked.append(tuple(flags))
        return (BEST if features.MAY_GOTO in flags else PLAIN), len(asked) > 1

    monkeypatch.setattr(cache, "load_or_compile", load_or_compile)
    monkeypatch.setattr(features, "compiler_flags", lambda: (FLAG, features.MAY_GOTO))
    monkeypatch.setattr(compiled, "_refused", set())
    return asked


class Kernel:
    """One that refuses some programs, and notes which it was shown."""

    def __init__(self, *refuses: bytes, number: int = errno.E2BIG) -> None:
        self.shown: list[bytes] = []
        self._refuses, self._errno = refuses, number

    def take(self, program: Program) -> int:
        self.shown.append(program.instructions)
        if program.instructions in self._refuses:
            raise VerifierError(OSError(self._errno, os.strerror(self._errno)), "ram_ebpf_one", "log")
        return 7


def make() -> Compiled:
    return Compiled("a.c", Path("/cache"))


def test_taken(compiler: list[tuple[str, ...]]) -> None:
    made, kernel = make(), Kernel()
    assert made.load("one", kernel.take) == 7
    assert kernel.shown == [b"best one"]
    assert compiler == [(FLAG, features.MAY_GOTO)]
    assert not made.from_cache
    assert made.maps == {}


@pytest.mark.parametrize("number", [errno.EACCES, errno.E2BIG, errno.EINVAL, errno.ENOSPC])
def test_refused(compiler: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture, number: int) -> None:
    made, kernel = make(), Kernel(b"best one", number=number)
    assert made.load("one", kernel.take) == 7
    assert made.load("two", kernel.take) == 7
    assert kernel.shown == [b"best one", b"plain 1.", b"best two"]
    assert compiler == [(FLAG, features.MAY_GOTO), (FLAG,)]
    assert "the kernel refused program ram_ebpf_one" in caplog.text
    assert "with may_goto" in caplog.text


def test_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Not even by what is made anew, as at each reload."""
    make().load("one", Kernel(b"best one").take)
    caplog.clear()
    made, kernel = make(), Kernel(b"best one")
    made.load("one", kernel.take)
    made.load("two", kernel.take)
    assert kernel.shown == [b"plain 1.", b"best two"]
    assert caplog.text == ""


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.EMFILE])
def test_refused_for_another_reason(compiler: list[tuple[str, ...]], number: int) -> None:
    made, kernel = make(), Kernel(b"best one", number=number)
    with pytest.raises(VerifierError):
        made.load("one", kernel.take)
    assert kernel.shown == [b"best one"]
    assert len(compiler) == 1
    assert compiled._refused == set()


def test_refused_in_both_forms() -> None:
    """What is said is said of the form that any kernel should take, and nothing is concluded from it."""
    made, kernel = make(), Kernel(b"best one", b"plain 1.")
    with pytest.raises(VerifierError):
        made.load("one", kernel.take)
    assert kernel.shown == [b"best one", b"plain 1."]
    assert compiled._refused == set()


def test_kernel_without_may_goto(monkeypatch: pytest.MonkeyPatch, compiler: list[tuple[str, ...]]) -> None:
    monkeypatch.setattr(features, "compiler_flags", lambda: (FLAG,))
    made, kernel = make(), Kernel(b"plain 1.")
    with pytest.raises(VerifierError):
        made.load("one", kernel.take)
    assert kernel.shown == [b"plain 1."]
    assert compiler == [(FLAG,)]
