"""connect() to what is refused is led to a listener that is known as ours, and to no other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ram_ebpf.dataplane.abi import Hook, Mode, Reason, Verdict
from ram_ebpf.dataplane.answering import Destination, Refused
from ram_ebpf.dataplane.clock import NANOSECONDS, now_ns
from ram_ebpf.dataplane.events import Event, EventSource

from .exchanges import DENIED_NAMES, REGISTRIES
from .support import Bench
from .wire import Wire, governed, inside, own_network

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

V4, V6 = "127.82.65.77", "::1"
PRIORITY = 0x5EC2E7
_SO_BINDTODEVICE = 25


def listener(family: int, port: int = 0, priority: int = PRIORITY) -> socket.socket:
    item = socket.socket(family, socket.SOCK_STREAM)
    item.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
    item.bind((V4 if family == socket.AF_INET else V6, port))
    item.listen()
    item.settimeout(5)
    return item


class Setting:
    """A responder with both families, and a governed cgroup."""

    def __init__(self, wire: Wire, four: socket.socket, six: socket.socket) -> None:
        self.wire = wire
        self.bench = wire.bench
        self.four = four
        self.six = six
        self.port = int(four.getsockname()[1])
        self.where = Destination(
            ip_address(V4), ip_address(V6), self.port, PRIORITY, frozenset({80, 443, 5000})
        )

    def client(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
        with inside(self.wire.cgroup):
            item = socket.socket(family, kind, protocol)
        item.settimeout(5)
        return item

    def is_refused(self, address: tuple[str, int], family: int = socket.AF_INET) -> bool:
        with self.client(family) as item:
            try:
                item.connect(address)
            except PermissionError:
                return True
            return False

    @contextmanager
    def events(self) -> Iterator[list[Event]]:
        found: list[Event] = []
        source = EventSource(self.bench.plane)
        try:
            source.drain(lambda event: None)  # where there is a queue, it may hold those of other tests
            yield found
            source.drain(found.append)
        finally:
            source.close()


@pytest.fixture(scope="module")
def made(loaded: Bench) -> Iterator[Wire]:
    with governed(loaded) as wire:
        yield wire


@pytest.fixture
def setting(made: Wire, bench: Bench) -> Iterator[Setting]:
    with listener(socket.AF_INET) as four:
        with listener(socket.AF_INET6, four.getsockname()[1]) as six:
            result = Setting(made, four, six)
            bench.plane.show_alive()
            bench.plane.answering.lead_to(result.where)
            yield result
            bench.plane.answering.stop()


@pytest.mark.parametrize(
    ("family", "address", "noted"),
    [
        pytest.param(socket.AF_INET, "192.0.2.1", "192.0.2.1", id="IPv4"),
        pytest.param(socket.AF_INET6, "2001:db8::1", "2001:db8::1", id="IPv6"),
        pytest.param(socket.AF_INET6, "::ffff:192.0.2.1", "192.0.2.1", id="IPv4-mapped"),
        pytest.param(socket.AF_INET, "127.0.0.1", "127.0.0.1", id="this host"),
    ],
)
@pytest.mark.parametrize("port", [80, 443, 5000])
def test_led(setting: Setting, family: int, address: str, noted: str, port: int) -> None:
    with setting.events() as events, setting.client(family) as item:
        item.connect((address, port))
        accepted, client = (setting.six if noted == "2001:db8::1" else setting.four).accept()
        with accepted:
            item.sendall(b"question")
            assert accepted.recv(100) == b"question"
            accepted.sendall(b"answer")
            assert item.recv(100) == b"answer"
    (event,) = events
    assert (event.reason, event.verdict) == (Reason.DENIED_UNKNOWN_ADDRESS, Verdict.DENY)
    assert (str(event.address), event.port) == (noted, port)
    assert event.hook is (Hook.INET4_CONNECT if family == socket.AF_INET else Hook.INET6_CONNECT)
    take = setting.bench.plane.answering.take
    scope = setting.wire.scope.number
    expected = Refused(ip_address(noted), port, scope, Reason.DENIED_UNKNOWN_ADDRESS)
    assert take(ip_address(client[0]), client[1]) == expected
    assert take(ip_address(client[0]), client[1]) is None


def test_what_a_responder_cannot_speak(setting: Setting) -> None:
    for port in (22, 53, 853, 444):
        assert setting.is_refused(("192.0.2.1", port))
    with setting.client(kind=socket.SOCK_DGRAM) as item, pytest.raises(PermissionError):
        item.connect(("192.0.2.1", 443))
    with setting.client(kind=socket.SOCK_DGRAM) as item, pytest.raises(PermissionError):
        item.sendto(b"x", ("192.0.2.1", 443))


def test_names_that_are_allowed_are_not_answered_for(setting: Setting) -> None:
    """Their addresses have expired, or are private: that the policy blocks them would not be true."""
    setting.bench.open("seeded", "192.0.2.7", (443,), -1000)
    setting.bench.open("seeded", "192.0.2.8", (443,), 1000, flags=1)
    for address, reason in (
        ("192.0.2.7", Reason.DENIED_EXPIRED),
        ("192.0.2.8", Reason.DENIED_PRIVATE_ADDRESS),
    ):
        with setting.events() as events:
            assert setting.is_refused((address, 443))
        assert [event.reason for event in events] == [reason]


def test_directly(setting: Setting) -> None:
    """The responder's own address is as closed as any other to those who were not led there."""
    assert setting.is_refused((V4, setting.port))
    assert setting.is_refused((V6, setting.port), socket.AF_INET6)
    with setting.client(kind=socket.SOCK_DGRAM) as item, pytest.raises(PermissionError):
        item.sendto(b"x", (V4, setting.port))


