"""Attaching programs to cgroups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, Hook, Programs
from ram_ebpf.dataplane.syscall import AttachType


def _type(hook: Hook) -> AttachType:
    assert hook.attach_type is not None, f"{hook.function} is not for cgroups"
    return hook.attach_type


@contextlib.contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(programs: Programs, cgroup: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> None:
    """Attaches the hooks to a cgroup2 directory, beside whatever others have attached there.

    Raises OSError that names the cure where somebody's program refuses company.
    """
    attached: list[Hook] = []
    with _open_directory(cgroup) as directory:
        try:
            for hook in hooks:
                syscall.program_attach(
                    directory, programs.fds[hook.function], _type(hook), syscall.F_ALLOW_MULTI
                )
                attached.append(hook)
        except OSError as error:
            for done in reversed(attached):
                syscall.program_detach(directory, programs.fds[done.function], _type(done))
            if isinstance(error, PermissionError):
                raise PermissionError(
                    error.errno,
                    f"{cgroup}: the kernel refused to attach ({error.strerror}): a program there or above "
                    "was attached without BPF_F_ALLOW_MULTI; `bpftool cgroup tree` shows it",
                ) from error
            raise


def detach(programs: Programs, cgroup: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> None:
    """Detaches what attach() attached; a cgroup that is gone took its attachments along."""
    try:
        with _open_directory(cgroup) as directory:
            for hook in reversed(hooks):
                with contextlib.suppress(FileNotFoundError):
                    syscall.program_detach(directory, programs.fds[hook.function], _type(hook))
    except FileNotFoundError:
        return


def ours_attached(cgroup: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> dict[Hook, list[int]]:
    """Ids of programs of ram-ebpf attached to a cgroup, whoever loaded them."""
    found: dict[Hook, list[int]] = {}
    with _open_directory(cgroup) as directory:
        for hook in hooks:
            for identifier in syscall.program_query(directory, _type(hook)):
                with contextlib.suppress(FileNotFoundError), syscall.opened_program(identifier) as fd:
                    if syscall.program_info(fd).name == hook.object_name:
                        found.setdefault(hook, []).append(identifier)
    return found


def detach_leftovers(found: Mapping[Hook, list[int]], cgroup: Path) -> int:
    """Detaches programs that an earlier, killed instance left; returns how many."""
    count = 0
    with _open_directory(cgroup) as directory:
        for hook, identifiers in found.items():
            for identifier in identifiers:
                with contextlib.suppress(FileNotFoundError), syscall.opened_program(identifier) as fd:
                    syscall.program_detach(directory, fd, _type(hook))
                    count += 1
    return count
