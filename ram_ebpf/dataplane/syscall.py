"""The bpf(2) system call (include/uapi/linux/bpf.h), with nothing of policy in it.

bcc's own wrappers differ from version to version and keep a compiler in the process; this module needs
only the C library. Every failure is an OSError whose text says which command failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple


class Command(IntEnum):
    """enum bpf_cmd."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26


class MapType(IntEnum):
    """enum bpf_map_type, those in use."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    QUEUE = 22
    SK_STORAGE = 24


class ProgramType(IntEnum):
    """enum bpf_prog_type, those in use."""

    SCHED_CLS = 3
    CGROUP_SKB = 8
    CGROUP_SOCK_ADDR = 18


class AttachType(IntEnum):
    """enum bpf_attach_type, those in use."""

    INET_INGRESS = 0
    INET_EGRESS = 1
    INET4_CONNECT = 10
    INET6_CONNECT = 11
    UDP4_SENDMSG = 14
    UDP6_SENDMSG = 15
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class Helper(IntEnum):
    """enum bpf_func_id, those in use."""

    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    KTIME_GET_NS = 5
    GET_PRANDOM_U32 = 7
    SKB_STORE_BYTES = 9
    TAIL_CALL = 12
    GET_CURRENT_PID_TGID = 14
    GET_CURRENT_UID_GID = 15
    GET_CURRENT_COMM = 16
    REDIRECT = 23
    PERF_EVENT_OUTPUT = 25
    SKB_LOAD_BYTES = 26
    CSUM_DIFF = 28
    SKB_CHANGE_TAIL = 38
    GET_SOCKET_COOKIE = 46
    SKB_CGROUP_ID = 79
    GET_CURRENT_CGROUP_ID = 80
    SK_LOOKUP_TCP = 84
    SK_RELEASE = 86
    MAP_PUSH_ELEM = 87
    SK_FULLSOCK = 95
    TCP_SOCK = 96
    SK_STORAGE_GET = 107
    SK_STORAGE_DELETE = 108
    KTIME_GET_BOOT_NS = 125


F_NO_PREALLOC = 1
F_ALLOW_OVERRIDE = 1
F_ALLOW_MULTI = 2
F_BEFORE = 8
OBJECT_NAME_MAX = 15
LOG_SIZE = 16 << 20
_INTERRUPTIONS = 10  # by signals, after which a program is still tried to be loaded
_ATTRIBUTES_ROOM = 512

_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_libc = ctypes.CDLL(None, use_errno=True)
_SYSCALL_NUMBER = _NUMBERS.get(os.uname().machine)


class VerifierError(OSError):
    """The kernel refused a program. `log` is the verifier's, cut to its end."""

    def __init__(self, error: OSError, program: str, log: str) -> None:
        super().__init__(error.errno, f"the kernel refused program {program}: {error.strerror}")
        self.log = log


class _Buffer:
    """Bytes at a fixed address, for as long as this object lives."""

    def __init__(self, data: bytes | int) -> None:
        self.memory = ctypes.create_string_buffer(data, data if isinstance(data, int) else max(len(data), 1))
        self.address = ctypes.addressof(self.memory)


def _bpf(command: Command, attributes: bytes) -> int:
    """The result of a command: 0 or a new file descriptor."""
    return _bpf_with_answer(command, attributes)[0]


def _bpf_with_answer(command: Command, attributes: bytes) -> tuple[int, bytes]:
    """The result, and the attributes as the kernel left them: some commands answer in there."""
    result, number, answer = _call(command, attributes)
    if result < 0:
        raise OSError(number, f"bpf({command.name}): {os.strerror(number)}")
    return result, answer


def _call(command: Command, attributes: bytes) -> tuple[int, int, bytes]:
    """The result, the error's number, and the attributes."""
    if _SYSCALL_NUMBER is None:
        raise OSError(f"bpf(2) on {os.uname().machine} is not known to ram-ebpf")
    # The kernel answers some commands behind what it was told the size of, such as the revision of a query of
    # tcx (bpf_mprog_query in kernel/bpf/mprog.c): there must be room for the whole of union bpf_attr.
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), _ATTRIBUTES_ROOM))
    result: int = _libc.syscall(_SYSCALL_NUMBER, int(command), buffer, len(attributes))
    return result, ctypes.get_errno(), buffer.raw


def _name(name: str) -> bytes:
    return name.encode()[:OBJECT_NAME_MAX].ljust(16, b"\0")


