"""Loading the programs and attaching them to cgroups."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import abi, syscall
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
    Hook("ram_scope_ingress", "in", ProgramType.CGROUP_SKB, AttachType.INET_INGRESS),
    Hook("ram_scope_egress", "out", ProgramType.CGROUP_SKB, AttachType.INET_EGRESS),
    Hook("ram_connect4", "con4", ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT),
    Hook("ram_connect6", "con6", ProgramType.CGROUP_SOCK_ADDR, AttachType.INET6_CONNECT),
    Hook("ram_sendmsg4", "snd4", ProgramType.CGROUP_SOCK_ADDR, AttachType.UDP4_SENDMSG),
    Hook("ram_sendmsg6", "snd6", ProgramType.CGROUP_SOCK_ADDR, AttachType.UDP6_SENDMSG),
)
# On the cgroups of resolvers that live on this host; see bpf/lib/witness.h.
RESOLVER_HOOKS = (Hook("ram_witness", "wit", ProgramType.CGROUP_SKB, AttachType.INET_EGRESS),)


@dataclass(frozen=True)
class SharedProgram:
    """A program that all scopes share: they reach it by a tail call, at a place of an array of programs."""

    hook: Hook
    array: str
    place: int


def _on_ingress(function: str, label: str, place: int) -> SharedProgram:
    hook = Hook(function, label, ProgramType.CGROUP_SKB, AttachType.INET_INGRESS)
    return SharedProgram(hook, "ingress_programs", place)


def _on_egress(function: str, label: str, place: int) -> SharedProgram:
    hook = Hook(function, label, ProgramType.CGROUP_SKB, AttachType.INET_EGRESS)
    return SharedProgram(hook, "egress_programs", place)


SHARED_PROGRAMS = (
    _on_ingress("ram_ingress", "ing", abi.IngressProgram.MAIN),
    _on_ingress("ram_answers", "ans", abi.IngressProgram.ANSWERS),
    _on_ingress("ram_hints", "hint", abi.IngressProgram.HINTS),
    _on_ingress("ram_tell", "tell", abi.IngressProgram.TELL),
    _on_egress("ram_egress", "eg", abi.EgressProgram.MAIN),
    _on_egress("ram_query", "qry", abi.EgressProgram.QUERY),
    _on_egress("ram_query_rule", "rule", abi.EgressProgram.RULE),
)


def every_program() -> Iterator[Hook]:
    """All that is loaded, whether it is attached or called by another one."""
    for shared in SHARED_PROGRAMS:
        yield shared.hook
    yield from RESOLVER_HOOKS
    yield from CGROUP_HOOKS


class Programs:
    """Loaded programs by function name. Closing gives the descriptors back; what is attached stays so."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}

    def load(self, hook: Hook, bytecode: Bytecode, maps: Mapping[str, int]) -> None:
        """Loads one. Raises syscall.VerifierError with the kernel's log."""
        code = bytecode.programs[hook.function].with_maps(maps)
        self.fds[hook.function], _ = syscall.program_load(
            hook.object_name, hook.program_type, code, hook.attach_type
        )

    def close(self) -> None:
        """Gives the descriptors back."""
        syscall.close_all(list(self.fds.values()))
        self.fds.clear()


def _load_all(hooks: Sequence[Hook], bytecode: Bytecode, maps: Mapping[str, int]) -> Programs:
    """All of them or none, side by side: the verifier takes its time, and runs without a lock."""
    programs = Programs()
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda hook: programs.load(hook, bytecode, maps), hooks))
    except BaseException:
        programs.close()
        raise
    return programs


def load_shared(bytecode: Bytecode, maps: Mapping[str, Map]) -> Programs:
    """Loads what all scopes share, and puts it into the arrays."""
    fds = {name: item.fd for name, item in maps.items()}
    hooks = [*(shared.hook for shared in SHARED_PROGRAMS), *RESOLVER_HOOKS]
    programs = _load_all(hooks, bytecode, fds)
    try:
        for shared in SHARED_PROGRAMS:
            fd = programs.fds[shared.hook.function]
            maps[shared.array][struct.pack("=I", shared.place)] = struct.pack("=I", fd)
    except BaseException:
        programs.close()
        raise
    return programs


def load_scope(bytecode: Bytecode, maps: Mapping[str, Map], myself: Map) -> Programs:
    """Loads what is attached to one scope. `myself` tells these programs the scope's number."""
    fds = {name: item.fd for name, item in maps.items()} | {"scope_self": myself.fd}
    return _load_all(CGROUP_HOOKS, bytecode, fds)


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


def detach(programs: Programs, cgroup: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> None:
    """Detaches what attach() attached; a cgroup that is gone took its attachments along."""
    try:
        with _open_directory(cgroup) as directory:
            for hook in reversed(hooks):
                with contextlib.suppress(FileNotFoundError):
                    syscall.program_detach(directory, programs.fds[hook.function], hook.attach_type)
    except FileNotFoundError:
        return


def ours_attached(cgroup: Path, hooks: Sequence[Hook] = CGROUP_HOOKS) -> dict[Hook, list[int]]:
    """Ids of programs of ram-ebpf attached to a cgroup, whoever loaded them."""
    found: dict[Hook, list[int]] = {}
    with _open_directory(cgroup) as directory:
        for hook in hooks:
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
