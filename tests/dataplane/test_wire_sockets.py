"""The name on the wire from real sockets in a cgroup: what the other end receives."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme
from OpenSSL import SSL
from pyroute2 import IPRoute

from ram_ebpf.daemon.ending import Ending
from ram_ebpf.dataplane import abi, clock, sockets
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.settings import Settings

from .beginnings import DATA, DENIED_NAMES, REGISTRIES, THERE, hello
from .hello_parts import with_names
from .support import Bench
from .wire import Wire, governed, inside, own_cgroup

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

NAME = "registry.test"
ALLOWED, REFUSED = hello(NAME), hello("a.evil.example")


@pytest.fixture(scope="module")
def made(loaded: Bench) -> Iterator[Wire]:
    with governed(loaded) as wire:
        with IPRoute() as netlink:
            netlink.addr("add", index=1, address=THERE, prefixlen=32)
        yield wire


@pytest.fixture
def wire(made: Wire, bench: Bench) -> Wire:
    for item in made.scope.maps.maps.values():
        item.clear()
    open_there(bench, made.scope)
    bench.counted()
    return made


def open_there(bench: Bench, scope: Scope) -> None:
    """The server's address is that of an allowed name."""
    ports = bench.plane.tables.rules.port_lists().index((443, 5000))
    expires = clock.now_ns() + 300 * clock.NANOSECONDS
    opening = abi.Opening(expires, bench.rule_of("registry.test"), 0)
    scope.maps["learned"][abi.opening_key(ip_address(THERE), ports)] = bytes(opening)


class Pair:
    """Both ends of a connection; the client's is governed."""

    def __init__(self, cgroup: Path) -> None:
        with socket.create_server((THERE, 443)) as listening:
            with inside(cgroup):
                self.client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.client.connect((THERE, 443))
            self.server, _ = listening.accept()

    def received(self) -> bytes:
        """What has come by now."""
        self.server.settimeout(0.3)
        found = b""
        try:
            while piece := self.server.recv(65536):
                found += piece
        except TimeoutError:
            pass
        return found

    def close(self) -> None:
        """At once (SO_LINGER): what was refused is not to be sent again while the next test counts."""
        for end in (self.client, self.server):
            if end.fileno() >= 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("@ii", 1, 0))
            end.close()


@pytest.fixture
def pair(wire: Wire) -> Iterator[Pair]:
    pair = Pair(wire.cgroup)
    yield pair
    pair.close()


def test_allowed(pair: Pair, wire: Wire) -> None:
    pair.client.sendall(ALLOWED)
    pair.client.sendall(DATA * 5000)
    assert pair.received() == ALLOWED + DATA * 5000
    assert wire.bench.counted()[Reason.ALLOWED_NAME] == 1


def test_refused(pair: Pair, wire: Wire) -> None:
    source = EventSource(wire.bench.plane)
    events: list[Event] = []
    try:
        pair.client.sendall(REFUSED)
        pair.client.sendall(ALLOWED)
        assert pair.received() == b""
        source.drain(events.append)
    finally:
        source.close()
    # On 5.4, connect() told of it in the same queue.
    (event,) = [event for event in events if event.outgoing]
    assert event.reason is Reason.NAME_MISMATCH
    assert event.beginning is not None
    assert event.beginning.name == "a.evil.example"
    assert (str(event.beginning.local), event.beginning.local_port) == pair.client.getsockname()