def map_create(
    name: str,
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    btf: tuple[int, int, int] | None = None,
    inner_fd: int = 0,
) -> int:
    """Returns the new map's file descriptor. `btf` is (fd, key type id, value type id).

    `inner_fd`: for a map of maps, a map like those that it will hold.
    """
    btf_fd, key_type, value_type = btf or (0, 0, 0)
    attributes = struct.pack(
        "=IIIIIII16sIIII",
        map_type, key_size, value_size, max_entries, flags, inner_fd, 0, _name(name),
        0, btf_fd, key_type, value_type,
    )  # fmt: skip
    return _bpf(Command.MAP_CREATE, attributes)


def _element(fd: int, key: int, value: int, flags: int = 0) -> bytes:
    return struct.pack("=IIQQQ", fd, 0, key, value, flags)


def map_lookup(fd: int, key: bytes, value_size: int) -> bytes | None:
    """Returns the value, or None where there is none. Per-CPU maps: one value a possible CPU, in a row."""
    k, v = _Buffer(key), _Buffer(value_size)
    try:
        _bpf(Command.MAP_LOOKUP_ELEM, _element(fd, k.address, v.address))
    except FileNotFoundError:
        return None
    return v.memory.raw


def map_update(fd: int, key: bytes, value: bytes) -> None:
    """Sets the value of a key. Raises OSError E2BIG when a hash is full."""
    k, v = _Buffer(key), _Buffer(value)
    _bpf(Command.MAP_UPDATE_ELEM, _element(fd, k.address, v.address))


