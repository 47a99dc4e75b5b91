"""Counting maps of a real kernel, whole and in bounded time."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane import abi, clock, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map, raise_memlock_limit
from ram_ebpf.dataplane.scope_maps import SCOPE_MAPS
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.metrics.census import Census, Counted
from ram_ebpf.metrics.sample import Sample


@pytest.fixture(params=["batches", "one by one"])
def _old(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before Linux 5.6, which has no batches."""

    def refuse(*_: object) -> Iterator[tuple[bytes, bytes]]:
        raise OSError(errno.EINVAL, "Invalid argument")

    if request.param == "one by one":
        monkeypatch.setattr(syscall, "map_lookup_batches", refuse)


@pytest.fixture
def made() -> Iterator[list[Map]]:
    raise_memlock_limit()
    maps: list[Map] = []
    yield maps
    for item in maps:
        item.close()


def numbered(maps: list[Map], kind: MapType, room: int, entries: int) -> Map:
    maps.append(item := Map("numbers", MapShape(kind, 4, 8, room, 0)))
    for number in range(entries):
        item[struct.pack("=I", number)] = struct.pack("=Q", number * number)
    return item


@pytest.mark.usefixtures("_old")
@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH])
@pytest.mark.parametrize(("room", "entries"), [(1, 0), (1, 1), (7, 7), (5000, 4500)])
def test_all_entries(made: list[Map], kind: MapType, room: int, entries: int) -> None:
    item = numbered(made, kind, room, entries)
    assert item.count() == entries
    found: dict[int, int] = {}
    for keys, values in item.chunks():
        numbers, squares = (
            struct.unpack(f"={len(data) // size}{code}", data)
            for data, size, code in ((keys, 4, "I"), (values, 8, "Q"))
        )
        found.update(zip(numbers, squares, strict=True))
    assert found == {number: number * number for number in range(entries)}


def samples(census: Census, *maps: Counted) -> dict[tuple[str, ...], float]:
    return {(sample.name, *sample.labels): sample.value for sample in census.take(maps)}


def opening(seconds: int, flags: int = 0) -> bytes:
    return bytes(abi.Opening(clock.now_ns() + seconds * 10**9, 1, flags))


@pytest.mark.usefixtures("_old")
def test_addresses(made: list[Map]) -> None:
    """On two lists of ports an address is one; what is expired or private opens nothing."""
    made.append(learned := Map("learned", SCOPE_MAPS["learned"]))
    first, second, third = (ipaddress.ip_address(f"192.0.2.{number}") for number in (1, 2, 3))
    learned[abi.opening_key(first, 0)] = learned[abi.opening_key(first, 1)] = opening(60)
    learned[abi.opening_key(second, 0)] = opening(-1)
    learned[abi.opening_key(third, 0)] = opening(60, abi.OpeningFlag.PRIVATE)
    for refused in (abi.RefusedList.ALL, abi.RefusedList.ON + 443):
        learned[abi.opening_key(second, refused)] = opening(60)
    found = samples(Census(), Counted(("learned", 1), learned, "replies"))
    assert found == {
        ("ram_ebpf_map_entries", "learned"): 6,
        ("ram_ebpf_map_max_entries", "learned"): 8192,
        ("ram_ebpf_learned_addresses", "replies", "allow"): 1,
        ("ram_ebpf_learned_addresses", "replies", "refuse"): 1,
        ("ram_ebpf_learned_addresses", "lookups", "allow"): 0,
        ("ram_ebpf_learned_addresses", "lookups", "refuse"): 0,
    }


def test_the_fullest(made: list[Map]) -> None:
    maps = [Counted(("queries", number), numbered(made, MapType.HASH, 10, number)) for number in (3, 9, 5)]
    assert samples(Census(), *maps)["ram_ebpf_map_entries", "queries"] == 9


def test_no_time_for_all(made: list[Map]) -> None:
    """Each time one more, and then the first one again; what was not counted is as it was."""
    maps = [Counted((name, 1), numbered(made, MapType.HASH, 10, 4)) for name in ("a", "b", "c")]
    census = Census(seconds=-1.0)

    def entries() -> list[float]:
        found = samples(census, *maps)
        return [found["ram_ebpf_map_entries", name] for name in ("a", "b", "c")]

    assert [entries(), entries(), entries()] == [[4, 0, 0], [4, 4, 0], [4, 4, 4]]
    for item in made:
        item[struct.pack("=I", 9)] = bytes(8)
    assert [entries(), entries()] == [[5, 4, 4], [5, 5, 4]]


def test_a_map_that_was_closed_meanwhile(made: list[Map]) -> None:
    item = numbered(made, MapType.HASH, 10, 4)
    with_own = item.twin()
    item.close()
    first, *_ = Census().take([Counted(("a", 1), with_own)])
    assert first == Sample("ram_ebpf_map_entries", 4, ("a",))
    with_own.close()
