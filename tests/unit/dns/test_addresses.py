"""The addresses of this host, as the kernel tells them."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dns import addresses, netlink
from ram_ebpf.dns.addresses import HostAddresses, host_addresses, parse_addresses

ip = ipaddress.ip_address
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL = 1, 2, 3
NEWADDR, DONE, ERROR = 20, 3, 2


def attribute(kind: int, value: bytes) -> bytes:
    whole = struct.pack("=HH", 4 + len(value), kind) + value
    return whole + bytes(-len(whole) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + bytes(-len(body) % 4)


def address(**known: str) -> bytes:
    """struct ifaddrmsg and attributes; `label` is no address."""
    first = ip(next(iter(known.values())))
    body = struct.pack("=4BI", 2 if first.version == 4 else 10, 24, 0, 0, 1)
    body += attribute(IFA_LABEL, b"eth0\0")
    kinds = {"address": IFA_ADDRESS, "local": IFA_LOCAL}
    return message(NEWADDR, body + b"".join(attribute(kinds[k], ip(v).packed) for k, v in known.items()))


def test_what_the_kernel_says() -> None:
    """The library says the same, and takes 20 MB as soon as it is imported."""
    with IPRoute() as netlink:
        found = {
            ip(item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS")) for item in netlink.get_addr()
        }
    assert host_addresses() == found


def test_pieces_of_an_answer() -> None:
    """IPv6 has IFA_LOCAL only where there is a peer, whose address IFA_ADDRESS is then (linux/if_addr.h)."""
    one = address(address="127.0.0.1", local="127.0.0.1") + address(address="2001:db8::7")
    two = address(address="10.8.0.1", local="10.8.0.2") + message(DONE, struct.pack("=i", 0))
    assert parse_addresses(one) == ({ip("127.0.0.1"), ip("2001:db8::7")}, False)
    assert parse_addresses(two) == ({ip("10.8.0.2")}, True)


def test_another_family_is_passed_over() -> None:
    body = struct.pack("=4BI", 28, 0, 0, 0, 1) + attribute(IFA_LOCAL, b"1234567")  # AF_MPLS
    assert parse_addresses(message(NEWADDR, body)) == (set(), False)


def test_what_the_kernel_refuses() -> None:
    with pytest.raises(PermissionError):
        parse_addresses(message(ERROR, struct.pack("=i", -errno.EPERM)))


WHOLE = address(local="10.0.0.1")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WHOLE[:-4], id="cut off"),
        pytest.param(WHOLE[:10], id="half a header"),
        pytest.param(struct.pack("=I", 8) + WHOLE[4:], id="shorter than its header"),
        pytest.param(message(NEWADDR, b"\2"), id="no struct"),
        pytest.param(message(NEWADDR, struct.pack("=4BI", 2, 0, 0, 0, 1)), id="no address"),
        pytest.param(
            message(NEWADDR, struct.pack("=4BI", 2, 0, 0, 0, 1) + attribute(IFA_LOCAL, b"1")), id="one octet"
        ),
        pytest.param(
            message(NEWADDR, struct.pack("=4BIHH", 2, 0, 0, 0, 1, 99, IFA_LOCAL)), id="a long attribute"
        ),
        pytest.param(message(NEWADDR, struct.pack("=4BIH", 2, 0, 0, 0, 1, 8)), id="half an attribute"),
    ],
)
def test_what_cannot_be_read(data: bytes) -> None:
    with pytest.raises(OSError, match="netlink: malformed"):
        parse_addresses(data)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each look for this host's addresses."""
    looks: list[int] = []

    def look() -> set[IPAddress]:
        looks.append(len(looks))
        if len(looks) == 3:
            raise OSError(errno.ENOBUFS, "netlink")
        return {ip("192.0.2.1") + len(looks)}

    monkeypatch.setattr(addresses, "host_addresses", look)
    return looks


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The end that tells."""
    end, watch = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    watch.setblocking(False)

    class Told(netlink.Watch):
        def __init__(self, groups: int) -> None:
            self._socket = watch

    monkeypatch.setattr(netlink, "Watch", Told)
    with end, watch:
        yield end


def test_addresses_are_looked_up_when_they_change(asked: list[int], kernel: socket.socket) -> None:
    host = HostAddresses()
    assert host.now() == host.now() == {ip("192.0.2.2")}
    assert len(asked) == 1
    for _ in range(2):
        kernel.send(b"something")
    assert host.now() == host.now() == {ip("192.0.2.3")}
    assert len(asked) == 2


def test_a_look_that_fails_is_made_again(asked: list[int], kernel: socket.socket) -> None:
    host = HostAddresses()
    for _ in range(2):
        host.now()
        kernel.send(b"something")
    with pytest.raises(OSError, match="netlink"):
        host.now()
    assert host.now() == {ip("192.0.2.5")}


def test_the_kernel_tells_of_nothing_while_nothing_changes() -> None:
    host = HostAddresses()
    assert host.now() == host_addresses() == host.now()
