"""Who sent a reply: the interface that it came by, and the socket of a resolver on this host."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import TCP
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.trusted import DOCKER_RESOLVER, TrustedResolver
from ram_ebpf.scopes.cgroup import find_cgroup2_mount, identifier, of_process

from . import messages as m
from .exchanges import DENIED_NAMES, NOTHING, ONE, REGISTRIES, TWO, ask, check, exchange, opened, play, tell
from .messages import Query, Reply, Stream, address, message, question, record
from .support import CLIENT, RESOLVER, Bench, ip, trusted
from .wire import Wire, cookie_of, governed, inside, own_cgroup

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

LOOPBACK = 1  # where test runs take place
ELSEWHERE = 99
LEARNED, REFUSED = Reason.DNS_LEARNED, Reason.DNS_UNTRUSTED_SENDER

# Docker's resolver is told by its address and its cgroup alone, so that a test run can be it.
DOCKER = str(DOCKER_RESOLVER)


def asked() -> Query:
    return ask(server=DOCKER)


def told(*answers: bytes, counted: Reason = LEARNED) -> Reply:
    reply = tell(*(answers or (address(ONE),)), counted=counted)
    return replace(reply, server=DOCKER)


@pytest.fixture
def local(bench: Bench) -> Iterator[Bench]:
    """Trusts a resolver on this host, in whose cgroup the sockets of test runs are.

    That is this process's, and before Linux 5.18 or so the root.
    """
    mount = find_cgroup2_mount()
    own = of_process(os.getpid(), mount)
    with bench.trusting(trusted(DOCKER, local=True)):
        bench.plane.trust_cgroups({identifier(mount), identifier(own or mount)})
        yield bench
        bench.plane.trust_cgroups(())


def fingerprints(bench: Bench) -> int:
    return len(list(bench.map("witnessed")))


# Replies of a resolver elsewhere.


def test_reply_by_another_interface_than_the_query(bench: Bench) -> None:
    play(bench, ask())
    bench.alter_query(ifindex=ELSEWHERE)
    play(bench, tell(address(TWO), counted=Reason.DNS_WRONG_INTERFACE))
    # The query goes on waiting for the right one.
    bench.alter_query(ifindex=LOOPBACK)
    check(bench, (tell(address(ONE)),), opened({ONE: 300}))


def test_query_remembers_its_interface(bench: Bench) -> None:
    play(bench, ask())
    (query,) = bench.queries()
    assert query.ifindex == LOOPBACK


def test_resolver_elsewhere_does_not_answer_on_the_loopback_interface(bench: Bench) -> None:
    with bench.configured(Settings(), loopback=LOOPBACK):
        check(bench, (ask(), tell(address(ONE), counted=Reason.DNS_WRONG_INTERFACE)), NOTHING)


def test_resolver_elsewhere_needs_no_witness(bench: Bench) -> None:
    with bench.configured(Settings(), loopback=ELSEWHERE):
        check(bench, (ask(), tell(address(ONE))), opened({ONE: 300}))
    assert fingerprints(bench) == 0


# Replies of a resolver on this host.


def test_reply_that_was_seen_leaving_the_resolver(local: Bench) -> None:
    local.witness(told().frame())
    check(local, (asked(), told()), opened({ONE: 300}))


def test_reply_that_was_not(local: Bench) -> None:
    check(local, (asked(), told(counted=REFUSED)), NOTHING)
    # The query goes on waiting for the right one.
    local.witness(told().frame())
    check(local, (told(),), opened({ONE: 300}))


def test_reply_from_another_cgroup_leaves_no_fingerprint(local: Bench) -> None:
    """Programs on a cgroup run for those below it too, and Docker's containers may live below dockerd's."""
    local.plane.trust_cgroups({1 << 40})
    local.witness(told().frame())
    assert fingerprints(local) == 0
    check(local, (asked(), told(counted=REFUSED)), NOTHING)


def test_reply_of_another_message_that_was_seen(local: Bench) -> None:
    for other in (
        told(address(TWO)),
        tell(address(ONE), identity=8, server=DOCKER),
        told(address(ONE), address(ONE)),
    ):
        local.witness(other.frame())
    check(local, (asked(), told(counted=REFUSED)), NOTHING)
    assert fingerprints(local) == 3


def test_doubtful_reply_about_another_name_is_not_handed_over(local: Bench) -> None:
    """User space asks again for the name in a doubtful reply, by the query's rule: it must be the same."""
    forged = tell(address(ONE), name="evil.example", server=DOCKER, counted=Reason.DNS_WRONG_QUESTION)
    check(local, (asked(), forged), NOTHING)


