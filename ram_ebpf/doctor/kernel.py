"""What the kernel can do, by trying each with something small. programs.py tries the programs themselves."""

from __future__ import annotations

import errno
import os
import platform
import re
import resource
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

from ram_ebpf.dataplane import child, features, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map, raise_memlock_limit
from ram_ebpf.dataplane.perf import PerfReader
from ram_ebpf.dataplane.programs import PROGRAM_SETS
from ram_ebpf.dataplane.syscall import AttachType, Helper, MapType, ProgramType
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.policy.words import plural

_OLDEST = (5, 4)
_BTF = Path("/sys/kernel/btf/vmlinux")
_ENOUGH_LOCKED = 64 << 20  # bytes; the built-in policy takes 13 MB with a scope that has devices
_NEWER = "take a newer kernel: Linux 5.4 and later have it"
_CONFIG = {
    ProgramType.CGROUP_SKB: "CONFIG_CGROUP_BPF",
    ProgramType.CGROUP_SOCK_ADDR: "CONFIG_CGROUP_BPF",
    ProgramType.SCHED_CLS: "CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT",
}
_MAP_HELPERS = frozenset(
    {Helper.MAP_LOOKUP_ELEM, Helper.MAP_UPDATE_ELEM, Helper.MAP_DELETE_ELEM, Helper.TAIL_CALL}
)
_SKB_HELPERS = _MAP_HELPERS | {
    Helper.KTIME_GET_NS,
    Helper.GET_PRANDOM_U32,
    Helper.PERF_EVENT_OUTPUT,
    Helper.SKB_LOAD_BYTES,
    Helper.GET_SOCKET_COOKIE,
    Helper.SKB_CGROUP_ID,
}
HELPERS: dict[ProgramType, frozenset[Helper]] = {
    ProgramType.CGROUP_SKB: _SKB_HELPERS
    | {Helper.SK_FULLSOCK, Helper.TCP_SOCK, Helper.SK_STORAGE_GET, Helper.SK_STORAGE_DELETE},
    ProgramType.CGROUP_SOCK_ADDR: frozenset(
        {
            Helper.MAP_LOOKUP_ELEM,
            Helper.MAP_UPDATE_ELEM,
            Helper.KTIME_GET_NS,
            Helper.GET_CURRENT_UID_GID,
            Helper.GET_SOCKET_COOKIE,
            Helper.SK_LOOKUP_TCP,
            Helper.SK_RELEASE,
            Helper.MAP_PUSH_ELEM,
        }
    ),
    ProgramType.SCHED_CLS: _SKB_HELPERS
    | {Helper.SKB_STORE_BYTES, Helper.REDIRECT, Helper.CSUM_DIFF, Helper.SKB_CHANGE_TAIL},
}
"""What the programs of each type call on the oldest kernel. A test compares it with the compiled programs."""

_ATTACH_TYPES: dict[ProgramType, AttachType | None] = {
    ProgramType.CGROUP_SKB: AttachType.INET_EGRESS,
    ProgramType.CGROUP_SOCK_ADDR: AttachType.INET4_CONNECT,
    ProgramType.SCHED_CLS: None,
}


def examine_release(case: Case) -> Iterator[Finding]:
    """The kernel's version, and whether it comes with type information."""
    yield of_release(platform.release(), platform.machine(), sys.byteorder)
    there = "there" if _BTF.exists() else "missing"
    yield well(Check.BTF, f"the kernel's type information is {there}, and nothing here needs it")


def version_of(release: str) -> tuple[int, ...]:
    """The first two numbers of what `uname -r` says."""
    return tuple(map(int, re.findall(r"[0-9]+", release)[:2]))


def of_release(release: str, machine: str, byteorder: str) -> Finding:
    """What may be said of a version and an architecture without trying."""
    title = f"Linux {release} on {machine}"
    if byteorder != "little":
        return warning(
            Check.KERNEL, f"{title}, where nobody has tried it", "take a machine with little-endian numbers"
        )
    if version_of(release) < _OLDEST:
        return warning(Check.KERNEL, f"{title}, which is older than what it is made for", _NEWER)
    return well(Check.KERNEL, title)


