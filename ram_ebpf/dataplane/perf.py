"""Reading a BPF_MAP_TYPE_PERF_EVENT_ARRAY: one ring buffer a CPU (perf_event_open(2)), without a library."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator

from ram_ebpf.dataplane.maps import Map

_SYSCALL = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331, "ppc64le": 319}
_TYPE_SOFTWARE = 1
_COUNT_SW_BPF_OUTPUT = 10
_SAMPLE_RAW = 1 << 10
_FORMAT_LOST = 1 << 4
_FLAG_FD_CLOEXEC = 8
_FLAG_WATERMARK = 1 << 14
_RECORD_LOST = 2
_RECORD_SAMPLE = 9
_HEAD = 1024  # offsets in struct perf_event_mmap_page
_TAIL = 1032
_HEADER = struct.Struct("=IHH")
_COUNTS = struct.Struct("=QQ")  # what is read where FORMAT_LOST is set: a value, and how many were lost

_libc = ctypes.CDLL(None, use_errno=True)


def _open_event(cpu: int, watermark: int) -> tuple[int, bool]:
    """The descriptor, and whether it can be read how many records were lost, as from Linux 6.0 on."""
    try:
        return _open_event_as(cpu, watermark, _FORMAT_LOST), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return _open_event_as(cpu, watermark, 0), False


def _open_event_as(cpu: int, watermark: int, read_format: int) -> int:
    # struct perf_event_attr up to wakeup_events or wakeup_watermark: type, size, config, period, sample_type,
    # read_format, flags.
    flags, wakeup = (_FLAG_WATERMARK, watermark) if watermark else (0, 1)
    attributes = struct.pack(
        "=IIQQQQQI", _TYPE_SOFTWARE, 112, _COUNT_SW_BPF_OUTPUT, 0, _SAMPLE_RAW, read_format, flags, wakeup
    ).ljust(112, b"\0")
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    number = _SYSCALL[os.uname().machine]
    fd: int = _libc.syscall(number, buffer, -1, cpu, -1, ctypes.c_ulong(_FLAG_FD_CLOEXEC))
    if fd < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"perf_event_open for CPU {cpu}: {os.strerror(error)}")
    return fd


class _Ring:
    """The ring buffer of one CPU."""

    def __init__(self, cpu: int, pages: int, watermark: int) -> None:
        self.cpu = cpu
        self.fd, self._counts = _open_event(cpu, watermark)
        self._told_lost = 0  # by records in the ring, which come when there is room again
        self._size = pages * mmap.PAGESIZE
        try:
            self._memory = mmap.mmap(self.fd, mmap.PAGESIZE + self._size)
        except OSError:
            os.close(self.fd)
            raise
        # Aligned 64-bit loads and stores: the kernel writes the head while we read it.
        self._head = ctypes.c_uint64.from_buffer(self._memory, _HEAD)
        self._tail = ctypes.c_uint64.from_buffer(self._memory, _TAIL)

    def _bytes(self, position: int, count: int) -> bytes:
        start = position % self._size
        first = self._memory[mmap.PAGESIZE + start : mmap.PAGESIZE + min(start + count, self._size)]
        if len(first) == count:
            return first
        return first + self._memory[mmap.PAGESIZE : mmap.PAGESIZE + count - len(first)]

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Takes every record that is there: its type and what follows its header."""
        head, tail = self._head.value, self._tail.value
        while tail < head:
            kind, _, size = _HEADER.unpack(self._bytes(tail, _HEADER.size))
            if size < _HEADER.size:  # cannot be; but a loop that never ends would be worse
                tail = head
                break
            body = self._bytes(tail + _HEADER.size, size - _HEADER.size)
            if kind == _RECORD_LOST:
                (count,) = struct.unpack_from("=Q", body, 8)
                self._told_lost += count
            yield kind, body
            tail += size
            self._tail.value = tail
        self._tail.value = tail

    @property
    def lost(self) -> int:
        """How many records found no room; before Linux 6.0 those that came last are not known yet."""
        return int(_COUNTS.unpack(os.read(self.fd, _COUNTS.size))[1]) if self._counts else self._told_lost

    def close(self) -> None:
        del self._head, self._tail
        self._memory.close()
        os.close(self.fd)


class PerfReader:
    """All rings of one map. `descriptors` become readable when there is something to take."""

    def __init__(self, events: Map, pages: int = 64, *, patient: bool = False) -> None:
        """Opens one ring of `pages` pages (a power of two) on each CPU that is online.

        `patient`: not each event wakes the reader, but only those that half fill a ring. To wake it takes an
        interrupt and most of the time that an event costs.
        """
        watermark = pages * mmap.PAGESIZE // 2 if patient else 0
        self._events = events
        self._rings: list[_Ring] = []
        try:
            for cpu in range(events.shape.max_entries):
                try:
                    ring = _Ring(cpu, pages, watermark)
                except OSError as error:
                    if error.errno == errno.ENODEV:  # a possible CPU that is not online
                        continue
                    raise
                self._rings.append(ring)
            self.install()
        except OSError:
            self.close()
            raise

    def install(self) -> None:
        """Has programs write into these rings, if they wrote into others of the same map."""
        for ring in self._rings:
            self._events[struct.pack("=I", ring.cpu)] = struct.pack("=I", ring.fd)

    @property
    def descriptors(self) -> list[int]:
        """What to wait on."""
        return [ring.fd for ring in self._rings]

    @property
    def lost(self) -> int:
        """How many events the kernel had to drop as a ring was full, since the start."""
        return sum(ring.lost for ring in self._rings)

    def drain(self, take: Callable[[bytes], None]) -> None:
        """Hands every waiting sample to `take`, its padding included."""
        for ring in self._rings:
            for kind, body in ring.records():
                if kind == _RECORD_SAMPLE:
                    (size,) = struct.unpack_from("=I", body)
                    take(body[4 : 4 + size])

    def close(self) -> None:
        """Gives the rings back."""
        for ring in self._rings:
            with contextlib.suppress(OSError, BufferError):
                ring.close()
        self._rings.clear()