@pytest.fixture
def powerless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel without CONFIG_INET_DIAG_DESTROY (sock_diag_destroy() in net/core/sock_diag.c)."""

    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "sock_diag")

    monkeypatch.setattr(sockets, "destroy", refuse)


def end_refused(source: EventSource) -> None:
    """As the daemon does, with what the programs have told."""
    events: list[Event] = []
    source.drain(events.append)
    ending = Ending(lambda _: None)
    for event in events:
        ending.take(event)


@pytest.fixture
def source(wire: Wire) -> Iterator[EventSource]:
    with closing(EventSource(wire.bench.plane)) as source:
        yield source


def test_reset_where_sockets_cannot_be_destroyed(
    pair: Pair, wire: Wire, source: EventSource, powerless: None
) -> None:
    pair.client.sendall(REFUSED)
    end_refused(source)
    pair.client.settimeout(5)
    with pytest.raises(ConnectionResetError):
        pair.client.recv(1)
    assert pair.received() == b""


def test_reset_of_a_connection_whose_rule_is_gone(
    pair: Pair, wire: Wire, source: EventSource, powerless: None
) -> None:
    """It has received something, and goes on to: the reset must be for what it expects by then."""
    pair.client.sendall(ALLOWED)
    assert pair.received() == ALLOWED
    pair.server.sendall(b"answer")
    assert pair.client.recv(100) == b"answer"
    plane, view = wire.bench.plane, wire.scope.view
    live = plane.maps["live"]
    before = dict(live.items())
    live.clear()
    view.generation += 1
    plane.configure(plane.settings)
    try:
        pair.client.send(DATA)
        pair.server.sendall(b"more")
        end_refused(source)
        pair.client.settimeout(0.2)
        for _ in range(20):
            with suppress(TimeoutError):
                try:
                    assert pair.client.recv(100) == b"more"
                except ConnectionResetError:
                    break
            end_refused(source)
        else:
            pytest.fail("it was not reset")
    finally:
        live.update(before.items())
    with suppress(ConnectionResetError):  # the answer to what came too late
        assert pair.received() == b""


def test_two_names(pair: Pair, wire: Wire) -> None:
    """Some servers believe the last one."""
    pair.client.sendall(with_names(hello(None), b"registry.test", b"a.evil.example"))
    assert pair.received() == b""
    assert wire.bench.counted()[Reason.NAME_MISMATCH] >= 1


@pytest.mark.parametrize("size", [1, 5, 50, 150])
def test_pieces(wire: Wire, size: int) -> None:
    """Each with a segment of its own."""
    for sent, name in ((ALLOWED, b"registry.test"), (REFUSED, b"a.evil.example")):
        pair = Pair(wire.cgroup)
        for at in range(0, len(sent), size):
            pair.client.send(sent[at : at + size])
        received = pair.received()
        assert received == sent if sent is ALLOWED else name not in received
        pair.close()


def test_more_than_a_segment(pair: Pair) -> None:
    """One buffer of the kernel, with much behind the name."""
    pair.client.sendall(ALLOWED + DATA * 3000)
    assert pair.received() == ALLOWED + DATA * 3000


def test_fast_open(wire: Wire) -> None:
    """Its data waits for the name to be judged as any other."""
    with socket.create_server((THERE, 443)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        for sent in (ALLOWED, REFUSED):
            for _ in range(2):  # the first one has no cookie yet
                with inside(wire.cgroup):
                    client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                with client:
                    client.setblocking(False)
                    with suppress(BlockingIOError):
                        client.sendto(sent, socket.MSG_FASTOPEN, (THERE, 443))
                    listening.settimeout(5)
                    server, _ = listening.accept()
                    with server:
                        server.settimeout(0.5)
                        try:
                            received = server.recv(65536)
                        except TimeoutError:
                            received = b""
                        assert b"evil" not in received


def test_many_at_once(wire: Wire) -> None:
    """No connection is judged by another one's name."""
    wrong: list[bytes] = []

    def run() -> None:
        for turn in range(30):
            sent = (ALLOWED, REFUSED)[turn & 1]
            pair = pairs.pop()
            pair.client.sendall(sent)
            received = pair.received()
            if received != (ALLOWED if sent is ALLOWED else b""):
                wrong.append(received)
            pair.close()

    pairs = [Pair(wire.cgroup) for _ in range(120)]
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_urgent_data(pair: Pair, wire: Wire) -> None:
    """The server's kernel takes the last byte of it out of the stream, so the server reads a second Host."""
    pair.client.send(b"GET / HTTP/1.1\r\nX", socket.MSG_OOB)
    with suppress(OSError):
        pair.client.send(b"Host: evil.example\r\nHost: registry.test\r\n\r\n")
    assert b"evil" not in pair.received()
    assert wire.bench.counted()[Reason.DENIED_NOT_NAMED] >= 1