def examine_types(case: Case) -> Iterator[Finding]:
    """Types of programs, what they may call, and types of maps. For root."""
    raise_memlock_limit()
    kinds = {(hook.program_type, hook.attach_type) for programs in PROGRAM_SETS for hook in programs.hooks()}
    lacking = {kind: error for kind in sorted(kinds, key=str) if (error := _error(partial(_load, *kind)))}
    if lacking:
        yield from of_lacking(lacking)
    else:
        yield well(Check.PROGRAM_TYPES, f"{plural(len(kinds), 'kind')} of programs load")
    usable = {kind for kind in _ATTACH_TYPES if (kind, _ATTACH_TYPES[kind]) not in lacking}
    if not usable:
        return
    yield of_helpers(
        {
            kind: [
                helper
                for helper in sorted(HELPERS[kind])
                if not features.has_helper(kind, _ATTACH_TYPES[kind], helper)
            ]
            for kind in sorted(usable)
        }
    )
    errors = {
        kind.name.lower(): error for kind in MapType if (error := _error(partial(features.try_map, kind)))
    }
    if errors:
        told = ", ".join(f"{name} ({error.strerror})" for name, error in errors.items())
        yield failure(Check.MAPS, f"these types of maps cannot be made: {told}", _NEWER)
    else:
        yield well(Check.MAPS, f"{len(MapType)} types of maps can be made")
    if ProgramType.CGROUP_SOCK_ADDR in usable:
        yield of_connect_hooks(features.compiler_flags())
        yield _of_boot_clock()
    yield _jit(min(usable))


def _load(program_type: ProgramType, attach_type: AttachType | None) -> None:
    os.close(features.load_small(program_type, attach_type))


def _error(function: Callable[[], object]) -> OSError | None:
    try:
        function()
    except OSError as error:
        return error
    return None


_Kind = tuple[ProgramType, AttachType | None]


def of_lacking(lacking: Mapping[_Kind, OSError]) -> Iterator[Finding]:
    """One for all that fail alike."""
    alike: dict[tuple[str, str], list[str]] = {}
    for (program_type, attach_type), error in lacking.items():
        name = program_type.name.lower()
        where = f"{name} for {attach_type.name.lower()}" if attach_type is not None else name
        key = os.strerror(error.errno or 0), _cure_of_type(program_type, error)
        alike.setdefault(key, []).append(where)
    for (problem, cure), names in alike.items():
        told = ", ".join(names)
        yield failure(Check.PROGRAM_TYPES, f"the kernel loads no programs {told}: {problem}", cure, told)


