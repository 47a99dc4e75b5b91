"""New containers that wait until it is known what they are."""

from __future__ import annotations

from collections.abc import Set

import pytest

from ram_ebpf.daemon.holding import Holding
from ram_ebpf.dataplane.bridges import Bridges, choose_mark
from ram_ebpf.dataplane.devices import Attachment, BusyDeviceError, Device, lock
from ram_ebpf.dataplane.syscall import AttachType
from ram_ebpf.policy.rules import RuleSet

from .plane import FakePlane

BRIDGE, ONE, TWO = Device("docker0", 9), Device("veth1", 1), Device("veth2", 2)


class Ports:
    """The devices at a bridge, as the test says they are."""

    def __init__(self) -> None:
        self.bridges: Set[Device] = {BRIDGE}
        self.known: Set[Device] = set()
        self.others: Set[Device] = set()
        self.next: tuple[Set[Device], Set[Device]] = (set(), set())
        self.trouble = False

    def look(self) -> None:
        if self.trouble:
            raise OSError(105, "No buffer space available")
        self.known, self.others = self.next


class FakeBridges(Bridges):
    """Notes who is held and who passes."""

    def __init__(self) -> None:
        self.held_at: set[Device] = set()
        self.passing: set[Device] = set()
        self.gone: set[Device] = set()
        self.busy: set[Device] = set()

    @property
    def holding(self) -> frozenset[Device]:
        return frozenset(self.held_at)

    @property
    def known(self) -> frozenset[Device]:
        return frozenset(self.passing)

    def hold(self, bridge: Device) -> None:
        if bridge in self.busy:
            raise BusyDeviceError(f"{bridge} is already governed by another instance of ram-ebpf")
        if bridge in self.gone:
            raise OSError(19, "No such device")
        self.held_at.add(bridge)

    def let_go(self, bridge: Device) -> None:
        self.held_at.remove(bridge)

    def let_pass(self, port: Device) -> None:
        if port in self.gone:
            raise OSError(19, "No such device")
        assert port not in self.passing
        self.passing.add(port)

    def forget(self, port: Device) -> None:
        self.passing.remove(port)


class Plane(FakePlane):
    """A plane with bridges."""

    def __init__(self) -> None:
        super().__init__(RuleSet((), ()))
        self.fake = FakeBridges()
        self.governed: tuple[Device, ...] = ()
        self.forgotten = 0

    @property
    def bridges(self) -> FakeBridges:
        return self.fake

    @property
    def attached_devices(self) -> tuple[Device, ...]:
        return self.governed

    def forget_held(self) -> None:
        self.forgotten += 1


