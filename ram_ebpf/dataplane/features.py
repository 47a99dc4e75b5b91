"""What the running kernel can do, found by trying: version numbers lie on distribution kernels."""

from __future__ import annotations

import os
from functools import lru_cache

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.syscall import AttachType, Helper, MapType, ProgramType

MAY_GOTO = "-DRAM_HAVE_MAY_GOTO"

_CALL = 0x85
_EXIT = 0x95
_REFUSALS = ("unknown func", "invalid func", "cannot use helper")

_LOG_SIZE = 64 << 10  # bytes, for two instructions

# Until may_goto ends the loop: it jumps over the jump back to itself.
_LOOP = syscall.instructions((0xB7, 0, 0, 0, 1), (0xE5, 0, 0, 1, 0), (0x05, 0, 0, -2, 0), (_EXIT, 0, 0, 0, 0))
_RETURN_1 = syscall.instructions((0xB7, 0, 0, 0, 1), (_EXIT, 0, 0, 0, 0))
# Sizes of key and value, entries and flags of those types that want others (kernel/bpf/*.c).
_SMALL_MAPS = {
    MapType.LPM_TRIE: (8, 8, 1, syscall.F_NO_PREALLOC),
    MapType.PROG_ARRAY: (4, 4, 1, 0),
    MapType.PERF_EVENT_ARRAY: (4, 4, 1, 0),
    MapType.ARRAY_OF_MAPS: (4, 4, 1, 0),
    MapType.QUEUE: (0, 8, 1, 0),
    MapType.SK_STORAGE: (4, 8, 0, syscall.F_NO_PREALLOC),
}


def load_small(program_type: ProgramType, attach_type: AttachType | None) -> int:
    """Loads a program that lets everything pass; its file descriptor. Raises OSError."""
    return syscall.program_load("ram_probe", program_type, _RETURN_1, attach_type)[0]


def try_map(map_type: MapType) -> None:
    """Makes the smallest map of a type, and gives it back. Raises OSError where the kernel has none."""
    key, value, entries, flags = _SMALL_MAPS.get(map_type, (4, 8, 1, 0))
    inner = MapShape(MapType.HASH, 4, 8, 1, 0) if map_type == MapType.ARRAY_OF_MAPS else None
    Map("probe", MapShape(map_type, key, value, entries, flags), inner).close()


def has_helper(program_type: ProgramType, attach_type: AttachType | None, helper: int) -> bool:
    """Whether programs of this type may call the helper.

    A program that calls it without arguments is loaded: the verifier refuses it in any case, with other
    words for a helper that it does not have than for arguments that are missing.
    """
    code = syscall.instructions((_CALL, 0, 0, 0, helper), (_EXIT, 0, 0, 0, 0))
    try:
        fd, _ = syscall.program_load("ram_probe", program_type, code, attach_type, log_size=_LOG_SIZE)
    except syscall.VerifierError as error:
        return not any(refusal in error.log for refusal in _REFUSALS)
    os.close(fd)
    return True


def names() -> list[str]:
    """What is there of all that the programs do without elsewhere, such as `ktime-boot`."""
    return [flag.removeprefix("-DRAM_HAVE_").lower().replace("_", "-") for flag in compiler_flags()]


@lru_cache(maxsize=1)
def has_boot_time() -> bool:
    """Whether all our programs may read CLOCK_BOOTTIME (Linux 5.8)."""
    return all(
        has_helper(program_type, attach_type, Helper.KTIME_GET_BOOT_NS)
        for program_type, attach_type in (
            (ProgramType.CGROUP_SKB, AttachType.INET_EGRESS),
            (ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT),
        )
    )


@lru_cache(maxsize=1)
def has_may_goto() -> bool:
    """Whether programs may have loops whose end the verifier does not see (Linux 6.9)."""
    try:
        fd, _ = syscall.program_load(
            "ram_probe", ProgramType.CGROUP_SKB, _LOOP, AttachType.INET_EGRESS, log_size=_LOG_SIZE
        )
    except syscall.VerifierError:
        return False
    os.close(fd)
    return True


@lru_cache(maxsize=1)
def compiler_flags() -> tuple[str, ...]:
    """Macros for the C sources, by what this kernel has and its connect hooks may call."""

    def connect_hook_has(helper: Helper) -> bool:
        return has_helper(ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT, helper)

    flags = []
    if has_boot_time():
        flags.append("-DRAM_HAVE_KTIME_BOOT")
    if connect_hook_has(Helper.PERF_EVENT_OUTPUT):
        flags.append("-DRAM_HAVE_SOCK_ADDR_PERF")
    if connect_hook_has(Helper.GET_CURRENT_PID_TGID) and connect_hook_has(Helper.GET_CURRENT_COMM):
        flags.append("-DRAM_HAVE_SOCK_ADDR_TASK")
    if connect_hook_has(Helper.GET_CURRENT_CGROUP_ID):
        flags.append("-DRAM_HAVE_SOCK_ADDR_CGROUP_ID")
    if has_may_goto():
        flags.append(MAY_GOTO)
    return tuple(flags)
