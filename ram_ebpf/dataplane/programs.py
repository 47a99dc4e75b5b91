"""Loading the programs and attaching them to cgroups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.bytecode import Bytecode
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.syscall import AttachType, ProgramType

OBJECT_PREFIX = "ram_ebpf_"


@dataclass(frozen=True)
class Hook:
    """Where one C function is attached. `label` is the end of the program's name in the kernel."""

    function: str
    label: str
    program_type: ProgramType
    attach_type: AttachType

    @property
    def object_name(self) -> str:
        """The program's name in the kernel, by which a later start recognises what an earlier one left."""
        return OBJECT_PREFIX + self.label


# Egress last of the skb hooks and connect after both: a reply that is learned is never refused meanwhile.
CGROUP_HOOKS = (
    Hook("ram_ingress", "in", ProgramType.CGROUP_SKB, AttachType.INET_INGRESS),
    Hook("ram_egress", "out", ProgramType.CGROUP_SKB, AttachType.INET_EGRESS),
    Hook("ram_connect4", "con4", ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT),
    Hook("ram_connect6", "con6", ProgramType.CGROUP_SOCK_ADDR, AttachType.INET6_CONNECT),
    Hook("ram_sendmsg4", "snd4", ProgramType.CGROUP_SOCK_ADDR, AttachType.UDP4_SENDMSG),
    Hook("ram_sendmsg6", "snd6", ProgramType.CGROUP_SOCK_ADDR, AttachType.UDP6_SENDMSG),
)


class Programs:
    """The loaded programs, by function name."""

    def __init__(self, bytecode: Bytecode, maps: Mapping[str, Map]) -> None:
        """Loads all of them or none. Raises syscall.VerifierError with the kernel's log."""
        fds = {name: item.fd for name, item in maps.items()}
        self.fds: dict[str, int] = {}
        try:
            for hook in CGROUP_HOOKS:
                code = bytecode.programs[hook.function].with_maps(fds)
                self.fds[hook.function], _ = syscall.program_load(
                    hook.object_name, hook.program_type, code, hook.attach_type
                )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Gives the descriptors back; what is attached stays attached."""
        syscall.close_all(list(self.fds.values()))
        self.fds.clear()


@contextlib.contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(programs: Programs, cgroup: Path) -> None:
    """Attaches every hook to a cgroup2 directory, beside whatever others have attached there.

    Raises OSError that names the cure where somebody's program refuses company.
    """
    attached: list[Hook] = []
    with _open_directory(cgroup) as directory:
        try:
            for hook in CGROUP_HOOKS:
                syscall.program_attach(
                    directory, programs.fds[hook.function], hook.attach_type, syscall.F_ALLOW_MULTI
                )
                attached.append(hook)
        except OSError as error:
            for done in reversed(attached):
                syscall.program_detach(directory, programs.fds[done.function], done.attach_type)
            if isinstance(error, PermissionError):
                raise PermissionError(
                    error.errno,
                    f"{cgroup}: the kernel refused to attach ({error.strerror}): a program there or above "
                    "was attached without BPF_F_ALLOW_MULTI; `bpftool cgroup tree` shows it",
                ) from error
            raise


def detach(programs: Programs, cgroup: Path) -> None:
    """Detaches what attach() attached; a cgroup that is gone took its attachments along."""
    try:
        with _open_directory(cgroup) as directory:
            for hook in reversed(CGROUP_HOOKS):
                with contextlib.suppress(FileNotFoundError):
                    syscall.program_detach(directory, programs.fds[hook.function], hook.attach_type)
    except FileNotFoundError:
        return


def ours_attached(cgroup: Path) -> dict[Hook, list[int]]:
    """Ids of programs of ram-ebpf attached to a cgroup, whoever loaded them."""
    found: dict[Hook, list[int]] = {}
    with _open_directory(cgroup) as directory:
        for hook in CGROUP_HOOKS:
            for identifier in syscall.program_query(directory, hook.attach_type):
                try:
                    fd = syscall.program_fd_by_id(identifier)
                except FileNotFoundError:
                    continue
                try:
                    if syscall.program_info(fd).name == hook.object_name:
                        found.setdefault(hook, []).append(identifier)
                finally:
                    os.close(fd)
    return found


def detach_leftovers(found: Mapping[Hook, list[int]], cgroup: Path) -> int:
    """Detaches programs that an earlier, killed instance left; returns how many."""
    count = 0
    with _open_directory(cgroup) as directory:
        for hook, identifiers in found.items():
            for identifier in identifiers:
                with contextlib.suppress(FileNotFoundError):
                    fd = syscall.program_fd_by_id(identifier)
                    try:
                        syscall.program_detach(directory, fd, hook.attach_type)
                        count += 1
                    finally:
                        os.close(fd)
    return count