def test_every_bit_of_a_reply_counts(local: Bench) -> None:
    payload = told(address(ONE), address(TWO), record(m.TXT, bytes(40))).payload
    local.witness(Reply(payload, (), server=DOCKER).frame())
    bits = random.Random(9).sample(range(8 * len(payload)), 150)  # the same ones each time
    for bit in bits:
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        exchange(local, asked(), Reply(bytes(changed), (), server=DOCKER))
        assert local.learned() == {}, bit
    # Another id or question, or no reply at all: that is told before it is asked who sent it.
    assert set(local.counted()) <= {
        Reason.ALLOWED_RESOLVER,
        Reason.DNS_WRONG_QUESTION,
        REFUSED,
        Reason.DNS_NO_QUERY,
        Reason.DNS_MALFORMED,
    }


@pytest.mark.heavy
@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 63, 64, 3000])
@pytest.mark.parametrize("more", [-1, 1])
def test_length_of_a_reply_counts(local: Bench, size: int, more: int) -> None:
    """Zeros at the end, at every place within what is read at once."""

    def padded(octets: int) -> Reply:
        payload = message(question(), [address(ONE)], flags=m.RESPONSE)
        return Reply(payload + bytes(octets), (LEARNED,), server=DOCKER)

    base = 64 - len(padded(0).payload) % 32 + size
    local.witness(padded(base).frame())
    play(local, asked(), replace(padded(base + more), counted=(REFUSED,)))
    check(local, (padded(base),), opened({ONE: 300}))


def test_what_was_seen_is_forgotten(local: Bench) -> None:
    local.witness(told().frame())
    with local.configured(Settings(query_lifetime=0)):
        play(local, asked(), told(counted=REFUSED))
    assert local.learned() == {}


def test_scopes_may_all_look_at_one_reply(local: Bench) -> None:
    """As a cgroup and its parent do."""
    local.witness(told().frame())
    for scope in (local.scope, local.other):
        check(local, (asked(), told()), opened({ONE: 300}), scope=scope)


def test_copy_of_what_was_seen_says_nothing_new(local: Bench) -> None:
    local.witness(told().frame())
    check(local, (asked(), told(), told(counted=Reason.DNS_NO_QUERY)), opened({ONE: 300}))
    play(local, asked(), told(address(TWO), counted=REFUSED), told())
    assert set(local.learned()) == {(ONE, 443)}


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(replace(told(), server="127.0.0.12").frame(), id="another address"),
        pytest.param(replace(told(), server_port=5353).frame(), id="another port"),
        pytest.param(replace(told(), server=RESOLVER).frame(), id="a resolver elsewhere"),
        pytest.param(
            ip(CLIENT, DOCKER) / TCP(sport=53, dport=4000, flags="PA") / Raw(told().payload), id="TCP"
        ),
    ],
)
def test_what_else_leaves_the_resolver_is_not_noted(bench: Bench, packet: Packet | bytes) -> None:
    with bench.trusting(trusted(DOCKER, local=True) + trusted(RESOLVER)):
        bench.witness(packet)
    assert fingerprints(bench) == 0