def test_another_port_of_its_address(setting: Setting) -> None:
    with socket.socket() as other:
        other.bind((V4, 0))
        other.listen()
        assert setting.is_refused((V4, other.getsockname()[1]))


def test_fast_open(setting: Setting) -> None:
    """Data in the SYN goes where the connection goes."""
    with setting.client() as item:
        item.settimeout(None)  # or it would not wait for the connection
        item.sendto(b"early", socket.MSG_FASTOPEN, ("192.0.2.1", 443))
        accepted, _ = setting.four.accept()
        with accepted:
            accepted.settimeout(5)
            assert accepted.recv(100) == b"early"


def test_bound_to_a_device(setting: Setting) -> None:
    """It would not come to loopback, so it is refused as ever."""
    with setting.client() as item:
        item.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, b"lo\0")
        with pytest.raises(PermissionError):
            item.connect(("192.0.2.1", 443))


def test_another_namespace(setting: Setting) -> None:
    """There is no such listener there."""
    with own_network():
        assert setting.is_refused(("192.0.2.1", 443))


def test_somebody_else_on_its_port(setting: Setting) -> None:
    with own_network(), listener(socket.AF_INET, setting.port, priority=0):
        assert setting.is_refused(("192.0.2.1", 443))
    with own_network(), listener(socket.AF_INET, setting.port):
        assert not setting.is_refused(("192.0.2.1", 443))


def test_the_responder_is_gone(setting: Setting) -> None:
    setting.four.close()
    assert setting.is_refused(("192.0.2.1", 443))
    with listener(socket.AF_INET, setting.port, priority=1):
        assert setting.is_refused(("192.0.2.1", 443))


def test_user_space_is_dead(setting: Setting) -> None:
    then = now_ns() - 4 * NANOSECONDS
    setting.bench.map("alive")[bytes(4)] = then.to_bytes(8, "little")
    assert setting.is_refused(("192.0.2.1", 443))
    setting.bench.plane.show_alive()
    assert not setting.is_refused(("192.0.2.1", 443))


def test_switched_off(setting: Setting) -> None:
    setting.bench.plane.answering.stop()
    assert setting.is_refused(("192.0.2.1", 443))


def test_ports_are_replaced(setting: Setting) -> None:
    setting.bench.plane.answering.lead_to(setting.where._replace(ports=frozenset({443})))
    assert setting.is_refused(("192.0.2.1", 80))
    assert not setting.is_refused(("192.0.2.1", 443))


def test_audit(setting: Setting) -> None:
    """Nothing is led anywhere where nothing is refused."""
    with setting.bench.configured(replace(setting.bench.settings, mode=Mode.AUDIT)):
        with setting.client() as item, pytest.raises(OSError) as caught:
            item.connect(("192.0.2.1", 443))
    assert not isinstance(caught.value, PermissionError)  # this network has no way to anywhere


def test_it_is_counted(setting: Setting) -> None:
    setting.bench.counted()
    assert not setting.is_refused(("192.0.2.1", 443))
    counted = setting.bench.counted()
    assert counted[Reason.DENIED_UNKNOWN_ADDRESS] == 1
    assert counted[Reason.ALLOWED_RESPONDER] >= 1
    assert not {reason for reason in counted if reason.name.startswith("DENIED")} - {
        Reason.DENIED_UNKNOWN_ADDRESS
    }
