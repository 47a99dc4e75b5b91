"""The maps of the data plane, created by ourselves with sizes chosen for the policy."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ram_ebpf.dataplane import btf, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.syscall import MapType

_BATCH = 4096


def object_name(name: str) -> str:
    """The name of a map in the kernel."""
    return f"ram_{name}"[: syscall.OBJECT_NAME_MAX]


def _pieces(row: bytes, size: int) -> list[bytes]:
    return [row[at : at + size] for at in range(0, len(row), size)]


class Map:
    """One map: bytes in, bytes out. Closes its descriptor when told to."""

    def __init__(self, name: str, shape: MapShape, inner: MapShape | None = None) -> None:
        """Creates it. `inner`: the shape of the maps that a map of maps is to hold."""
        self.name = name
        self.shape = shape
        if shape.type == MapType.SK_STORAGE:
            btf_fd = syscall.btf_load(btf.key_and_value(shape.value_size))
            try:
                types = (btf_fd, btf.KEY_TYPE_ID, btf.VALUE_TYPE_ID)
                self.fd = self._create(types)
            finally:
                os.close(btf_fd)
        elif inner is not None:
            template = Map(name, inner)
            try:
                self.fd = self._create(None, template.fd)
            finally:
                template.close()
        else:
            self.fd = self._create(None)

    @classmethod
    def opened(cls, name: str, fd: int) -> Map:
        """One that exists, by a descriptor that is ours from now on."""
        found = cls.__new__(cls)
        info = syscall.map_info(fd)
        found.name, found.fd = name, fd
        found.shape = MapShape(
            MapType(info.type), info.key_size, info.value_size, info.max_entries, info.flags
        )
        return found

    @property
    def number(self) -> int:
        """By which the kernel knows it."""
        return syscall.map_info(self.fd).id

    def twin(self) -> Map:
        """The same map, to be closed apart from this."""
        found = Map.__new__(Map)
        found.name, found.shape, found.fd = self.name, self.shape, os.dup(self.fd)
        return found

    def _create(self, types: tuple[int, int, int] | None, inner_fd: int = 0) -> int:
        shape = self.shape
        try:
            return syscall.map_create(
                object_name(self.name), shape.type, shape.key_size, shape.value_size, shape.max_entries,
                shape.flags, types, inner_fd,
            )  # fmt: skip
        except OSError as error:
            hint = ""
            if error.errno == errno.EPERM:
                hint = " (on kernels before 5.11 the limit on locked memory counts: raise RLIMIT_MEMLOCK)"
            raise OSError(error.errno, f"map {self.name}: {error.strerror}{hint}") from error

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        return syscall.map_lookup(self.fd, key, self.shape.value_size)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        syscall.map_update(self.fd, key, value)

    def discard(self, key: bytes) -> bool:
        """Removes a key; False when it was not there."""
        return syscall.map_delete(self.fd, key)

    def __iter__(self) -> Iterator[bytes]:
        return syscall.map_keys(self.fd, self.shape.key_size)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Pairs as they are right now; an entry that goes meanwhile is left out."""
        for key in self:
            value = self.get(key)
            if value is not None:
                yield key, value

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        """The pairs of a hash, by few system calls where the kernel has batches; see chunks()."""
        sizes = self.shape.key_size, self.shape.value_size
        return [pair for rows in self.chunks() for pair in zip(*map(_pieces, rows, sizes), strict=True)]

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of a hash, many of each in a row, in batches where the kernel has them (5.6)."""
        shape = self.shape
        room = min(shape.max_entries, _BATCH)
        begun = False
        try:
            for chunk in syscall.map_lookup_batches(self.fd, shape.key_size, shape.value_size, room):
                begun = True
                yield chunk
            return
        except OSError as error:
            if begun or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSPC):
                raise
        yield from self.items()

    def count(self) -> int:
        """How many entries a hash has."""
        return sum(len(keys) for keys, _ in self.chunks()) // self.shape.key_size

    def clear(self) -> None:
        """Removes every key."""
        for key in list(self):
            self.discard(key)

    def update(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Sets many values, in batches where the kernel has them (5.6)."""
        chunk: list[tuple[bytes, bytes]] = []
        for pair in pairs:
            chunk.append(pair)
            if len(chunk) == _BATCH:
                self._update_chunk(chunk)
                chunk = []
        if chunk:
            self._update_chunk(chunk)

    def _update_chunk(self, chunk: Sequence[tuple[bytes, bytes]]) -> None:
        if self.shape.type in (MapType.HASH, MapType.ARRAY) and len(chunk) > 1:
            keys, values = b"".join(k for k, _ in chunk), b"".join(v for _, v in chunk)
            try:
                syscall.map_update_batch(self.fd, keys, values, len(chunk))
                return
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
        for key, value in chunk:
            self[key] = value

    def push(self, value: bytes) -> None:
        """Adds a value to a queue. Raises OSError E2BIG when it is full."""
        syscall.map_push(self.fd, value)

    def pop(self) -> bytes | None:
        """Takes the oldest value of a queue."""
        return syscall.map_pop(self.fd, self.shape.value_size)

    def per_cpu_sums(self) -> dict[int, int]:
        """Of a per-CPU array of 64-bit numbers: the sum over all CPUs, by index, zeros left out."""
        cpus = syscall.possible_cpus()
        sums = {}
        for index in range(self.shape.max_entries):
            raw = syscall.map_lookup(self.fd, struct.pack("=I", index), 8 * cpus)
            total = sum(struct.unpack(f"={cpus}Q", raw)) if raw else 0
            if total:
                sums[index] = total
        return sums

    def close(self) -> None:
        """Gives the descriptor back; the map lives on while a program uses it."""
        syscall.close_all([self.fd])


def create_maps(
    shapes: Mapping[str, MapShape],
    entries: Mapping[str, int],
    inner: Mapping[str, MapShape],
    there: Mapping[str, Map] | None = None,
) -> dict[str, Map]:
    """Creates every map. `entries` gives max_entries where the policy decides it.

    `inner` names the maps of maps, which are declared as arrays in C, with the shapes of what they hold.
    `there`: those that exist already, and are used instead.
    """
    maps: dict[str, Map] = {}
    try:
        for name, shape in shapes.items():
            if there is not None and name in there:
                maps[name] = there[name].twin()
                continue
            final = _final_shape(name, shape, entries)
            if name in inner:
                final = final._replace(type=MapType.ARRAY_OF_MAPS)
            maps[name] = Map(name, final, inner.get(name))
    except BaseException:
        for created in maps.values():
            created.close()
        raise
    return maps


def _final_shape(name: str, shape: MapShape, entries: Mapping[str, int]) -> MapShape:
    map_type, count, flags = shape.type, entries.get(name, shape.max_entries), shape.flags
    if name in ("peers", "firsts"):  # declared as hashes in C; see bpf/lib/maps.h
        map_type, count, flags = MapType.SK_STORAGE, 0, syscall.F_NO_PREALLOC
    if map_type == MapType.PERF_EVENT_ARRAY:
        count = syscall.possible_cpus()
    return MapShape(map_type, shape.key_size, shape.value_size, max(count, 0), flags)


def raise_memlock_limit() -> None:
    """Lifts RLIMIT_MEMLOCK, by which kernels before 5.11 account BPF memory, as far as we may."""
    import resource

    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    except (ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