def _cure_of_type(program_type: ProgramType, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "run it with CAP_SYS_ADMIN, where neither lockdown nor a seccomp filter forbids bpf(2)"
    if error.errno == errno.ENOSYS:
        return "take a kernel with CONFIG_BPF_SYSCALL"
    return f"take a kernel with {_CONFIG[program_type]}, Linux 5.4 or later"


def of_helpers(missing: dict[ProgramType, list[Helper]]) -> Finding:
    """What programs cannot call, by their type."""
    told = [
        f"{kind.name.lower()}: {', '.join(helper.name.lower() for helper in helpers)}"
        for kind, helpers in missing.items()
        if helpers
    ]
    if told:
        return failure(Check.HELPERS, f"programs cannot call what they need ({'; '.join(told)})", _NEWER)
    count = len(frozenset().union(*(HELPERS[kind] for kind in missing)))
    return well(Check.HELPERS, f"{plural(count, 'function')} of the kernel can be called by programs")


def of_connect_hooks(flags: Collection[str]) -> Finding:
    """What the log can say of who has called connect(), by the macros for the C sources."""
    missing = [
        what
        for flag, what in (
            ("-DRAM_HAVE_SOCK_ADDR_TASK", "the process"),
            ("-DRAM_HAVE_SOCK_ADDR_CGROUP_ID", "the control group"),
            ("-DRAM_HAVE_SOCK_ADDR_PERF", "the moment"),
        )
        if flag not in flags
    ]
    if not missing:
        return well(Check.CONNECT_HOOKS, "refusals at connect() tell process and control group at once")
    return warning(
        Check.CONNECT_HOOKS,
        f"refusals at connect() cannot tell {' and '.join(missing)}; what is refused is the same",
        "nothing has to be done; Linux 5.15 and later tell it",
    )


def _of_boot_clock() -> Finding:
    if features.has_boot_time():
        return well(Check.BOOT_CLOCK, "programs read CLOCK_BOOTTIME, which goes on in suspend")
    return warning(
        Check.BOOT_CLOCK,
        "programs cannot read CLOCK_BOOTTIME: what is learned stays open longer by the time in suspend",
        "nothing has to be done on a server; Linux 5.8 and later have it",
    )


def _jit(program_type: ProgramType) -> Finding:
    fd = features.load_small(program_type, _ATTACH_TYPES[program_type])
    try:
        compiled = syscall.program_info(fd).machine_code > 0
    finally:
        os.close(fd)
    return of_jit(compiled)


def of_jit(compiled: bool) -> Finding:
    """Whether the kernel makes machine code of programs."""
    if compiled:
        return well(Check.JIT, "programs run as machine code")
    return warning(
        Check.JIT,
        "programs are interpreted, which makes each packet several times as expensive",
        "sysctl -w net.core.bpf_jit_enable=1; without that file, take a kernel with CONFIG_BPF_JIT",
    )


def examine_memory(case: Case) -> Iterator[Finding]:
    """Whether the limit of locked memory stands in the way, as before Linux 5.11. For root."""
    raise_memlock_limit()
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if _error(partial(features.try_map, MapType.HASH)) is None:  # else nothing of memory can be told
        yield of_locked_memory(_counts_locked_memory(), limit)


def _counts_locked_memory() -> bool:
    def make_map() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, hard))
        features.try_map(MapType.HASH)

    error = child.error_of(make_map)
    return error is not None and error.errno == errno.EPERM


def of_locked_memory(counts: bool, limit: int) -> Finding:
    """`counts`: whether the kernel holds maps to RLIMIT_MEMLOCK; `limit`: what may be had of it, in bytes."""
    if not counts:
        return well(Check.LOCKED_MEMORY, "the kernel does not hold maps to the limit of locked memory")
    if limit == resource.RLIM_INFINITY or limit >= _ENOUGH_LOCKED:
        return well(Check.LOCKED_MEMORY, "the limit of locked memory can be raised as far as it takes")
    return failure(
        Check.LOCKED_MEMORY,
        f"the kernel holds maps to the limit of locked memory, of which {limit >> 20} MiB may be had; "
        f"{_ENOUGH_LOCKED >> 20} MiB are enough for most policies",
        "start ram-ebpf with CAP_SYS_RESOURCE, or LimitMEMLOCK=infinity in its unit",
    )


def examine_perf(case: Case) -> Iterator[Finding]:
    """Whether what programs tell can be read. For root."""
    shape = MapShape(MapType.PERF_EVENT_ARRAY, 4, 4, syscall.possible_cpus(), 0)
    try:
        events = Map("probe", shape)
        try:
            reader = PerfReader(events, pages=1)
            count = len(reader.descriptors)
            reader.close()
        finally:
            events.close()
    except OSError as error:
        yield failure(
            Check.PERF_EVENTS,
            f"what programs tell cannot be read: {os.strerror(error.errno or 0)}",
            "take a kernel with CONFIG_PERF_EVENTS and CONFIG_BPF_EVENTS, and give CAP_PERFMON",
        )
    else:
        yield well(Check.PERF_EVENTS, f"what programs tell can be read, from {plural(count, 'processor')}")
