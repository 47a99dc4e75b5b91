"""Whether the kernel runs a cgroup's programs for the sockets of that cgroup. Found by trying.

Before Linux 5.15, whatever is set in net_cls or net_prio (cgroup version 1) switches that off for the whole
machine: sockets made from then on count as those of the root (cgroup_sk_alloc_disable() in
kernel/cgroup/cgroup.c; mended by "bpf, cgroups: Fix cgroup v2 fallback on v1/v2 mixed mode").
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from ram_ebpf.dataplane import cgroups, child, syscall
from ram_ebpf.dataplane.programs import OBJECT_PREFIX
from ram_ebpf.dataplane.syscall import AttachType, ProgramType

# r0 = 0; exit: every connect() is refused.
_REFUSE = bytes([0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
_REFUSED, _PASSED, _UNKNOWN = 10, 11, 12


class Attempt:
    """Trying it in a new cgroup, while the caller does something else.

    To be made before there are other threads.
    """

    def __init__(self, parent: Path) -> None:
        """Begins, below `parent`. What goes wrong is raised by result()."""
        self._kept = contextlib.ExitStack()
        self._child: child.Child | None = None
        self._error: OSError | None = None
        try:
            self._child = self._begin(parent)
        except OSError as error:
            self._error = error
        except BaseException:
            self.close()
            raise

    def _begin(self, parent: Path) -> child.Child:
        directory = self._kept.enter_context(cgroups.throwaway(parent))
        program, _ = syscall.program_load(
            f"{OBJECT_PREFIX}try", ProgramType.CGROUP_SOCK_ADDR, _REFUSE, AttachType.INET4_CONNECT
        )
        self._kept.callback(os.close, program)
        there = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept.callback(os.close, there)
        syscall.program_attach(there, program, AttachType.INET4_CONNECT, syscall.F_ALLOW_MULTI)
        begun = child.Child(lambda: _connect(directory))
        self._kept.callback(begun.close)
        return begun

    def result(self) -> bool | None:
        """Waits for it; None where it cannot be told. Raises OSError where it could not be tried."""
        if self._child is None:
            assert self._error is not None
            raise self._error
        return {_REFUSED: True, _PASSED: False}.get(self._child.wait())

    def sockets_match(self) -> bool:
        """Waits for it and takes the cgroup away; True also where it could not be tried or told."""
        try:
            return self.result() is not False
        except OSError:
            return True
        finally:
            self.close()

    def close(self) -> None:
        """Takes the cgroup away."""
        self._kept.close()


def sockets_match(parent: Path) -> bool:
    """Tries it in a new cgroup below `parent`; True also where that cannot be made.

    To be called before there are other threads.
    """
    return Attempt(parent).sockets_match()


def try_matching(parent: Path) -> bool | None:
    """The same; None where it cannot be told. Raises OSError where it cannot be tried."""
    with contextlib.closing(Attempt(parent)) as attempt:
        return attempt.result()


def _connect(directory: Path) -> int:
    """In a process of its own, which is then in that cgroup; nothing is sent."""
    try:
        (directory / "cgroup.procs").write_text("0", encoding="ascii")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
            item.connect(("127.0.0.1", 9))
    except PermissionError:
        return _REFUSED
    except OSError:
        return _UNKNOWN
    return _PASSED
