"""New containers that wait until it is known what they are."""

from __future__ import annotations

import pytest

from ram_ebpf.daemon.holding import Holding
from ram_ebpf.dataplane.devices import Attachment, Device
from ram_ebpf.dataplane.syscall import AttachType
from ram_ebpf.policy.rules import RuleSet

from .plane import FakePlane

ONE, TWO = Device("veth1", 1), Device("veth2", 2)


class Ports:
    """Devices that are known and others."""

    def __init__(self) -> None:
        self.those_known: set[Device] = set()
        self.those_unknown: set[Device] = set()

    def known(self) -> set[Device]:
        return set(self.those_known)

    def others(self) -> set[Device]:
        return set(self.those_unknown)


class Plane(FakePlane):
    """A plane that notes what is held."""

    def __init__(self) -> None:
        super().__init__(RuleSet((), ()))
        self.held: set[Device] = set()
        self.governed: tuple[Device, ...] = ()
        self.gone: set[Device] = set()

    def hold(self, device: Device) -> list[Attachment]:
        if device in self.gone:
            raise OSError(19, "No such device")
        assert device not in self.held
        self.held.add(device)
        return [Attachment(AttachType.TCX_INGRESS, device.index)]

    @property
    def attached_devices(self) -> tuple[Device, ...]:
        return self.governed


class Made:
    """What is tested, with what is around it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plane, self.ports = Plane(), Ports()
        self.said: list[str] = []
        self.left: dict[Device, list[Attachment]] = {}
        self.now = 0.0
        self.detached: list[Attachment] = []
        monkeypatch.setattr("ram_ebpf.dataplane.devices.detach", self._detach)
        monkeypatch.setattr("ram_ebpf.dataplane.devices.held", lambda device: self.left.get(device, []))
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.holding = Holding(self.plane, self.ports, lambda event, _: self.said.append(event))

    def _detach(self, device: Device, attachments: list[Attachment]) -> None:
        self.detached += attachments
        if attachments and attachments[0].program == device.index:
            self.plane.held.discard(device)

    def turn(self) -> None:
        """As the daemon does."""
        self.holding.look()
        self.holding.act()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(monkeypatch)


def test_unknown_device_is_held_until_it_is_known(made: Made) -> None:
    made.ports.those_unknown = {ONE}
    made.turn()
    made.turn()
    assert made.plane.held == {ONE}
    assert made.holding.is_holding
    made.ports.those_unknown, made.ports.those_known = set(), {ONE}
    made.turn()
    assert not made.plane.held
    assert not made.holding.is_holding
    assert made.said == []


def test_what_becomes_known_in_between_waits_for_another_turn(made: Made) -> None:
    """Nobody has attached to it yet."""
    made.ports.those_unknown = {ONE}
    made.holding.look()
    made.ports.those_unknown, made.ports.those_known = set(), {ONE}
    made.holding.act()
    assert made.plane.held == {ONE}
    made.turn()
    assert not made.plane.held


def test_known_and_governed_ones_are_not_held(made: Made) -> None:
    made.ports.those_known, made.ports.those_unknown = {ONE}, {TWO}
    made.plane.governed = (TWO,)
    made.turn()
    assert not made.plane.held


def test_device_that_goes_while_it_is_held(made: Made) -> None:
    made.ports.those_unknown = {ONE}
    made.turn()
    made.ports.those_unknown = set()
    made.turn()
    assert not made.holding.is_holding


def test_device_that_is_gone_before_it_is_held(made: Made) -> None:
    made.plane.gone = {ONE}
    made.ports.those_unknown = {ONE, TWO}
    made.turn()
    assert made.plane.held == {TWO}


def test_nobody_is_held_for_ever(made: Made) -> None:
    made.ports.those_unknown = {ONE}
    made.turn()
    made.now = 60.5
    made.turn()
    made.turn()
    assert not made.plane.held
    assert made.said == ["unknown-device"]
    made.ports.those_unknown = set()
    made.turn()
    made.ports.those_unknown = {ONE}
    made.turn()
    assert made.plane.held == {ONE}


def test_trouble_when_looking_changes_nothing(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.ports.those_unknown = {ONE}
    made.turn()

    def fail() -> set[Device]:
        raise OSError(105, "No buffer space available")

    monkeypatch.setattr(made.ports, "known", fail)
    made.turn()
    assert made.plane.held == {ONE}


def test_what_an_earlier_instance_held(made: Made) -> None:
    """It is let go of when ours holds the device, or the container is known."""
    made.left = {ONE: [Attachment(AttachType.TCX_INGRESS, 77)], TWO: [Attachment(AttachType.TCX_INGRESS, 78)]}
    made.ports.those_unknown, made.ports.those_known = {ONE}, {TWO}
    made.holding.look()
    made.holding.begin()
    assert made.plane.held == {ONE}
    assert {attachment.program for attachment in made.detached} == {77, 78}


def test_close(made: Made) -> None:
    made.ports.those_unknown = {ONE, TWO}
    made.turn()
    made.holding.close()
    assert not made.plane.held
