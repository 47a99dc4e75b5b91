"""Attaching programs to cgroups."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, OBJECT_PREFIX, Hook, Programs
from ram_ebpf.dataplane.syscall import AttachType, ProgramType

# The first ones that drop a packet, and that refuse a connect().
_REFUSING = (
    next(hook for hook in CGROUP_HOOKS if hook.attach_type is AttachType.INET_EGRESS),
    next(hook for hook in CGROUP_HOOKS if hook.program_type is ProgramType.CGROUP_SOCK_ADDR),
)
_THROWAWAY = "ram-ebpf-try-"
_DYING = 1.0  # seconds for which a cgroup may be busy with a process that has ended


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


def attach(
    programs: Programs,
    cgroup: Path,
    hooks: Sequence[Hook] = CGROUP_HOOKS,
    before_refusing: Callable[[], None] = lambda: None,
) -> None:
    """Attaches the hooks to a cgroup2 directory, beside whatever others have attached there.

    `before_refusing` is called before any of them drops a packet, and again before any refuses a connect(),
    when all packets pass these. Raises OSError that names the cure where somebody's program refuses company.
    """
    attached: list[Hook] = []
    with _open_directory(cgroup) as directory:
        try:
            for hook in hooks:
                if hook in _REFUSING:
                    before_refusing()
                syscall.program_attach(
                    directory, programs.fds[hook.label], _type(hook), syscall.F_ALLOW_MULTI
                )
                attached.append(hook)
        except OSError as error:
            for done in reversed(attached):
                syscall.program_detach(directory, programs.fds[done.label], _type(done))
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
                    syscall.program_detach(directory, programs.fds[hook.label], _type(hook))
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


def detach_leftovers(found: dict[Hook, list[int]], cgroup: Path) -> int:
    """Detaches programs that an earlier, killed instance left; returns how many.

    Those go first that refuse: without the others they would learn nothing more, and refuse what is allowed.
    """
    count = 0
    with _open_directory(cgroup) as directory:
        for hook, identifiers in reversed(found.items()):
            for identifier in identifiers:
                with contextlib.suppress(FileNotFoundError), syscall.opened_program(identifier) as fd:
                    syscall.program_detach(directory, fd, _type(hook))
                    count += 1
    return count


def others_attached(cgroup: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> list[str]:
    """Names of programs that are not of ram-ebpf and see the same traffic at a cgroup. Raises OSError."""
    found: list[str] = []
    with _open_directory(cgroup) as directory:
        for hook in hooks:
            for identifier in syscall.program_query(directory, _type(hook)):
                with contextlib.suppress(FileNotFoundError), syscall.opened_program(identifier) as fd:
                    name = syscall.program_info(fd).name
                    if not name.startswith(OBJECT_PREFIX):
                        found.append(name or f"program {identifier}")
    return found


def refusing_company(cgroup: Path, root: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> Path | None:
    """The cgroup, this one or one above it up to `root`, whose program keeps us from attaching here.

    As the kernel decides it (hierarchy_allows_attach() and __cgroup_bpf_attach() in kernel/bpf/cgroup.c).
    Raises OSError.
    """
    above = [path for path in cgroup.parents if path.is_relative_to(root)]
    for hook in hooks:
        count, flags = _count_and_flags(cgroup, hook)
        if count and not flags & syscall.F_ALLOW_MULTI:
            return cgroup
        for path in above:
            count, flags = _count_and_flags(path, hook)
            if flags & (syscall.F_ALLOW_MULTI | syscall.F_ALLOW_OVERRIDE):
                break
            if count:
                return path
    return None


def _count_and_flags(cgroup: Path, hook: Hook) -> tuple[int, int]:
    with _open_directory(cgroup) as directory:
        count = len(syscall.program_query(directory, _type(hook)))
        return count, syscall.program_query_flags(directory, _type(hook))


@contextlib.contextmanager
def throwaway(parent: Path) -> Iterator[Path]:
    """A new cgroup below `parent` to try something in. It is removed with what is attached to it.

    Those that killed processes have left there are removed as well. Raises OSError where none can be made.
    """
    for path in parent.glob(f"{_THROWAWAY}*"):
        _remove_left_over(path)
    directory = parent / f"{_THROWAWAY}{os.getpid()}"
    try:
        directory.mkdir()
        with _open_directory(directory) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield directory
    finally:  # also of what was interrupted between the two
        _remove(directory)


def _remove_left_over(directory: Path) -> None:
    """Only what nobody holds: another process may be trying something right now."""
    with contextlib.suppress(OSError), _open_directory(directory) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory.rmdir()


def _remove(directory: Path) -> None:
    deadline = time.monotonic() + _DYING
    while True:
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno == errno.EBUSY and time.monotonic() < deadline:
                time.sleep(0.005)
                continue
        return
