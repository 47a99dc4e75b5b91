"""Attacks in the name of a resolver on this host, whose replies come over loopback as anybody's do."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import Field, eventually, governed, tcp_connect
from tests.adversarial.lookups import (
    SHUT,
    ask,
    assert_shut,
    assert_stays_shut,
    dns_line,
    ignored_line,
    is_open,
    name_of,
    serve,
)
from tests.adversarial.packets import address_for, ipv4, query, reply, udp
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.rogue import RogueDns
from tests.lab.servers import LocalDnsmasq

LOCAL = "127.0.0.1"
# Where a resolver listens on all addresses, at a port that takes no privileges.
ANYWHERE, ANYWHERE_PORT = "127.0.0.2", 5302

# A resolver that lives in a scope of its own, where an attacker lives too.
SHARED, SHARED_PORT = "127.0.0.3", 53
# One whose control group is removed and made anew when it restarts, as systemd does.
UNIT, UNIT_PORT = "127.0.0.4", 5304

NOBODY = 65534
SETTLED = 2.5  # seconds in which the daemon has looked for the resolver's sockets again

_DGRAM, _AF_INET = socket.SOCK_DGRAM, socket.AF_INET
_SO_REUSEPORT = 15
_SO_COOKIE = 57
_IP_TRANSPARENT = 19

POLICY = f"""\
version: 1
registries:
  - host: "*.lies.test"
refusals:
  responder: off
resolvers:
  - {LOCAL}
  - {{ address: {ANYWHERE}, port: {ANYWHERE_PORT} }}
  - {{ address: {SHARED}, port: {SHARED_PORT} }}
  - {{ address: {UNIT}, port: {UNIT_PORT} }}
  - {topology.ROGUE_RESOLVER}
"""


class OddDnsmasq(LocalDnsmasq):
    """dnsmasq on another port and perhaps in another control group."""

    dropped = ""  # a line of its settings

    def __init__(self, node: Node, address: str, port: int, to: str, cgroup: Path | None = None) -> None:
        super().__init__(node, address, to)
        self._port = port
        self._cgroup = cgroup

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        argv, env = super().prepare()
        path = self.directory / "dnsmasq.conf"
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line != self.dropped]
        path.write_text("\n".join([*lines, f"port={self._port}"]) + "\n", encoding="utf-8")
        if self._cgroup is None:
            return argv, env
        # Before it has a socket.
        return ["sh", "-c", 'echo 0 >"$0/cgroup.procs"; exec "$@"', str(self._cgroup), *argv], env

    def _is_open(self) -> bool:
        listening = f":{self._port:04X} "
        return self.node.namespace.holds(self.pid) and listening in self._table("udp")


class WildcardDnsmasq(OddDnsmasq):
    """dnsmasq as it is without `bind-interfaces`: one socket for all addresses."""

    dropped = "bind-interfaces"


@pytest.fixture(scope="module")
def policy() -> str:
    """Trusts resolvers of this host alone; a wildcard, as its names are not looked up before."""
    return POLICY


@pytest.fixture(scope="module")
def rogue(lab: Lab) -> Iterator[RogueDns]:
    """Whom the resolvers of this host ask: it answers honestly."""
    with RogueDns(lab.dns.node, Path(lies.__file__)) as result:
        yield result


@pytest.fixture(scope="module")
def dnsmasq(lab: Lab, rogue: RogueDns) -> Iterator[LocalDnsmasq]:
    result = LocalDnsmasq(lab.client, LOCAL, rogue.address)
    with result:
        yield result


@pytest.fixture(scope="module")
def anywhere(lab: Lab, rogue: RogueDns) -> Iterator[WildcardDnsmasq]:
    result = WildcardDnsmasq(lab.client, ANYWHERE, ANYWHERE_PORT, rogue.address)
    with result:
        yield result


@pytest.fixture(scope="module")
def shared_scope(lab: Lab) -> Path:
    """Governed, with a resolver in it."""
    return lab.new_cgroup("shared")


@pytest.fixture(scope="module")
def shared(lab: Lab, rogue: RogueDns, shared_scope: Path) -> Iterator[OddDnsmasq]:
    result = OddDnsmasq(lab.client, SHARED, SHARED_PORT, rogue.address, shared_scope)
    with result:
        yield result


@dataclass(frozen=True)
class Early:
    """What came of a socket in the scope that was bound beside the resolver's before the daemon came."""

    address: str
    opened: bool
    line: int  # of the log, from which on it tells of that