def test_urgent_data_behind_the_name(pair: Pair) -> None:
    pair.client.send(ALLOWED)
    pair.client.send(DATA)
    pair.client.send(b"!", socket.MSG_OOB)
    pair.client.send(b"more")
    assert pair.received() == ALLOWED + DATA + b"more"


_LOAD_ABSOLUTE, _RETURN = 0x20, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_RET | BPF_K; linux/bpf_common.h
_ATTACH_FILTER = 26  # asm-generic/socket.h
_MOST_INSTRUCTIONS = 4096


def attach(client: socket.socket, instructions: int) -> bool:
    """Whether the kernel takes a filter that is so long and lets all pass. The socket is charged for it."""
    code = struct.pack("=HBBI", _LOAD_ABSOLUTE, 0, 0, 0) * instructions
    buffer = ctypes.create_string_buffer(code + struct.pack("=HBBI", _RETURN, 0, 0, 2**32 - 1))
    program = struct.pack("@HP", instructions + 1, ctypes.addressof(buffer))  # struct sock_fprog
    try:
        client.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    except OSError:  # ENOMEM
        return False
    return True


def use_up_memory(client: socket.socket) -> None:
    """Of what the kernel lets a socket have beside its buffers (net.core.optmem_max)."""
    fits, too_many = 0, _MOST_INSTRUCTIONS
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
            fits, too_many = (middle, too_many) if attach(trial, middle) else (fits, middle)
    assert attach(client, fits)


def test_no_memory_to_be_known_by(wire: Wire) -> None:
    """Not known, a connection would be taken for one from before."""
    with socket.create_server((THERE, 443)), inside(wire.cgroup):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            use_up_memory(client)
            client.settimeout(0.5)
            with pytest.raises(OSError, match=r"timed out|not permitted"):
                client.connect((THERE, 443))
    assert wire.bench.counted()[Reason.DENIED_SEGMENT] >= 1


_DETACH_FILTER = 27
_DROP_ALL = struct.pack("=HBBI", _RETURN, 0, 0, 0)


@contextmanager
def deaf(server: socket.socket) -> Iterator[None]:
    """Whatever comes meanwhile is lost in front of this socket."""
    buffer = ctypes.create_string_buffer(_DROP_ALL)
    program = struct.pack("@HP", 1, ctypes.addressof(buffer))
    server.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
    yield
    server.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)


def sent_again(pair: Pair, first: bytes, second: bytes) -> bytes:
    """What the server receives of a file that has other bytes when TCP sends them again (sendfile(2))."""
    file = os.memfd_create("sent")
    try:
        os.write(file, first)
        with deaf(pair.server):
            assert os.sendfile(pair.client.fileno(), file, 0, len(first)) == len(first)
            os.pwrite(file, second, 0)
        pair.server.settimeout(3)
        return pair.server.recv(65536)
    except TimeoutError:
        return b""
    finally:
        os.close(file)


OTHER = ALLOWED.replace(b"registry.test", b"evilistry.tst")


@pytest.mark.parametrize("cut", [0, ALLOWED.index(b"registry.test"), len(ALLOWED) - 40])
def test_memory_that_is_changed_behind_the_judge(pair: Pair, cut: int) -> None:
    """The first copy is lost on purpose. `cut`: what went before, and arrived."""
    pair.client.sendall(ALLOWED[:cut])
    assert pair.received() == ALLOWED[:cut]
    assert sent_again(pair, ALLOWED[cut:], OTHER[cut:-1] + b"!") == b""


