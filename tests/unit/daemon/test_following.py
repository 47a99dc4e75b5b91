"""Scopes whose places come and go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ram_ebpf.daemon.following import Following, LinkWatch
from ram_ebpf.dataplane.devices import BusyDeviceError, Device
from ram_ebpf.dataplane.plane import BusyCgroupError, Plane
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.view import View
from ram_ebpf.policy.rules import RuleSet
from ram_ebpf.policy.scope import Engine
from ram_ebpf.policy.terms import STRICT
from ram_ebpf.scopes.runs import RunsTarget
from ram_ebpf.scopes.target import Places, Target

from .plane import FakePlane, FakeScopeMaps

ONE, TWO = Path("/cgroup/one"), Path("/cgroup/two")
VETH = Device("veth0", 7)


class Recorder(FakePlane):
    """A plane that notes what is attached, and to which scope."""

    def __init__(self) -> None:
        super().__init__(RuleSet((), ()))
        self.governed: dict[Path | Device, Scope] = {}
        self.opened: list[Scope] = []
        self.twins: dict[int, Scope | None] = {}
        self.current: set[Path] = set()
        self.trouble: dict[Path | Device, Exception] = {}
        self.leftovers = 0

    def open_scope(
        self, twin: Scope | None = None, view: View | None = None, place: Path | Device | None = None
    ) -> Scope:
        number = len(self.opened)
        self.govern(number)
        scope = self._scopes[number]
        self.opened.append(scope)
        self.twins[number] = twin
        assert isinstance(scope.maps, FakeScopeMaps)
        return scope

    def inherit(self, scope: Scope, place: Path | Device) -> None:
        """Nobody was there before."""

    def _attach(self, place: Path | Device, scope: Scope | None) -> int:
        if place in self.trouble:
            raise self.trouble[place]
        assert place not in self.governed
        assert scope is not None
        self.governed[place] = scope
        return self.leftovers

    def attach(self, cgroup: Path, scope: Scope | None = None) -> int:
        self.current.add(cgroup)
        return self._attach(cgroup, scope)

    def attach_device(self, device: Device, scope: Scope | None = None) -> int:
        return self._attach(device, scope)

    def detach(self, cgroup: Path) -> None:
        del self.governed[cgroup]

    def detach_device(self, device: Device) -> None:
        del self.governed[device]

    def is_current(self, cgroup: Path) -> bool:
        return cgroup in self.current

    @property
    def attached(self) -> tuple[Path, ...]:
        return tuple(place for place in self.governed if isinstance(place, Path))

    @property
    def attached_devices(self) -> tuple[Device, ...]:
        return tuple(place for place in self.governed if isinstance(place, Device))


class Somewhere(Target):
    """A target that is where it is told."""

    def __init__(self, label: str, *places: Path | Device, period: float = 0.0) -> None:
        self.label, self.period = label, period
        self.looks = 0
        self.be(*places)

    def be(self, *places: Path | Device) -> None:
        self.places = Places(
            frozenset(place for place in places if isinstance(place, Path)),
            frozenset(place for place in places if isinstance(place, Device)),
        )

    def find(self) -> Places:
        self.looks += 1
        return self.places


class Made:
    """Targets that are followed, and what was said."""

    def __init__(self, *targets: Target) -> None:
        self.plane = Recorder()
        self.said: list[tuple[str, str]] = []
        self.changes = 0
        plane: Plane = self.plane
        views = {STRICT: self.plane.view}
        self.following = Following(plane, views, targets, lambda *line: self.said.append(line), self._change)

    def _change(self) -> None:
        self.changes += 1


@pytest.fixture(autouse=True)
def _gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.dataplane.devices.exists", lambda device: False)


def test_begin() -> None:
    made = Made(Somewhere("a", ONE, VETH), Somewhere("b", TWO))
    made.following.begin()
    assert set(made.plane.governed) == {ONE, TWO, VETH}
    assert made.said == []
    assert made.changes == 3
    numbers = {place: scope.number for place, scope in made.plane.governed.items()}
    assert len(set(numbers.values())) == 3
    assert made.plane.twins[numbers[VETH]] is made.plane.governed[ONE]
    assert [made.following.label_of(numbers[place]) for place in (ONE, VETH, TWO)] == ["a", "a", "b"]
    assert made.following.label_of(99) is None


def test_scope_of_a_device_by_another_path_to_its_namespace() -> None:
    """As `explain --pid` has it, which comes by the process, where the scope came by a name."""
    inside = Device("eth0", 7, namespace=Path("/proc/self/ns/net"))
    made = Made(Somewhere("a", inside), Somewhere("b", Device("eth0", 8)))
    made.following.begin()
    by_process = Path(f"/proc/{os.getpid()}/ns/net")
    assert made.following.label_of_device(Device("eth0", 7, namespace=by_process)) == "a"
    assert made.following.label_of_device(Device("renamed", 8)) == "b"
    for other in (
        Device("eth0", 9, namespace=by_process),
        Device("eth0", 7, namespace=Path("/proc/0/ns/net")),
    ):
        assert made.following.label_of_device(other) is None


def test_trouble_at_the_beginning_is_the_callers() -> None:
    made = Made(Somewhere("a", ONE))
    made.plane.trouble[ONE] = BusyCgroupError("busy")
    with pytest.raises(BusyCgroupError):
        made.following.begin()


def test_leftovers_are_told() -> None:
    made = Made(Somewhere("a", VETH))
    made.plane.leftovers = 2
    made.following.begin()
    assert made.said == [("replaced", "2 programs left by an earlier instance on device veth0")]


def test_place_that_comes_goes_and_comes_back() -> None:
    target = Somewhere("a")
    made = Made(target)
    made.following.begin()
    for again in ("", " again"):
        made.said.clear()
        target.be(ONE, VETH)
        made.following.follow()
        assert set(made.plane.governed) == {ONE, VETH}
        made.following.follow()
        target.be()
        made.following.follow()
        assert not made.plane.governed
        assert made.said == [
            ("scope-back", f"{ONE} is governed{again}"),
            ("scope-back", f"device veth0 is governed{again}"),
            ("scope-gone", f"{ONE} was removed; it is governed again when it comes back"),
            ("scope-gone", "device veth0 was removed from a"),
        ]


def test_device_that_belongs_to_it_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.dataplane.devices.exists", lambda device: True)
    target = Somewhere("netns blue", VETH)
    made = Made(target)
    made.following.begin()
    target.be()
    made.following.follow()
    assert made.said == [("scope-gone", "device veth0 no longer belongs to netns blue")]


def test_cgroup_that_was_made_anew() -> None:
    """Of the same name, with nothing attached to it."""
    made = Made(Somewhere("a", ONE))
    made.following.begin()
    made.plane.current.discard(ONE)
    made.following.follow()
    assert [event for event, _ in made.said] == ["scope-gone", "scope-back"]
    assert set(made.plane.governed) == {ONE}


@pytest.mark.parametrize("place", [ONE, VETH])
@pytest.mark.parametrize("trouble", [BusyCgroupError("b"), BusyDeviceError("b"), PermissionError("b")])
def test_trouble_is_told_once_and_tried_again(
    place: Path | Device, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ram_ebpf.dataplane.devices.exists", lambda device: True)
    target = Somewhere("a")
    made = Made(target)
    made.following.begin()
    made.plane.trouble[place] = trouble
    target.be(place)
    for _ in range(3):
        made.following.follow()
    name = place if isinstance(place, Path) else f"device {place}"
    assert made.said == [("scope-failed", f"{name} cannot be governed, and is tried again: b")]
    assert made.following.failed_devices() == {place} - {ONE}
    made.plane.trouble.clear()
    made.following.follow()
    assert not made.following.failed_devices()
    assert made.said[1:] == [("scope-back", f"{name} is governed")]


def test_place_that_is_gone_before_it_is_reached_is_no_trouble() -> None:
    target = Somewhere("a")
    made = Made(target)
    made.plane.trouble[ONE] = FileNotFoundError("gone")
    target.be(ONE)
    made.following.follow()
    assert made.said == []


def test_device_that_is_gone_before_it_is_reached_is_no_trouble() -> None:
    target = Somewhere("a")
    made = Made(target)
    made.plane.trouble[VETH] = OSError(19, "No such device")
    target.be(VETH)
    made.following.follow()
    assert made.said == []


def test_target_that_cannot_be_looked_for_stays_governed(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Somewhere("a", ONE)
    made = Made(target)
    made.following.begin()

    def fail() -> Places:
        raise OSError(105, "No buffer space available")

    monkeypatch.setattr(target, "find", fail)
    for _ in range(2):
        made.following.follow()
    assert set(made.plane.governed) == {ONE}
    assert [event for event, _ in made.said] == ["remark"]


def test_place_of_two_scopes_belongs_to_the_first() -> None:
    first, second = Somewhere("a", ONE), Somewhere("b", ONE)
    made = Made(first, second)
    made.following.begin()
    made.following.follow()
    assert made.following.label_of(made.plane.governed[ONE].number) == "a"
    first.be()
    made.following.follow()
    made.following.follow()
    assert made.following.label_of(made.plane.governed[ONE].number) == "b"


def test_what_takes_long_is_not_looked_for_each_time() -> None:
    slow = Somewhere("a", period=60.0)
    made = Made(slow)
    made.following.begin()
    for _ in range(5):
        made.following.follow()
    assert slow.looks == 2
    made.following.follow(hurry=True)
    assert slow.looks == 3


def test_link_watch() -> None:
    watch = LinkWatch()
    try:
        watch.has_news()
        assert not watch.has_news()
        assert watch.fileno() >= 0
    finally:
        watch.close()


def test_kinds_of_scopes() -> None:
    """Those of one label are one scope; of which nothing is there is known as well."""
    scopes = (
        Somewhere("cgroup a", ONE, VETH),
        Somewhere("unit b"),
        Somewhere("host", TWO),
        Somewhere("cgroup a"),
    )
    made = Made(*scopes, RunsTarget(Engine.DOCKER, Path("/nowhere")))
    made.following.begin()
    found = [(kind, places) for kind, _, places in made.following.kinds()]
    assert found == [("cgroup", 2), ("unit", 0), ("host", 1), ("runs", 0)]
    assert made.following.failed() == 0