@pytest.fixture(scope="module")
def started(
    lab: Lab,
    policy: str,
    dnsmasq: LocalDnsmasq,
    anywhere: WildcardDnsmasq,
    shared: OddDnsmasq,
    shared_scope: Path,
) -> Iterator[tuple[Field, list[Early]]]:
    """As `field` in conftest.py, with the resolvers running before, and attackers, which go again."""
    scopes = [lab.client_cgroup, shared_scope]
    with (
        Actor(lab.client, lab.client_cgroup, contained=True) as actor,
        Actor(lab.client, shared_scope, contained=True) as neighbour,
    ):
        servers = [
            (bind_beside(actor), LOCAL, 53),
            (bind_beside(neighbour, SHARED, SHARED_PORT), SHARED, SHARED_PORT),
        ]
        with governed(lab, policy, "--log-dns", scopes=scopes) as daemon, Field(lab, daemon) as field:
            found = []
            for server, address, port in servers:
                target = field.target().v4
                with contextlib.suppress(PermissionError):
                    answer_for(field, server, name_of("early.lies.test"), target, address, port)
                server.close()
                line = len(daemon.lines())
                found.append(Early(target, is_open(field.inside, target), line))
                field.inside.reset()
            yield field, found


@pytest.fixture(scope="module")
def field(started: tuple[Field, list[Early]]) -> Field:
    return started[0]


def bind_beside(
    actor: Actor, address: str = LOCAL, port: int = 53, *, reuse_port: bool = False
) -> RemoteSocket:
    """A socket on the resolver's own address and port, to which the kernel gives what comes from now on."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        item.setsockopt(socket.SOL_SOCKET, _SO_REUSEPORT, 1)
    item.bind((address, port))
    return item


def answer_for(
    field: Field, server: RemoteSocket, name: bytes, address: str, resolver: str = LOCAL, port: int = 53
) -> None:
    """A client in the scope asks; the attacker's server takes the query and answers as it likes.

    Raises PermissionError where the server may not answer.
    """
    client = field.inside.socket(_AF_INET, _DGRAM)
    client.bind((resolver, 0))
    client.sendto(query(name), (resolver, port))
    while server.recv() != query(name):  # the daemon asks as well
        pass
    server.sendto(reply(name, address), (resolver, client.port()))
    assert client.recv() == reply(name, address)


def answered_outside(field: Field, server: RemoteSocket, name: bytes, address: str) -> None:
    """The same where nothing is governed: the client gets the address, and connects."""
    client = field.outside.socket(_AF_INET, _DGRAM)
    client.bind((LOCAL, 0))
    client.sendto(query(name), (LOCAL, 53))
    assert server.recv() == query(name)
    server.sendto(reply(name, address), (LOCAL, client.port()))
    assert client.recv() == reply(name, address)
    tcp_connect(field.outside, address)


def assert_honest(field: Field, text: str, resolver: str = LOCAL, port: int = 53) -> None:
    """No attack: the resolver's own reply opens what it says, before the client has it."""
    name = name_of(text)
    address = address_for(name)
    serve(field, address)
    assert not is_open(field.inside, address)
    ask(field, query(name), resolver=resolver, port=port)
    assert is_open(field.inside, address)
    field.inside.reset()


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(0, id="of a resolver elsewhere", marks=pytest.mark.core),
        pytest.param(1, id="of a resolver in the same scope"),
    ],
)
def test_socket_that_was_there_before(started: tuple[Field, list[Early]], number: int) -> None:
    """A process in the scope has bound itself to the resolver's address before anybody looked."""
    field, found = started
    assert not found[number].opened
    field.reason(found[number].line, (SHUT,), found[number].address)


@pytest.mark.core
def test_honest_reply(field: Field) -> None:
    """No attack: what the others are held against."""
    assert_honest(field, "honest-local.lies.test")


def test_honest_reply_of_a_resolver_on_all_addresses(field: Field) -> None:
    """No attack either."""
    assert_honest(field, "honest-anywhere.lies.test", ANYWHERE, ANYWHERE_PORT)


