"""Governed cgroups, one in the other, with real sockets: of several scopes the innermost decides."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from ram_ebpf.dataplane.abi import Posture, Reason
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.view import View
from ram_ebpf.policy.rules import AddressRule, RuleSet

from .support import SETTINGS, rules_of
from .wire import inside, own_cgroup, own_network

OUTER, INNER, BOTH, NEITHER = 7001, 7002, 7003, 7004
"""Ports of loopback that the outer scope allows, the inner one, both, and none."""
_LOOPBACK = ip_network("127.0.0.1/32")
REGISTRIES = "  - host: registry.test\n"


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    outer = RuleSet((), (AddressRule(_LOOPBACK, (OUTER, BOTH), "outer"),))
    with Plane(outer, SETTINGS, []) as result:
        yield result


@pytest.fixture(scope="module")
def strict(plane: Plane) -> View:
    rules = RuleSet((), (AddressRule(_LOOPBACK, (INNER, BOTH), "inner"),))
    return plane.open_view(rules, Posture.STRICT)


@pytest.fixture(scope="module")
def loose(plane: Plane) -> View:
    return plane.open_view(rules_of(REGISTRIES, recognising=True), Posture.REGISTRIES)


@pytest.fixture
def outer(plane: Plane) -> Iterator[Path]:
    with own_cgroup("outer") as directory, own_network():
        plane.attach(directory)
        try:
            yield directory
        finally:
            plane.detach(directory)


@contextlib.contextmanager
def within(plane: Plane, outer: Path, view: View, name: str = "inner") -> Iterator[Path]:
    """A governed cgroup in the outer one."""
    directory = outer / name
    directory.mkdir()
    scope = plane.open_scope(view=view)
    try:
        plane.attach(directory, scope)
        try:
            yield directory
        finally:
            if directory in plane.attached:
                plane.detach(directory)
    finally:
        plane.close_scope(scope)
        directory.rmdir()


def reached(port: int, kind: int = socket.SOCK_STREAM) -> bool:
    """Whether this process may send there; nobody listens."""
    with socket.socket(socket.AF_INET, kind) as item:
        item.settimeout(5)
        try:
            if kind == socket.SOCK_STREAM:
                item.connect(("127.0.0.1", port))
            else:
                item.sendto(b"x", ("127.0.0.1", port))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ECONNREFUSED):
                raise
            return error.errno == errno.ECONNREFUSED
    return True


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_the_inner_one_decides(plane: Plane, strict: View, outer: Path, kind: int) -> None:
    with within(plane, outer, strict) as inner:
        with inside(inner):
            assert [port for port in (OUTER, INNER, BOTH, NEITHER) if reached(port, kind)] == [INNER, BOTH]
        with inside(outer):
            assert [port for port in (OUTER, INNER, BOTH, NEITHER) if reached(port, kind)] == [OUTER, BOTH]


def test_below_the_inner_one(plane: Plane, strict: View, outer: Path) -> None:
    with within(plane, outer, strict) as inner:
        deep = inner / "deep"
        deep.mkdir()
        with inside(deep):
            assert [port for port in (OUTER, INNER) if reached(port)] == [INNER]
        deep.rmdir()


def test_three_of_them(plane: Plane, strict: View, loose: View, outer: Path) -> None:
    with within(plane, outer, loose, "middle") as middle, within(plane, middle, strict) as inner:
        for where, expected in (
            (inner, [INNER, BOTH]),
            (middle, [OUTER, INNER, BOTH, NEITHER]),
            (outer, [OUTER, BOTH]),
        ):
            with inside(where):
                assert [port for port in (OUTER, INNER, BOTH, NEITHER) if reached(port)] == expected


def test_an_inner_one_that_lets_more_pass(plane: Plane, loose: View, outer: Path) -> None:
    with within(plane, outer, loose) as inner, inside(inner):
        assert reached(NEITHER)
        assert reached(NEITHER, socket.SOCK_DGRAM)


def test_socket_that_was_judged_before_the_inner_one_was_let_go_of(
    plane: Plane, loose: View, outer: Path
) -> None:
    """From then on it is the outer one's again."""
    with within(plane, outer, loose) as inner:
        with inside(inner):
            item = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with item:
            item.sendto(b"x", ("127.0.0.1", NEITHER))
            plane.detach(inner)
            with pytest.raises(PermissionError):
                item.sendto(b"x", ("127.0.0.1", NEITHER))


def test_inner_one_that_comes_later(plane: Plane, strict: View, outer: Path) -> None:
    """What the outer one has judged before does not keep the inner one from judging."""
    directory = outer / "later"
    directory.mkdir()
    scope = plane.open_scope(view=strict)
    try:
        with inside(directory):
            item = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with item:
            item.sendto(b"x", ("127.0.0.1", OUTER))
            plane.attach(directory, scope)
            try:
                with pytest.raises(PermissionError):
                    item.sendto(b"x", ("127.0.0.1", OUTER + 100))
                item.sendto(b"x", ("127.0.0.1", INNER))
            finally:
                plane.detach(directory)
    finally:
        plane.close_scope(scope)
        directory.rmdir()


def test_nothing_is_counted_twice(plane: Plane, strict: View, outer: Path) -> None:
    with within(plane, outer, strict) as inner, inside(inner):
        before = plane.counters()
        assert not reached(NEITHER)
        after = plane.counters()
        changed = {reason: count - before.get(reason, 0) for reason, count in after.items()}
    assert {reason: count for reason, count in changed.items() if count} == {Reason.DENIED_UNKNOWN_ADDRESS: 1}