class Made:
    """What is tested, with what is around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plane, self.ports = Plane(), Ports()
        self.bridges = self.plane.fake
        self.failing: set[Device] = set()
        self.said: list[str] = []
        self.left: dict[Device, list[Attachment]] = {}
        self.detached: list[Attachment] = []
        self.now = 0.0
        monkeypatch.setattr("ram_ebpf.dataplane.devices.known", lambda device: self.left.get(device, []))
        monkeypatch.setattr(
            "ram_ebpf.dataplane.devices.detach", lambda device, those: self.detached.extend(those)
        )
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.holding = Holding(
            self.plane, self.ports, lambda: self.failing, lambda event, _: self.said.append(event)
        )

    def there_are(self, known: Set[Device] = frozenset(), others: Set[Device] = frozenset()) -> None:
        self.ports.next = known, others

    def turn(self) -> None:
        """As the daemon does."""
        self.holding.look()
        self.holding.act()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


def test_unknown_port_waits_until_it_is_known(made: Made) -> None:
    made.there_are(others={ONE})
    made.turn()
    made.turn()
    assert made.bridges.held_at == {BRIDGE}
    assert not made.bridges.passing
    assert made.holding.is_holding
    assert not made.plane.forgotten
    made.there_are(known={ONE})
    made.turn()
    assert made.bridges.passing == {ONE}
    assert not made.holding.is_holding
    assert made.plane.forgotten
    assert made.said == []


def test_what_becomes_known_in_between_waits_for_another_turn(made: Made) -> None:
    """Nobody has attached to it yet."""
    made.there_are(others={ONE})
    made.holding.look()
    made.there_are(known={ONE})
    made.holding.act()
    assert not made.bridges.passing
    made.turn()
    assert made.bridges.passing == {ONE}


def test_governed_ports_mark_for_themselves(made: Made) -> None:
    made.there_are(known={ONE}, others={TWO})
    made.plane.governed = (ONE, TWO)
    made.turn()
    assert not made.bridges.passing
    assert not made.holding.is_holding


def test_port_that_is_governed_no_more_passes(made: Made) -> None:
    """As a container that was renamed."""
    made.there_are(known={ONE})
    made.plane.governed = (ONE,)
    made.turn()
    made.plane.governed = ()
    made.turn()
    assert made.bridges.passing == {ONE}


def test_port_that_could_not_be_governed_stays_held(made: Made) -> None:
    made.there_are(known={ONE})
    made.failing = {ONE}
    made.turn()
    assert not made.bridges.passing
    made.failing = set()
    made.turn()
    assert made.bridges.passing == {ONE}


def test_port_that_goes(made: Made) -> None:
    made.there_are(known={ONE}, others={TWO})
    made.turn()
    made.there_are()
    made.turn()
    assert not made.bridges.passing
    assert not made.holding.is_holding


def test_port_that_is_gone_before_it_passes(made: Made) -> None:
    made.bridges.gone = {ONE}
    made.there_are(known={ONE, TWO})
    made.turn()
    assert made.bridges.passing == {TWO}


def test_nobody_waits_for_ever(made: Made) -> None:
    made.there_are(others={ONE})
    made.turn()
    made.now = 60.5
    made.turn()
    made.turn()
    assert made.bridges.passing == {ONE}
    assert made.said == ["unknown-device"]
    made.there_are()
    made.turn()
    made.there_are(others={ONE})
    made.turn()
    assert not made.bridges.passing


def test_bridges_come_and_go(made: Made) -> None:
    made.turn()
    other = Device("br-1", 10)
    made.ports.bridges = {other}
    made.turn()
    assert made.bridges.held_at == {other}
    gone = Device("br-2", 11)
    made.bridges.gone = {gone}
    made.ports.bridges = {other, gone}
    made.turn()
    assert made.bridges.held_at == {other}


def test_bridge_that_another_instance_holds(made: Made) -> None:
    made.bridges.busy = {BRIDGE}
    made.turn()
    made.turn()
    assert made.said == ["remark"]
    made.bridges.busy = set()
    made.turn()
    assert made.bridges.held_at == {BRIDGE}


def test_trouble_when_looking_changes_nothing(made: Made) -> None:
    made.there_are(known={TWO}, others={ONE})
    made.turn()
    made.ports.trouble = True
    made.there_are(known={ONE, TWO})
    made.turn()
    assert made.bridges.passing == {TWO}
    assert made.holding.is_holding


def test_what_an_earlier_instance_left_at_ports_that_are_not_free_now(made: Made) -> None:
    made.left = {port: [Attachment(AttachType.TCX_INGRESS, port.index)] for port in (ONE, TWO)}
    three = Device("veth3", 3)
    made.there_are(known={ONE, three}, others={TWO})
    made.plane.governed = (ONE,)
    made.holding.look()
    made.holding.begin()
    assert made.bridges.passing == {three}
    assert {attachment.program for attachment in made.detached} == {1, 2}


def test_mark_is_that_of_an_earlier_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {BRIDGE: 0, ONE: 0x1234}
    monkeypatch.setattr("ram_ebpf.dataplane.devices.mark_of", lambda device: marks[device])
    assert choose_mark([BRIDGE, ONE]) == 0x1234
    assert 0 < choose_mark([BRIDGE]) <= 0xFFFF
    assert 0 < choose_mark([]) <= 0xFFFF


def test_lock_of_a_bridge_is_not_that_of_a_governed_device() -> None:
    device = Device("x", 0x7FFFFFF0)
    first, second = lock(device), lock(device, "bridge")
    with pytest.raises(BusyDeviceError):
        lock(device, "bridge")
    first.close()
    second.close()