@pytest.mark.parametrize(
    "reuse_port",
    [
        pytest.param(False, id="SO_REUSEADDR", marks=pytest.mark.core),
        pytest.param(True, id="SO_REUSEPORT as well"),
    ],
)
@pytest.mark.parametrize(
    "wait", [pytest.param(0.0, id="at once"), pytest.param(SETTLED, id="after a look at the sockets")]
)
def test_socket_beside_the_resolvers(field: Field, reuse_port: bool, wait: float) -> None:
    """A process in the scope binds itself to the resolver's address and is asked in its place."""
    name, target = name_of("beside.lies.test"), field.target()
    server = bind_beside(field.inside, reuse_port=reuse_port)
    eventually(lambda: False, wait)
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        answer_for(field, server, name, target.v4)
    field.reason(start, (SHUT,), LOCAL)
    assert_shut(field, target.v4)
    field.inside.reset()
    answered_outside(field, bind_beside(field.outside, reuse_port=reuse_port), name, target.v4)
    field.outside.reset()


def test_more_specific_address(field: Field) -> None:
    """The resolver listens on all addresses, the process in the scope on the one that clients ask."""
    target = field.target()
    server = bind_beside(field.inside, ANYWHERE, ANYWHERE_PORT)
    eventually(lambda: False, SETTLED)
    with contextlib.suppress(PermissionError):
        answer_for(field, server, name_of("specific.lies.test"), target.v4, ANYWHERE, ANYWHERE_PORT)
    try:
        assert_shut(field, target.v4)
    finally:
        field.inside.reset()