def test_memory_that_stays_as_it_was(pair: Pair) -> None:
    assert sent_again(pair, ALLOWED, ALLOWED) == ALLOWED


def test_memory_that_is_changed_where_nothing_is_read(wire: Wire) -> None:
    """So what is sent again is what is in the file by then, and the tests above are about something."""
    with wire.bench.configured(Settings(read_names=False)):
        unread = Pair(wire.cgroup)
        try:
            assert sent_again(unread, ALLOWED, OTHER) == OTHER
        finally:
            unread.close()


def test_what_was_acknowledged_is_not_kept(pair: Pair, wire: Wire) -> None:
    kept, key = wire.bench.plane.maps["firsts"], struct.pack("=i", pair.client.fileno())
    pair.client.sendall(ALLOWED)
    assert pair.received() == ALLOWED
    assert kept.get(key) is not None
    pair.client.sendall(DATA)  # the ClientHello may be the first of two
    assert pair.received() == DATA
    pair.client.sendall(DATA)
    assert pair.received() == DATA
    assert kept.get(key) is None


def test_raw_socket(wire: Wire) -> None:
    """Who makes segments by hand could have an allowed name read that the other end throws away."""
    with inside(wire.cgroup), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as client:
        segment = struct.pack("!HHIIBBHHH", 40000, 443, 1, 0, 5 << 4, 2, 65535, 0, 0)
        with suppress(PermissionError):
            client.sendto(segment, (THERE, 443))
    assert wire.bench.counted() == {Reason.DENIED_NOT_NAMED: 1}


@pytest.mark.parametrize("cut", [False, True])
def test_connection_from_before(wire: Wire, cut: bool) -> None:
    """It is judged by its address, or cut."""
    plane, scope = wire.bench.plane, wire.bench.other
    open_there(wire.bench, scope)
    with own_cgroup("later") as cgroup:
        pair = Pair(cgroup)
        plane.attach(cgroup, scope)
        try:
            with wire.bench.configured(Settings(cut_earlier=cut)):
                pair.client.sendall(b"in the middle")
                assert pair.received() == (b"" if cut else b"in the middle")
        finally:
            pair.close()
            plane.detach(cgroup)
    assert (Reason.DENIED_NOT_NAMED in wire.bench.counted()) is cut


def names_that_a_server_hears(pair: Pair, first: bytes, second: bytes) -> list[str]:
    """From a client of OpenSSL's that says another name when it is asked to begin again (RFC 8446 4.1.4)."""
    heard: list[str] = []
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    context.set_ecdh_curve("secp384r1")  # for which no client sends a key at first
    context.sni_callback = lambda connection, name, context: heard.append(name)

    def serve() -> None:
        pair.server.settimeout(2)
        with suppress(OSError), context.wrap_socket(pair.server, server_side=True):
            pass

    serving = threading.Thread(target=serve)
    serving.start()
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    client.set_tlsext_host_name(first)
    pair.client.settimeout(2)
    with suppress(SSL.Error, OSError):
        for name in (first, second, second):
            client.set_tlsext_host_name(name)
            with suppress(SSL.WantReadError):
                client.do_handshake()
            pair.client.sendall(client.bio_read(65536))
            client.bio_write(pair.client.recv(65536))
    pair.client.shutdown(socket.SHUT_RDWR)
    serving.join()
    return heard


def test_begun_again(pair: Pair) -> None:
    assert names_that_a_server_hears(pair, NAME.encode(), NAME.encode()) == [NAME, NAME]


def test_begun_again_with_another_name(pair: Pair) -> None:
    """RFC 8446 4.1.2 has a client repeat the name. OpenSSL and GnuTLS believe the second one."""
    assert "a.evil.example" not in names_that_a_server_hears(pair, NAME.encode(), b"a.evil.example")
