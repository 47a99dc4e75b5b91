"""What is loaded before it is known which rules there are."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.dataplane import cache, features, groundwork
from ram_ebpf.dataplane.compiler import CompileError
from ram_ebpf.dataplane.groundwork import Ahead, Groundwork
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.programs import BEGINNING_PROGRAMS, CGROUP_PROGRAMS
from ram_ebpf.dataplane.remains import Remains
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.syscall import VerifierError
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import RuleSet, compile_rules

_FEW = 3
_BEGUN = 3  # programs in the array of what leaves, of cgroup.c


def rules(count: int) -> RuleSet:
    hosts = "".join(f"  - host: n{number}.example\n" for number in range(count))
    policy = parse_policy(f"version: 1\nregistries:\n{hosts}".encode(), "policy.yaml")
    return compile_rules(policy, load_catalogue())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    for programs in (CGROUP_PROGRAMS, BEGINNING_PROGRAMS):
        cache.load_or_compile(programs.source, features.compiler_flags())
    before = descriptors()
    yield
    deadline = time.monotonic() + 20
    while descriptors() != before:  # what nobody takes is given back when it is there
        assert time.monotonic() < deadline, (before, descriptors())
        time.sleep(0.02)


@pytest.fixture
def ground() -> Groundwork:
    return Ahead(cache.DEFAULT_DIRECTORY).take()


def test_taken(ground: Groundwork) -> None:
    """The programs of the first view are those that are there; another view has its own."""
    assert ground._loaded is not None
    there = dict(ground._loaded.programs.fds)
    with Plane(rules(_FEW), Settings(), [], ground=ground) as plane:
        assert plane.shared.fds == there
        assert plane.from_cache
        assert plane.maps["rules"].shape.max_entries == groundwork._ROOM["rules"]
        assert [key for key, _ in plane.maps["names"].snapshot()] != []
        other = plane.open_view(rules(_FEW), plane.views[0].posture)
        assert other.programs.fds.keys() == there.keys()
        assert not set(other.programs.fds.values()) & set(there.values())
        assert other.maps["rules"].shape.max_entries == _FEW + 1
        assert other.maps["learned"] is plane.maps["learned"]
        made = plane.prepare_policy([(rules(_FEW), plane.views[0].posture)], Settings())
        plane.discard_policy(made)


def test_too_many_rules(ground: Groundwork) -> None:
    """They get maps of their size, and what was loaded is given back."""
    count = groundwork._ROOM["rules"]  # and one that stands for none
    with Plane(rules(count), Settings(), [], ground=ground) as plane:
        assert plane.maps["rules"].shape.max_entries == count + 1


def test_as_many_as_there_is_room_for(ground: Groundwork) -> None:
    with Plane(rules(groundwork._ROOM["rules"] - 1), Settings(), [], ground=ground) as plane:
        assert plane.maps["rules"].shape.max_entries == groundwork._ROOM["rules"]
        assert plane.maps["names"].count() == groundwork._ROOM["rules"] - 1


def test_wanted_sizes_that_are_not_known(ground: Groundwork) -> None:
    """What a test asks for it gets, as nothing was loaded for it."""
    with Plane(rules(_FEW), Settings(), [], map_sizes={"asked": 7}, ground=ground) as plane:
        assert plane.maps["asked"].shape.max_entries == 7


def test_not_taken() -> None:
    Ahead(cache.DEFAULT_DIRECTORY).close()


def test_taken_and_closed() -> None:
    ahead = Ahead(cache.DEFAULT_DIRECTORY)
    with Plane(rules(_FEW), Settings(), [], ground=ahead.take()) as plane:
        ahead.close()
        assert plane.maps["rules"].get(b"\1\0\0\0") is not None


def test_plane_that_cannot_be_made(ground: Groundwork, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no")

    monkeypatch.setattr("ram_ebpf.dataplane.view.View._fill", fail)
    with pytest.raises(OSError, match="no"):
        Plane(rules(_FEW), Settings(), [], ground=ground)


@pytest.mark.parametrize("where", ["maps", "programs"])
def test_kernel_refuses(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    refusal = VerifierError(OSError(7, "too long"), "ram_ebpf_ans", "log")

    def fail(*_: object, **__: object) -> None:
        raise refusal

    target = "create_maps" if where == "maps" else "programs.load_shared"
    monkeypatch.setattr(f"ram_ebpf.dataplane.groundwork.{target}", fail)
    ahead = Ahead(cache.DEFAULT_DIRECTORY)
    with pytest.raises(VerifierError):
        ahead.take()
    Ahead(cache.DEFAULT_DIRECTORY).close()


def test_compiler_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is waited for where it is taken, and not before."""
    is_begun = threading.Event()

    class Failing:
        def __init__(self, *_: object) -> None:
            pass

        def result(self) -> None:
            is_begun.wait(20)
            raise CompileError("no")

    monkeypatch.setattr(cache, "Compilation", Failing)
    ahead = Ahead(tmp_path)
    is_begun.set()
    with pytest.raises(CompileError, match="no"):
        ahead.take()


@pytest.fixture
def half_kept(tmp_path: Path) -> Path:
    """A cache with what enforcement can begin with, and nothing else."""
    flags = features.compiler_flags()
    (tmp_path / f"{cache.cache_key(CGROUP_PROGRAMS.source, flags)}.json").write_text(
        cache.load_or_compile(CGROUP_PROGRAMS.source, flags)[0].to_json(), encoding="ascii"
    )
    return tmp_path


def test_in_parts(half_kept: Path) -> None:
    """The rest is loaded for every view that is without, and only once."""
    ground = Ahead(half_kept, in_parts=True).take()
    with Plane(rules(_FEW), Settings(), [], ground=ground) as plane:
        other = plane.open_view(rules(_FEW), plane.views[0].posture)
        assert not plane.is_whole
        for view in (plane.views[0], other):
            assert view.programs.have(CGROUP_PROGRAMS)
            assert not view.programs.have(BEGINNING_PROGRAMS)
            assert len(list(view.maps["egress_programs"].items())) == _BEGUN
        rest = plane.compile_rest()
        assert plane.is_whole
        later = plane.open_view(rules(_FEW), plane.views[0].posture)
        for _ in range(2):
            before = descriptors()
            plane.load_rest(rest)
        assert descriptors() == before
        for view in (plane.views[0], other, later):
            assert view.programs.have(BEGINNING_PROGRAMS)
            assert len(list(view.maps["egress_programs"].items())) == _BEGUN + len(BEGINNING_PROGRAMS.shared)


@pytest.mark.parametrize("in_parts", [False, True])
def test_whole_where_all_is_kept(in_parts: bool) -> None:
    with Plane(rules(_FEW), Settings(), [], ground=Ahead(cache.DEFAULT_DIRECTORY, in_parts).take()) as plane:
        assert plane.is_whole
        assert plane.shared.have(BEGINNING_PROGRAMS)


def test_whole_where_something_enforces_already(half_kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes its place must do all that it does."""
    monkeypatch.setattr("ram_ebpf.dataplane.remains.Remains.newest", property(lambda self: None))
    strange = Groundwork(half_kept, in_parts=True)
    assert not strange.is_whole
    strange.close()
    monkeypatch.setattr("ram_ebpf.dataplane.groundwork.Remains", _Strange)
    strange = Groundwork(half_kept, in_parts=True)
    assert strange.is_whole
    strange.close()


class _Strange(Remains):
    """What another version has left."""

    def __init__(self) -> None:
        super().__init__()
        self.strange = 1