def map_update_batch(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Sets many values at once (Linux 5.6; EINVAL before). `keys` and `values` lie in a row."""
    k, v = _Buffer(keys), _Buffer(values)
    _bpf(Command.MAP_UPDATE_BATCH, struct.pack("=QQQQIIQQ", 0, 0, k.address, v.address, count, fd, 0, 0))


def map_lookup_batches(fd: int, key_size: int, value_size: int, count: int) -> Iterator[tuple[bytes, bytes]]:
    """What is in a hash, up to `count` entries at a time: their keys, and their values, each in a row.

    Linux 5.6; EINVAL before. What changes meanwhile may be missed. ENOSPC: more than that are in one bucket.
    """
    keys, values = _Buffer(key_size * count), _Buffer(value_size * count)
    tokens = _Buffer(max(key_size, 8)), _Buffer(max(key_size, 8))
    before = 0
    while True:
        where = tokens[0].address, tokens[1].address
        attributes = struct.pack(
            "=QQQQIIQQ", before, where[1], keys.address, values.address, count, fd, 0, 0
        )  # fmt: skip
        result, number, answer = _call(Command.MAP_LOOKUP_BATCH, attributes)
        if result < 0 and number != errno.ENOENT:  # which is its end
            raise OSError(number, f"bpf(MAP_LOOKUP_BATCH): {os.strerror(number)}")
        (found,) = struct.unpack_from("=I", answer, 32)
        if found:
            yield (
                ctypes.string_at(keys.address, found * key_size),
                ctypes.string_at(values.address, found * value_size),
            )
        if result < 0:
            return
        tokens = tokens[1], tokens[0]
        before = where[1]


def map_delete(fd: int, key: bytes) -> bool:
    """Removes a key; False when it was not there."""
    k = _Buffer(key)
    try:
        _bpf(Command.MAP_DELETE_ELEM, _element(fd, k.address, 0))
    except FileNotFoundError:
        return False
    return True


def map_push(fd: int, value: bytes) -> None:
    """Adds a value to a queue. Raises OSError E2BIG when it is full."""
    v = _Buffer(value)
    _bpf(Command.MAP_UPDATE_ELEM, _element(fd, 0, v.address))


def map_pop(fd: int, value_size: int) -> bytes | None:
    """Takes the oldest value from a queue; None when it is empty."""
    v = _Buffer(value_size)
    try:
        _bpf(Command.MAP_LOOKUP_AND_DELETE_ELEM, _element(fd, 0, v.address))
    except FileNotFoundError:
        return None
    return v.memory.raw


def map_keys(fd: int, key_size: int) -> Iterator[bytes]:
    """Iterates over the keys; what changes meanwhile may be missed or seen twice."""
    following = _Buffer(key_size)
    current: _Buffer | None = None
    while True:
        try:
            _bpf(Command.MAP_GET_NEXT_KEY, _element(fd, current.address if current else 0, following.address))
        except FileNotFoundError:
            return
        yield following.memory.raw
        current = _Buffer(following.memory.raw)


def btf_load(data: bytes) -> int:
    """Loads type information; returns its file descriptor."""
    buffer = _Buffer(data)
    return _bpf(Command.BTF_LOAD, struct.pack("=QQIII", buffer.address, 0, len(data), 0, 0))


def program_load(
    name: str,
    program_type: ProgramType,
    instructions: bytes,
    attach_type: AttachType | None,
    want_log: bool = False,
    log_size: int = LOG_SIZE,
) -> tuple[int, str]:
    """Loads a program; returns its file descriptor and, where asked for, the verifier's log.

    `attach_type`: None for types of programs that can be attached in one way only. `log_size`: room for
    the log, in bytes; the kernel refuses with ENOSPC what does not fit. Raises VerifierError with
    the log when the kernel refuses.
    """
    code, licence = _Buffer(instructions), _Buffer(b"GPL\0")

    def load(level: int, log: _Buffer | None) -> int:
        attributes = struct.pack(
            "=IIQQIIQII16sII",
            program_type, len(instructions) // 8, code.address, licence.address,
            level, len(log.memory) if log else 0, log.address if log else 0,
            0, 0, _name(name), 0, attach_type or 0,
        )  # fmt: skip
        for _ in range(_INTERRUPTIONS):
            # The verifier gives up where a signal is pending (do_check_common in kernel/bpf/verifier.c): one
            # that stops us, a debugger's, the freezer's.
            with contextlib.suppress(BlockingIOError):
                return _bpf(Command.PROG_LOAD, attributes)
        return _bpf(Command.PROG_LOAD, attributes)

    if not want_log:
        # This error is not kept: it would keep this frame, and so the log, until garbage is collected.
        with contextlib.suppress(OSError):
            return load(0, None), ""
    log = _Buffer(log_size)
    try:
        fd = load(4 if want_log else 1, log)  # level 4: only the statistics (Linux 5.2)
    except OSError as error:
        text = log.memory.value.decode(errors="replace")
        raise VerifierError(error, name, text[-8000:]) from None
    return fd, log.memory.value.decode(errors="replace") if want_log else ""


def program_attach(target_fd: int, program_fd: int, attach_type: AttachType, flags: int) -> None:
    """Attaches to a cgroup (directory file descriptor), or by tcx to a device (its number).

    EPERM when a cgroup's flags differ from those of what is attached.
    """
    _bpf(Command.PROG_ATTACH, struct.pack("=IIIII", target_fd, program_fd, attach_type, flags, 0))


def program_detach(target_fd: int, program_fd: int, attach_type: AttachType) -> None:
    """Detaches. ENOENT when it was not attached."""
    _bpf(Command.PROG_DETACH, struct.pack("=IIIII", target_fd, program_fd, attach_type, 0, 0))


def program_query(target_fd: int, attach_type: AttachType) -> list[int]:
    """The ids of the programs attached right here, in their order."""
    room = 64
    while True:
        ids = _Buffer(4 * room)
        attributes = struct.pack("=IIIIQI", target_fd, attach_type, 0, 0, ids.address, room)
        try:
            _, answer = _bpf_with_answer(Command.PROG_QUERY, attributes)
        except OSError as error:
            if error.errno != errno.ENOSPC or room > 4096:  # more programs than there was room for
                raise
            room *= 4
            continue
        (count,) = struct.unpack_from("=I", answer, 24)
        return list(struct.unpack_from(f"={count}I", ids.memory.raw))


def program_query_flags(target_fd: int, attach_type: AttachType) -> int:
    """The flags with which the programs right here were attached; 0 where there are none."""
    _, answer = _bpf_with_answer(
        Command.PROG_QUERY, struct.pack("=IIIIQI", target_fd, attach_type, 0, 0, 0, 0)
    )
    (flags,) = struct.unpack_from("=I", answer, 12)
    return int(flags)


def program_fd_by_id(identifier: int) -> int:
    """Opens a loaded program by its id. ENOENT when it is gone."""
    return _bpf(Command.PROG_GET_FD_BY_ID, struct.pack("=III", identifier, 0, 0))


@contextlib.contextmanager
def opened_program(identifier: int) -> Iterator[int]:
    """A loaded program, open for a while. ENOENT when it is gone."""
    fd = program_fd_by_id(identifier)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_map(identifier: int) -> Iterator[int]:
    """The same of a map."""
    fd = _bpf(Command.MAP_GET_FD_BY_ID, struct.pack("=III", identifier, 0, 0))
    try:
        yield fd
    finally:
        os.close(fd)


def object_pin(path: str, fd: int) -> None:
    """Pins a map or program below a bpf file system."""
    buffer = _Buffer(os.fsencode(path) + b"\0")
    _bpf(Command.OBJ_PIN, struct.pack("=QII", buffer.address, fd, 0))


def object_get(path: str) -> int:
    """Opens a pinned map or program."""
    buffer = _Buffer(os.fsencode(path) + b"\0")
    return _bpf(Command.OBJ_GET, struct.pack("=QII", buffer.address, 0, 0))


def _object_info(fd: int, size: int) -> bytes:
    info = _Buffer(size)
    _bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, size, info.address))
    return info.memory.raw


class MapInfo(NamedTuple):
    """The head of struct bpf_map_info."""

    type: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str


def map_info(fd: int) -> MapInfo:
    """What the kernel says of a map."""
    map_type, identifier, key_size, value_size, entries, flags, name = struct.unpack_from(
        "=IIIIII16s", _object_info(fd, 40)
    )
    return MapInfo(map_type, identifier, key_size, value_size, entries, flags, name.rstrip(b"\0").decode())


class ProgramInfo(NamedTuple):
    """The head of struct bpf_prog_info. `machine_code`: bytes of it, 0 where the program is interpreted."""

    type: int
    id: int
    name: str
    machine_code: int = 0


def program_info(fd: int) -> ProgramInfo:
    """What the kernel says of a program."""
    raw = _object_info(fd, 80)
    program_type, identifier, machine_code = struct.unpack_from("=II8xI", raw)
    (name,) = struct.unpack_from("=16s", raw, 64)
    return ProgramInfo(program_type, identifier, name.rstrip(b"\0").decode(), machine_code)


def program_ids() -> Iterator[int]:
    """The ids of all loaded programs; what comes or goes meanwhile may be missed."""
    current = 0
    while True:
        try:
            _, answer = _bpf_with_answer(Command.PROG_GET_NEXT_ID, struct.pack("=III", current, 0, 0))
        except FileNotFoundError:
            return
        (current,) = struct.unpack_from("=I", answer, 4)
        yield current


def program_maps(fd: int) -> list[int]:
    """The ids of the maps that a program uses."""
    room = 64
    while True:
        ids = _Buffer(4 * room)
        info = _Buffer(struct.pack("=52xIQ", room, ids.address).ljust(80, b"\0"))
        _bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, 80, info.address))
        (count,) = struct.unpack_from("=I", info.memory.raw, 52)
        if count <= room:
            return list(struct.unpack_from(f"={count}I", ids.memory.raw))
        room = count


@dataclass(frozen=True)
class TestRun:
    """What BPF_PROG_TEST_RUN gave: the return value, nanoseconds for one run, and the packet afterwards."""

    __test__ = False  # not a test class, whatever its name

    retval: int
    duration_ns: int
    packet: bytes = b""


def program_test_run(fd: int, packet: bytes, repeat: int = 1, room: int = 0) -> TestRun:
    """Runs a program on a packet that begins with an Ethernet header (net/bpf/test_run.c).

    `room`: bytes for the packet as the program leaves it; 0: nobody wants it.
    """
    data, left = _Buffer(packet), _Buffer(room or 1)
    attributes = struct.pack(
        "=IIIIQQIIIIQQ",
        fd, 0, len(packet), room, data.address, left.address if room else 0, repeat, 0, 0, 0, 0, 0,
    )  # fmt: skip
    _, answer = _bpf_with_answer(Command.PROG_TEST_RUN, attributes)
    (retval,) = struct.unpack_from("=I", answer, 4)
    (size,) = struct.unpack_from("=I", answer, 12)
    (duration,) = struct.unpack_from("=I", answer, 36)
    return TestRun(retval, duration, left.memory.raw[: min(size, room)])


def instructions(*encoded: tuple[int, int, int, int, int]) -> bytes:
    """Assembles (opcode, destination, source, offset, immediate) into struct bpf_insn."""
    return b"".join(struct.pack("=BBhi", op, src << 4 | dst, off, imm) for op, dst, src, off, imm in encoded)


def possible_cpus() -> int:
    """How many values a per-CPU map gives (/sys/devices/system/cpu/possible)."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii")
    last = text.strip().split(",")[-1].split("-")[-1]
    return int(last) + 1


def close_all(descriptors: Sequence[int]) -> None:
    """Closes file descriptors, those already closed included."""
    for fd in descriptors:
        try:
            os.close(fd)
        except OSError:
            continue
