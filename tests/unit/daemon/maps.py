"""A map of the kernel, in memory."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.syscall import MapType


class FakeMap(Map):
    """What user space does with a hash, by default of openings. `writes` counts the updates.

    A LRU_HASH that is full forgets what was written first; the kernel's idea of use is a rougher one.
    """

    def __init__(
        self,
        max_entries: int = 1024,
        value_size: int = 16,
        key_size: int = 20,
        kind: MapType = MapType.HASH,
    ) -> None:
        self.name = "fake"
        self.shape = MapShape(kind, key_size, value_size, max_entries, 0)
        self.entries: dict[bytes, bytes] = {}
        self.writes = 0

    def get(self, key: bytes) -> bytes | None:
        assert len(key) == self.shape.key_size
        return self.entries.get(key)

    def chunks(self) -> Iterator[tuple[bytes, bytes]]:
        yield from self.items()

    def __setitem__(self, key: bytes, value: bytes) -> None:
        assert (len(key), len(value)) == (self.shape.key_size, self.shape.value_size)
        if key not in self.entries and len(self.entries) >= self.shape.max_entries:
            if self.shape.type is not MapType.LRU_HASH:
                raise OSError(errno.E2BIG, "Argument list too long")
            del self.entries[next(iter(self.entries))]
        self.entries[key] = value
        self.writes += 1

    def discard(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None

    def __iter__(self) -> Iterator[bytes]:
        return iter(list(self.entries))

    def update(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in pairs:
            self[key] = value

    def close(self) -> None:
        return