def test_interface_of_a_resolver_on_this_host(local: Bench) -> None:
    with local.configured(Settings(), loopback=ELSEWHERE):
        local.witness(told().frame())
        assert fingerprints(local) == 0
    local.witness(told().frame())
    with local.configured(Settings(), loopback=ELSEWHERE):
        check(local, (asked(), told(counted=Reason.DNS_WRONG_INTERFACE)), NOTHING)
    with local.configured(Settings(), loopback=LOOPBACK):
        check(local, (told(),), opened({ONE: 300}))


# Docker's resolver in its containers: clients ask port 53, and NAT makes another port of it before that is
# seen here.

SEEN_PORT = 41234


def test_translated_query(local: Bench) -> None:
    local.witness(told().frame())
    check(local, (replace(asked(), server_port=SEEN_PORT), told()), opened({ONE: 300}))


def test_translated_query_over_tcp(local: Bench) -> None:
    assert local.egress(Stream(server=DOCKER, server_port=SEEN_PORT).up(flags="S"))
    assert local.counted() == {Reason.ALLOWED_RESOLVER: 1}


def test_only_that_resolver_is_translated(bench: Bench) -> None:
    with bench.trusting(trusted("127.0.0.53", local=True) + trusted(DOCKER)):
        for server in ("127.0.0.53", DOCKER):
            assert not bench.egress(replace(asked(), server=server, server_port=SEEN_PORT).frame())
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 2}


def test_only_over_the_loopback_interface(local: Bench) -> None:
    with local.configured(Settings(), loopback=ELSEWHERE):
        assert not local.egress(replace(asked(), server_port=SEEN_PORT).frame())


# What a resolver that is itself governed sends.


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(told().frame(), Reason.ALLOWED_RESOLVER_REPLY, id="a reply"),
        pytest.param(
            ip(CLIENT, DOCKER) / TCP(sport=53, dport=4000, flags="SA"),
            Reason.ALLOWED_RESOLVER_REPLY,
            id="a segment of TCP",
        ),
        pytest.param(
            ip(CLIENT, DOCKER) / TCP(sport=53, dport=4000, flags="S"),
            Reason.DENIED_UNKNOWN_ADDRESS,
            id="a connection that the resolver opens",
        ),
        pytest.param(
            replace(told(), server_port=5353).frame(), Reason.DENIED_UNKNOWN_ADDRESS, id="from another port"
        ),
        pytest.param(
            replace(told(), server="127.0.0.12").frame(),
            Reason.DENIED_UNKNOWN_ADDRESS,
            id="from another address",
        ),
        pytest.param(
            replace(told(), server="127.0.0.53").frame(),
            Reason.DENIED_UNKNOWN_ADDRESS,
            id="from a socket that is not the resolver's",
        ),
    ],
)
def test_resolver_in_the_scope(local: Bench, packet: Packet | bytes, reason: Reason) -> None:
    with local.trusting(trusted(DOCKER, "127.0.0.53", local=True)):
        assert local.egress(packet) is reason.name.startswith("ALLOWED")
    assert local.counted() == {reason: 1}


def test_somebody_in_the_scope_sends_from_the_resolvers_address(local: Bench) -> None:
    local.plane.trust_cgroups(())
    assert not local.egress(told().frame())
    assert local.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}


def test_reply_of_a_resolver_in_the_scope_leaves_over_the_loopback_interface_alone(local: Bench) -> None:
    with local.configured(Settings(), loopback=ELSEWHERE):
        assert not local.egress(told().frame())


# With sockets.