def test_bound_to_the_device(field: Field) -> None:
    """A socket bound to the loopback device is preferred to one that is not."""
    target = field.target()
    server = field.inside.socket(_AF_INET, _DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    server.bind((LOCAL, 53))
    eventually(lambda: False, SETTLED)
    with pytest.raises(PermissionError):
        answer_for(field, server, name_of("device.lies.test"), target.v4)
    assert_shut(field, target.v4)
    field.inside.reset()


@pytest.fixture
def stranger(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Actor]:
    """A process of another user in a control group that nobody governs, on a host where it may bind."""
    setting = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    lab.client.run(["sh", "-c", f"echo 53 >{setting}"], cgroup=lab.client.services).check()
    cgroup = lab.new_cgroup(request.node.name)
    with Actor(lab.client, cgroup) as actor:
        actor.call("become", NOBODY)
        yield actor
    lab.client.run(["sh", "-c", f"echo 1024 >{setting}"], cgroup=lab.client.services).check()


def test_stranger_beside_the_resolver(field: Field, stranger: Actor) -> None:
    """Another user's process, outside the scope, binds itself beside the resolver."""
    target = field.target()
    server = bind_beside(stranger)
    eventually(lambda: False, SETTLED)
    answer_for(field, server, name_of("stranger.lies.test"), target.v4)
    assert_shut(field, target.v4)
    field.inside.reset()


def test_stranger_on_a_more_specific_address(field: Field, stranger: Actor) -> None:
    """The same where the resolver listens on all addresses."""
    target = field.target()
    server = bind_beside(stranger, ANYWHERE, ANYWHERE_PORT)
    eventually(lambda: False, SETTLED)
    answer_for(field, server, name_of("stranger-2.lies.test"), target.v4, ANYWHERE, ANYWHERE_PORT)
    assert_shut(field, target.v4)
    field.inside.reset()


def _raw(actor: Actor, name: bytes, address: str, identifier: int, port: int) -> None:
    datagram = udp(LOCAL, LOCAL, port, reply(name, address, identifier), source_port=53)
    packet = ipv4(LOCAL, LOCAL, socket.IPPROTO_UDP, datagram)
    actor.socket(_AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(packet, (LOCAL, 0))


def _bound(actor: Actor, name: bytes, address: str, identifier: int, port: int) -> None:
    item = actor.socket(_AF_INET, _DGRAM)
    item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    item.bind((LOCAL, 53))
    item.sendto(reply(name, address, identifier), (LOCAL, port))
    item.close()


Send = Callable[[Actor, bytes, str, int, int], None]
senders = pytest.mark.parametrize(
    "send", [pytest.param(_raw, id="raw socket"), pytest.param(_bound, id="from the resolver's port")]
)


@senders
def test_forged_reply(field: Field, send: Send) -> None:
    """A process in the scope sends a reply in the resolver's name to the one who asks."""
    name, target = name_of(f"silent-{20 + (send is _raw)}.lies.test"), field.target()
    asking = ask(field, query(name), replies=0, resolver=LOCAL)
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        send(field.inside, name, target.v4, 7, asking.port())
    field.reason(start, (SHUT,), LOCAL)
    assert_shut(field, target.v4)
    field.inside.reset()
    # Where nothing stops it, it arrives.
    asking = ask(field, query(name), replies=0, resolver=LOCAL, actor=field.outside)
    send(field.outside, name, target.v4, 7, asking.port())
    assert asking.recv() == reply(name, target.v4)
    field.outside.reset()


@senders
def test_forged_reply_from_outside(field: Field, send: Send) -> None:
    """An accomplice outside the scope sends it, with all that the client knows of its own query."""
    name, target = name_of(f"silent-{24 + (send is _raw)}.lies.test"), field.target()
    asking = ask(field, query(name), replies=0, resolver=LOCAL)
    start = len(field.daemon.lines())
    send(field.outside, name, target.v4, 7, asking.port())
    assert asking.recv() == reply(name, target.v4)
    dns_line(field, start, "dns-untrusted-sender")
    assert_shut(field, target.v4)
    field.inside.reset()
    field.outside.reset()


@pytest.mark.core
def test_forged_reply_about_another_name(field: Field) -> None:
    """The reply is not believed, but the name in it is asked again, as if the client had asked for that."""
    evil, target = name_of("outside.evil.test"), address_for(name_of("outside.evil.test"))
    serve(field, target)
    asking = ask(field, query(name_of("silent-30.lies.test")), replies=0, resolver=LOCAL)
    start = len(field.daemon.lines())
    _raw(field.outside, evil, "192.0.2.1", 7, asking.port())
    assert asking.recv() == reply(evil, "192.0.2.1")
    ignored_line(field, start)
    assert_stays_shut(field, target)
    field.inside.reset()
    field.outside.reset()


@pytest.mark.core
def test_forged_reply_to_the_resolvers_own_address(field: Field) -> None:
    """To a resolver everybody may send. A socket on its address, connected to itself, takes what it sends.

    So a process in the scope both asks and answers, and nothing of that is refused.
    """
    evil, target = name_of("inside.evil.test"), address_for(name_of("inside.evil.test"))
    serve(field, target)
    item = bind_beside(field.inside)
    item.connect((LOCAL, 53))
    forged = field.target()
    listed = name_of("silent-31.lies.test")
    start = len(field.daemon.lines())
    for message in (
        query(listed),
        reply(listed, forged.v4),
        query(listed),
        reply(evil, "192.0.2.1"),
    ):
        item.send(message)
        assert item.recv() == message
    ignored_line(field, start)
    assert_shut(field, forged.v4)
    assert_stays_shut(field, target)
    field.inside.reset()


def test_replayed_reply(field: Field) -> None:
    """The resolver's genuine reply, caught and sent again with another address in it."""
    name, target = name_of("replayed.lies.test"), field.target()
    item = field.inside.socket(_AF_INET, _DGRAM)
    item.sendto(query(name), (LOCAL, 53))
    genuine = item.recv()
    packed = socket.inet_aton(address_for(name))
    assert genuine.count(packed) == 1
    forged = genuine.replace(packed, socket.inet_aton(target.v4))
    again = bind_beside(field.inside)
    again.connect((LOCAL, 53))
    again.send(query(name))
    start = len(field.daemon.lines())
    again.send(forged)
    dns_line(field, start, "dns-untrusted-sender")
    assert_shut(field, target.v4)
    field.inside.reset()


def test_socket_of_a_removed_cgroup(field: Field, lab: Lab) -> None:
    """A container in the scope leaves its socket to another one and ends; nobody knows where it was made."""
    child = lab.client_cgroup / "ended"
    child.mkdir()
    target = field.target()
    with Actor(lab.client, child, contained=True) as actor:
        server = bind_beside(actor)
        actor.move(lab.client_cgroup)
        child.rmdir()
        # A second one, whose cgroup is known, so that a witness sits there.
        bind_beside(field.inside).connect((LOCAL, 9))
        eventually(lambda: False, SETTLED)
        with contextlib.suppress(PermissionError):
            answer_for(field, server, name_of("ended.lies.test"), target.v4)
    assert_shut(field, target.v4)
    field.inside.reset()


def test_honest_reply_of_a_resolver_in_a_scope(field: Field) -> None:
    """No attack: it may answer its clients."""
    assert_honest(field, "honest-shared.lies.test", SHARED, SHARED_PORT)


def test_socket_beside_a_resolver_in_the_same_scope(field: Field, lab: Lab, shared_scope: Path) -> None:
    """Who was first is told by numbers that each processor counts on its own: one of them is behind."""
    for cpu in sorted(os.sched_getaffinity(0)):
        target = field.target()
        with Actor(lab.client, shared_scope, contained=True) as neighbour:
            neighbour.call("pin", cpu)
            server = bind_beside(neighbour, SHARED, SHARED_PORT)
            # Now the number is given out, here.
            neighbour.call("method", server.number, "getsockopt", socket.SOL_SOCKET, _SO_COOKIE, 8)
            eventually(lambda: False, SETTLED)
            with contextlib.suppress(PermissionError):
                answer_for(field, server, name_of("neighbour.lies.test"), target.v4, SHARED, SHARED_PORT)
        assert_shut(field, target.v4)
        field.inside.reset()


def test_restarted_unit(field: Field, lab: Lab, rogue: RogueDns) -> None:
    """No attack: systemd removes a unit's control group when it ends, and makes a new one of its name."""
    cgroup = lab.new_cgroup("unit")
    unit = OddDnsmasq(lab.client, UNIT, UNIT_PORT, rogue.address, cgroup)
    with unit:
        eventually(lambda: False, SETTLED)
        assert_honest(field, "honest-unit.lies.test", UNIT, UNIT_PORT)
        unit.stop()
        assert eventually(lambda: _is_removed(cgroup))
        cgroup.mkdir()
        unit.start()
        unit.wait()
        numbers = iter(range(1000))

        def learned() -> bool:
            name = name_of(f"unit-{next(numbers)}.lies.test")
            ask(field, query(name), resolver=UNIT, port=UNIT_PORT)
            opened = is_open(field.inside, address_for(name))
            field.inside.reset()
            return opened

        assert eventually(learned, 10.0)  # a busy daemon takes longer to look
        assert_honest(field, "honest-unit-2.lies.test", UNIT, UNIT_PORT)


def _is_removed(cgroup: Path) -> bool:
    with contextlib.suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()


def test_restarted_resolver(field: Field, dnsmasq: LocalDnsmasq) -> None:
    """No attack: a resolver that was started anew has other sockets."""
    dnsmasq.stop()
    dnsmasq.start()
    dnsmasq.wait()
    numbers = iter(range(1000))

    def learned() -> bool:
        name = name_of(f"anew-{next(numbers)}.lies.test")
        ask(field, query(name), resolver=LOCAL)
        opened = is_open(field.inside, address_for(name))
        field.inside.reset()
        return opened

    assert eventually(learned, 3.0)


@pytest.mark.core
def test_place_of_a_stopped_resolver(field: Field, dnsmasq: LocalDnsmasq) -> None:
    """While the resolver restarts, a process in the scope takes its place."""
    target = field.target()
    dnsmasq.stop()
    server = bind_beside(field.inside)
    eventually(lambda: False, SETTLED)
    try:
        with contextlib.suppress(PermissionError):
            answer_for(field, server, name_of("place.lies.test"), target.v4)
        assert_shut(field, target.v4)
    finally:
        field.inside.reset()
        dnsmasq.start()
        dnsmasq.wait()


def test_afterwards(field: Field) -> None:
    """No attack: after all that the resolver's replies still open what they say, and no more."""
    assert eventually(lambda: _works(field), 3.0)
    assert "Traceback" not in field.daemon.said()


def _works(field: Field) -> bool:
    name = name_of(f"after-{os.urandom(4).hex()}.lies.test")
    ask(field, query(name), resolver=LOCAL)
    opened = is_open(field.inside, address_for(name))
    field.inside.reset()
    return opened
