"""Real sockets around a governed cgroup, for what test runs cannot do."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyroute2 import IPRoute

from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.scopes.cgroup import find_cgroup2_mount, of_process

from .support import Bench

CLIENT, RESOLVER = "127.0.0.2", "127.0.0.53"

_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_SO_COOKIE = 57
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


@contextmanager
def own_network() -> Iterator[None]:
    """Puts this thread into a new network namespace with nothing but a loopback interface, for a while."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(_CLONE_NEWNET), "unshare")
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
                fcntl.ioctl(item, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
            yield
        finally:
            _check(_libc.setns(before, _CLONE_NEWNET), "setns")
    finally:
        os.close(before)


@contextmanager
def steered(folder: Path, processor: int) -> Iterator[None]:
    """What comes over this network's loopback interface is received on one processor: see RPS in
    Documentation/networking/scaling.rst. `folder`: an empty one."""
    _check(_libc.mount(b"sysfs", os.fsencode(folder), b"sysfs", 0, None), "mount sysfs")
    try:
        queue = folder / "class" / "net" / "lo" / "queues" / "rx-0" / "rps_cpus"
        queue.write_text(f"{1 << processor:x}", encoding="ascii")
        yield
    finally:
        _check(_libc.umount2(os.fsencode(folder), _MNT_DETACH), "umount")


def acknowledge_at_once() -> None:
    """Each TCP segment on this network's loopback interface, in the softirq that receives it."""
    with IPRoute() as netlink:
        netlink.route(
            "replace",
            dst="127.0.0.0/8",
            table=255,  # local
            type="local",
            scope="host",
            proto="kernel",
            oif=1,
            prefsrc="127.0.0.1",
            metrics={"quickack": 1},
        )


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vectors_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = [("header", _Header), ("sent", ctypes.c_uint)]


def send_many(item: socket.socket, payload: bytes, count: int) -> None:
    """The same datagram many times from a connected socket, with one system call (sendmmsg(2))."""
    vector = _Vector(payload, len(payload))
    messages = (_Message * count)()
    for message in messages:
        message.header.vectors, message.header.vectors_count = ctypes.pointer(vector), 1
    sent = 0
    while sent < count:
        more = _libc.sendmmsg(
            item.fileno(), ctypes.byref(messages, sent * ctypes.sizeof(_Message)), count - sent, 0
        )
        if more < 0:
            raise OSError(ctypes.get_errno(), f"sendmmsg: {os.strerror(ctypes.get_errno())}")
        sent += more


@contextmanager
def own_cgroup(name: str) -> Iterator[Path]:
    """A control group for a while, beside that of this process."""
    path = find_cgroup2_mount() / f"ram-ebpf-test-{os.getpid()}-{name}"
    path.mkdir()
    try:
        yield path
    finally:
        path.rmdir()


@contextmanager
def inside(cgroup: Path) -> Iterator[None]:
    """Moves this process there for a while: the sockets that it makes meanwhile stay there."""
    before = of_process(os.getpid())
    assert before is not None
    (cgroup / "cgroup.procs").write_text("0", encoding="ascii")
    try:
        yield
    finally:
        (before / "cgroup.procs").write_text("0", encoding="ascii")


class Wire:
    """A client's socket that is governed and a resolver's that is not, on a loopback of their own."""

    def __init__(
        self, bench: Bench, cgroup: Path, scope: Scope, client: socket.socket, resolver: socket.socket
    ) -> None:
        self.bench = bench
        self.cgroup = cgroup
        self.scope = scope
        self.client = client
        self.resolver = resolver

    def ask(self, query: bytes) -> None:
        """The client asks, and the resolver has it."""
        self.client.sendto(query, self.resolver.getsockname()[:2])
        assert self.resolver.recv(65535) == query

    def tell(self, reply: bytes, sender: socket.socket | None = None) -> None:
        """The resolver, or another socket, answers, and the client has it."""
        (sender or self.resolver).sendto(reply, self.client.getsockname()[:2])
        assert self.client.recv(65535) == reply

    def addresses(self) -> set[str]:
        """What is open in the scope."""
        return {address for address, _ in self.bench.learned(self.scope)}


def cookie_of(item: socket.socket) -> int:
    """By which the kernel's programs know the socket."""
    (cookie,) = struct.unpack("=Q", item.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8))
    return int(cookie)


@contextmanager
def governed(bench: Bench, family: int = socket.AF_INET) -> Iterator[Wire]:
    """Attaches the plane to a control group, with sockets around it. Trusts no resolver by itself."""
    client_address, resolver_address = (CLIENT, RESOLVER) if family == socket.AF_INET else ("::1", "::1")
    with own_cgroup("scope") as cgroup, own_network():
        bench.plane.attach(cgroup)
        try:
            scope = bench.plane.scope_of(cgroup)
            with inside(cgroup):
                client = socket.socket(family, socket.SOCK_DGRAM)
            with client, socket.socket(family, socket.SOCK_DGRAM) as resolver:
                resolver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((client_address, 0))
                resolver.bind((resolver_address, 53))
                client.settimeout(5)
                resolver.settimeout(5)
                yield Wire(bench, cgroup, scope, client, resolver)
        finally:
            with suppress(KeyError):
                bench.plane.detach(cgroup)
