"""From one instance or policy to the next: in which order, so that nothing falls between the two."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ram_ebpf.dataplane import abi, cgroups, clock, devices, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.devices import Attachment, Device
from ram_ebpf.dataplane.heritage import Heritage, Translation
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.scope_maps import DEVICE_MAPS, ESTABLISHED, SCOPE_MAPS, ScopeMaps
from ram_ebpf.dataplane.syscall import AttachType
from ram_ebpf.dataplane.tables import identity_of
from ram_ebpf.scopes.cgroup import find_cgroup2_mount

from .exchanges import DENIED_NAMES, REGISTRIES
from .support import Bench
from .wire import own_cgroup

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

_FAR = 1 << 62
_ADDRESS = ip_address("192.0.2.7")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with cgroups.throwaway(find_cgroup2_mount()) as found:
        yield found


def test_packets_are_seen_before_a_connect_is_refused(bench: Bench, cgroup: Path) -> None:
    """What was learned until then is copied in between: whoever has just looked a name up may connect."""
    seen: list[set[str]] = []
    programs = bench.plane.open_scope().programs

    def look() -> None:
        seen.append({hook.label for hook in cgroups.ours_attached(cgroup)})

    cgroups.attach(programs, cgroup, before_refusing=look)
    cgroups.detach(programs, cgroup)
    assert seen == [{"in"}, {"in", "out"}]


@pytest.fixture
def detached(monkeypatch: pytest.MonkeyPatch) -> list[AttachType]:
    """From where programs are detached, in order."""
    seen: list[AttachType] = []
    real = syscall.program_detach

    def detach(target: int, fd: int, where: AttachType) -> None:
        seen.append(where)
        real(target, fd, where)

    monkeypatch.setattr(syscall, "program_detach", detach)
    return seen


def test_what_a_killed_instance_refuses_goes_first(
    bench: Bench, cgroup: Path, detached: list[AttachType]
) -> None:
    """And what it learns by last: what still refuses must learn on."""
    cgroups.attach(bench.plane.open_scope().programs, cgroup)
    assert cgroups.detach_leftovers(cgroups.ours_attached(cgroup), cgroup) == 6
    assert set(detached[:4]) == {
        AttachType.INET4_CONNECT,
        AttachType.INET6_CONNECT,
        AttachType.UDP4_SENDMSG,
        AttachType.UDP6_SENDMSG,
    }
    assert detached[4:] == [AttachType.INET_EGRESS, AttachType.INET_INGRESS]


@pytest.fixture
def unlocked() -> Iterator[Path]:
    with own_cgroup("ram-takeover") as found:
        yield found


def _config(bench: Bench) -> abi.Config:
    return abi.Config.from_buffer_copy(bench.plane.maps["config"][struct.pack("=I", 0)])


def test_learning_beside_another_version(bench: Bench, unlocked: Path) -> None:
    """It refuses, and what it refuses we do not; then it goes, and what we let through is judged again."""
    plane = bench.plane
    cgroups.attach(plane.open_scope().programs, unlocked)
    before = _config(bench)
    plane.learn_beside()
    assert not plane.is_beside_others
    assert plane.attach(unlocked) == 6
    try:
        assert plane.is_beside_others
        assert _config(bench).mode == abi.Mode.AUDIT
        assert {len(found) for found in cgroups.ours_attached(unlocked).values()} == {2}
        plane.relieve()
        now = _config(bench)
        assert (now.mode, now.generation) == (abi.Mode.ENFORCE, before.generation + 1)
        assert {len(found) for found in cgroups.ours_attached(unlocked).values()} == {1}
        assert plane.has_replaced
    finally:
        plane.detach(unlocked)


@pytest.mark.parametrize("flags", [devices.BEHIND, abi.PlaceFlag.OWN_TRAFFIC])
def test_what_refuses_at_a_device_goes_first(
    bench: Bench, detached: list[AttachType], flags: abi.PlaceFlag
) -> None:
    """Whichever way round the device is."""
    device = Device("nowhere", 0x7FFFFFFF, flags)
    incoming, outgoing = device.ways()
    for order in ((incoming, outgoing), (outgoing, incoming)):
        detached.clear()
        program = syscall.program_info(bench.plane.open_scope().programs.fds["con4"]).id
        devices.detach(device, [Attachment(way, program) for way in order])
        assert detached == [outgoing, incoming]


@pytest.mark.parametrize(
    ("shape", "is_open"),
    [
        (None, True),
        (DEVICE_MAPS[ESTABLISHED], False),
        (DEVICE_MAPS[ESTABLISHED]._replace(value_size=64), True),
    ],
    ids=["new", "taken over", "of another version"],
)
def test_connections_from_before_are_known(bench: Bench, shape: MapShape | None, is_open: bool) -> None:
    """Where those of an older scope are, no other is believed to be one. A reload would be a way out."""
    plane, view = bench.plane, bench.scope.view
    number = bench.other.number + 1
    kept = {} if shape is None else {ESTABLISHED: Map(ESTABLISHED, shape)}
    maps = ScopeMaps(number, plane.maps, kept=kept)
    try:
        view.load_for_devices(maps, devices.BEHIND).close()
        raw = view.device_side.maps["earlier"][struct.pack("=I", number)]
        assert (struct.unpack("=Q", raw)[0] > clock.now_ns()) is is_open
    finally:
        maps.close()


def test_snapshot_of_a_full_map() -> None:
    shape = SCOPE_MAPS["learned"]
    found = Map("learned", shape)
    try:
        assert found.snapshot() == []
        pairs = {
            abi.opening_key(ip_address(0x0A000000 + number), 0): bytes(abi.Opening(number, 1, 0))
            for number in range(shape.max_entries * 2)
        }
        found.update(pairs.items())
        taken = dict(found.snapshot())
        assert len(taken) > shape.max_entries // 2
        assert taken.items() <= pairs.items()
        assert taken == dict(found.items())
    finally:
        found.close()


class _AnsweredMeanwhile(Map):
    """Queries, of which one is answered right behind the copy that is made of it."""

    learned: Map
    answer: tuple[bytes, bytes]

    def snapshot(self) -> list[tuple[bytes, bytes]]:
        found = super().snapshot()
        self.learned[self.answer[0]] = self.answer[1]
        return found


def test_what_is_answered_while_it_is_copied(bench: Bench) -> None:
    """By the older programs, which alone knew of the query. Either the query or the answer is copied."""
    tables = bench.plane.tables
    rule = tables.rules.names[0]
    older = {name: Map(name, SCOPE_MAPS[name]) for name in ("learned", "aliases", "unlisted")}
    queries = _AnsweredMeanwhile("queries", SCOPE_MAPS["queries"])
    queries.learned = older["learned"]
    key = abi.opening_key(_ADDRESS, tables.port_list_of(rule))
    queries.answer = key, bytes(abi.Opening(_FAR, rule.rank, 0))
    newer = {name: Map(name, SCOPE_MAPS[name]) for name in ("learned", "aliases", "queries", "unlisted")}

    def identity(number: int) -> int | None:
        found = tables.rule(number)
        return None if found is None else identity_of(found)

    heritage = Heritage(0, {**older, "queries": queries}, Translation(identity, tables))
    try:
        heritage.copy_to(newer)
        value = newer["learned"].get(key)
        assert value is not None
        assert struct.unpack_from("=Q", value) == (_FAR,)
    finally:
        heritage.close()
        for item in newer.values():
            item.close()