@pytest.fixture(scope="module", params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def wire(request: pytest.FixtureRequest, loaded: Bench) -> Iterator[Wire]:
    """A resolver on this host, in a cgroup that is watched."""
    with governed(loaded, request.param) as made, own_cgroup("resolver") as cgroup:
        with inside(cgroup):
            resolver = socket.socket(request.param, socket.SOCK_DGRAM)
        with resolver:
            place = made.resolver.getsockname()[:2]
            made.resolver.close()
            resolver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            resolver.bind(place)
            resolver.settimeout(5)
            made.resolver = resolver
            loaded.plane.watch([cgroup])
            try:
                yield made
            finally:
                loaded.plane.watch([])


@pytest.fixture
def watched(wire: Wire, bench: Bench) -> Iterator[Wire]:
    place = ip_address(wire.resolver.getsockname()[0])
    with bench.trusting([TrustedResolver(place, local=True)]), bench.configured(Settings(), LOOPBACK):
        bench.reset()
        bench.plane.trust_sockets([cookie_of(wire.resolver)])
        for item in (wire.scope.maps["queries"], wire.scope.maps["learned"]):
            item.clear()
        yield wire
        bench.plane.trust_sockets([])


QUERY = ask().payload
PAYLOAD = tell(address(ONE)).payload


def test_socket_of_the_resolver(watched: Wire) -> None:
    watched.ask(QUERY)
    watched.tell(PAYLOAD)
    assert watched.addresses() == {ONE}


def test_socket_that_is_not_the_resolvers(watched: Wire) -> None:
    """Though it sends from the same address and port, and from the resolver's cgroup."""
    watched.bench.plane.trust_sockets([cookie_of(watched.resolver) + 1000])
    watched.ask(QUERY)
    watched.tell(PAYLOAD)
    assert watched.addresses() == set()
    assert watched.bench.counted()[REFUSED] == 1


def test_socket_outside_the_resolvers_cgroup(watched: Wire) -> None:
    """Though it sends from the same address and port, and is even on the list."""
    watched.ask(QUERY)
    with socket.socket(watched.resolver.family, socket.SOCK_DGRAM) as impostor:
        impostor.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        impostor.bind(watched.resolver.getsockname()[:2])
        watched.bench.plane.trust_sockets([cookie_of(watched.resolver), cookie_of(impostor)])
        watched.tell(PAYLOAD, impostor)
    assert watched.addresses() == set()
    assert watched.bench.counted()[REFUSED] == 1
    watched.tell(PAYLOAD)
    assert watched.addresses() == {ONE}


def test_socket_with_another_port(watched: Wire) -> None:
    watched.ask(QUERY)
    with socket.socket(watched.resolver.family, socket.SOCK_DGRAM) as other:
        other.bind((watched.resolver.getsockname()[0], 0))
        watched.tell(PAYLOAD, other)
    assert watched.addresses() == set()


@pytest.mark.parametrize(
    ("size", "is_seen"),
    [
        pytest.param(abi.DATAGRAM_MAX - 1, True, id="4351"),
        pytest.param(abi.DATAGRAM_MAX, True, id="4352"),
        pytest.param(abi.DATAGRAM_MAX + 1, False, id="4353"),
        pytest.param(9000, False, id="9000"),
    ],
)
def test_size_of_a_reply(watched: Wire, size: int, is_seen: bool) -> None:
    """What is longer than is looked into is handed over, as nobody can say who sent it."""
    watched.ask(QUERY)
    reply = PAYLOAD + bytes(size - len(PAYLOAD))
    watched.tell(reply)
    assert watched.addresses() == ({ONE} if is_seen else set())
    counted = watched.bench.counted()
    assert {reason: counted.get(reason, 0) for reason in (LEARNED, REFUSED)} == {
        LEARNED: int(is_seen),
        REFUSED: int(not is_seen),
    }


@pytest.mark.parametrize("changed", [0, 12, 40, 2000, 4351])
def test_octet_of_a_long_reply(watched: Wire, changed: int) -> None:
    """The resolver's own reply is seen, and then somebody sends it once more with one bit changed."""
    reply = bytearray(PAYLOAD + bytes(abi.DATAGRAM_MAX - len(PAYLOAD)))
    watched.tell(bytes(reply))
    watched.ask(QUERY)
    reply[changed] ^= 1
    watched.bench.plane.trust_sockets([])
    watched.tell(bytes(reply))
    assert watched.addresses() == set()
    reply[changed] ^= 1
    watched.tell(bytes(reply))
    assert watched.addresses() == {ONE}
