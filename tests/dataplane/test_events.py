"""What the programs tell user space: events of denials and of DNS replies."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Raw

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.abi import Reason, Verdict
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, ask, exchange, many, tell
from .messages import RESPONSE, Query, Reply, address, cname, hint, message, question, service, wire
from .support import CLIENT, CLIENT6, RESOLVER, RESOLVER6, Bench, frame, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane


@pytest.fixture
def source(bench: Bench) -> Iterator[EventSource]:
    source = EventSource(bench.plane)
    yield source
    source.close()


def taken(source: EventSource) -> list[Event]:
    events: list[Event] = []
    source.drain(events.append)
    assert (source.malformed, source.lost) == (0, 0)
    return events


def test_denial(bench: Bench, source: EventSource) -> None:
    before = clock.now_ns()
    bench.egress(ip("198.51.100.1") / TCP(dport=5000, flags="S"))
    (event,) = taken(source)
    assert before <= event.time_ns <= clock.now_ns()
    assert (event.verdict, event.reason, event.outgoing) == (
        Verdict.DENY,
        Reason.DENIED_UNKNOWN_ADDRESS,
        True,
    )
    assert (event.address, event.port, event.protocol) == (ip_address("198.51.100.1"), 5000, 6)
    # On its way out a packet belongs to no process that could be named.
    assert (event.pid, event.process, event.uid, event.rule, event.dns_message) == (None, None, None, 0, None)
    assert taken(source) == []


def test_denial_that_audit_only_reports(bench: Bench, source: EventSource) -> None:
    bench.open("learned", "2001:db8:1::1", (443,), 300, rule=1)
    with bench.configured(Settings(mode=abi.Mode.AUDIT)):
        bench.egress(ip("2001:db8:1::1") / UDP(dport=80))
    (event,) = taken(source)
    assert (event.verdict, event.reason, event.rule) == (Verdict.WOULD_DENY, Reason.DENIED_PORT, 1)
    assert (event.address, event.port, event.protocol) == (ip_address("2001:db8:1::1"), 80, 17)


@pytest.mark.parametrize(
    ("client", "server"),
    [pytest.param(CLIENT, RESOLVER, id="IPv4"), pytest.param(CLIENT6, RESOLVER6, id="IPv6")],
)
def test_reply_comes_with_its_whole_message(
    bench: Bench, source: EventSource, client: str, server: str
) -> None:
    query = Query(message(question()), (), client=client, server=server)
    payload = message(question(), [address(f"192.0.2.{n}") for n in range(1, 101)], flags=RESPONSE)
    bench.egress(query.frame())
    # What lies behind the datagram is no part of the message.
    reply = Reply(payload, (), client=client, server=server, udp_length=8 + len(payload), trailer=b"behind")
    bench.ingress(reply.frame())
    (event,) = taken(source)
    assert (event.verdict, event.reason, event.incoming) == (
        Verdict.NONE,
        Reason.DNS_LEARNED,
        True,
    )
    assert (event.address, event.port, event.rule) == (ip_address(server), 53, bench.rule_of(m.NAME))
    assert (event.protocol, event.detail) == (17, 0)
    assert event.dns_message == payload
    assert event.packet == reply.frame()[14 : -len(reply.trailer)]  # from its IP header


ANSWERED = [
    pytest.param(tell(address(ONE)), m.NAME, id="addresses"),
    pytest.param(tell(cname("cdn.example"), counted=Reason.DNS_ALIAS), m.NAME, id="a name that leads on"),
    pytest.param(
        tell(address(ONE, owner=wire("cdn.example")), counted=Reason.DNS_OTHER_NAME),
        m.NAME,
        id="an address of another name",
    ),
    pytest.param(
        tell(address("10.1.2.3"), counted=Reason.DNS_PRIVATE_ADDRESS), m.NAME, id="a private address"
    ),
    pytest.param(tell(counted=Reason.DNS_NO_ADDRESS), m.NAME, id="no address"),
    pytest.param(tell(flags=RESPONSE | m.TC, counted=Reason.DNS_TRUNCATED), m.NAME, id="a truncated reply"),
    pytest.param(tell(b"\x40", counted=Reason.DNS_MALFORMED), m.NAME, id="a broken record"),
    pytest.param(
        tell(
            *(address(ONE, owner=wire(".".join("a" * 100))) for _ in range(12)), counted=Reason.DNS_TOO_MANY
        ),
        m.NAME,
        id="more than is read",
    ),
    pytest.param(
        tell(address(ONE), name="other.test", counted=Reason.DNS_WRONG_QUESTION),
        m.NAME,
        id="a wrong question",
    ),
    pytest.param(tell(address(ONE), identity=8, counted=Reason.DNS_NO_QUERY), "", id="a wrong id"),
    pytest.param(
        tell(address(ONE), server="198.51.100.53", counted=Reason.DNS_UNTRUSTED_SENDER),
        "",
        id="another server",
    ),
]


@pytest.mark.parametrize(("reply", "pattern"), ANSWERED)
def test_what_became_of_a_reply(bench: Bench, source: EventSource, reply: Reply, pattern: str) -> None:
    exchange(bench, ask(), reply)
    (event,) = taken(source)
    assert (event.reason, event.verdict) == (*reply.counted, Verdict.NONE)
    assert event.rule == (bench.rule_of(pattern) if pattern else 0)
    assert event.dns_message == reply.payload


def test_rule_of_an_alias(bench: Bench, source: EventSource) -> None:
    exchange(bench, ask(), tell(cname("cdn.example")))
    exchange(bench, ask("cdn.example"), tell(address(ONE), name="cdn.example"))
    assert [event.rule for event in taken(source)] == [bench.rule_of(m.NAME)] * 2


def test_reply_that_many_runs_of_the_program_read(bench: Bench, source: EventSource) -> None:
    """It is told once, at its end."""
    reply = tell(*map(address, many(200)))
    exchange(bench, ask(), reply)
    (event,) = taken(source)
    assert event.reason is Reason.DNS_LEARNED
    assert event.dns_message == reply.payload


def test_reply_about_https_records(bench: Bench, source: EventSource) -> None:
    reply = tell(service(hint(ONE)), qtype=m.HTTPS)
    exchange(bench, ask(qtype=m.HTTPS), reply)
    (event,) = taken(source)
    assert (event.reason, event.dns_message) == (Reason.DNS_LEARNED, reply.payload)


def test_allowed_packets_are_not_told(bench: Bench, source: EventSource) -> None:
    bench.open("learned", "192.0.2.1", (443,), 300)
    bench.egress(ip("192.0.2.1") / TCP(dport=443, flags="S"))
    bench.egress(Query(message(question()), ()).frame())
    bench.ingress(ip(CLIENT, "192.0.2.1") / TCP(sport=443, dport=40000, flags="SA"))
    bench.ingress(ip(CLIENT, "192.0.2.123") / UDP(sport=123, dport=40000) / Raw(b"time"))
    assert taken(source) == []


def test_more_events_than_a_ring_holds_are_counted_as_lost(bench: Bench, source: EventSource) -> None:
    packet = frame(ip("198.51.100.1") / UDP(dport=443))
    count = 20_000
    # There is a ring for each CPU, and a loss is told in the ring that had it.
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        bench.egress(packet, repeat=count)
        events: list[Event] = []
        source.drain(events.append)
        at_once = source.lost
        # Before Linux 6.0 the loss itself is told when there is room again.
        bench.egress(packet)
        source.drain(events.append)
    finally:
        os.sched_setaffinity(0, allowed)
    assert 0 < len(events) < count
    assert len(events) + source.lost == count + 1
    assert at_once in (0, source.lost)
    assert (source.malformed, source.overruns) == (0, 0)


@pytest.mark.parametrize("more", [0, 1])
def test_a_queue_that_is_full(bench: Bench, more: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest of what was pushed behind that is gone, and nobody has counted it."""
    monkeypatch.setattr("ram_ebpf.dataplane.events.compiler_flags", lambda: ())  # as on 5.4
    source = EventSource(bench.plane)
    queue = bench.plane.maps["connect_events"]
    count = queue.shape.max_entries - 1 + more
    for _ in range(count):
        queue.push(bytes(abi.Event(verdict=Verdict.DENY, reason=Reason.DENIED_PORT)))
    try:
        assert len(taken(source)) == count
        assert source.overruns == more
    finally:
        source.close()


# --- who wakes user space


@pytest.fixture
def is_readable(source: EventSource) -> Iterator[Callable[[], bool]]:
    """Whether user space is woken. Once: perf_poll() of kernel/events/core.c forgets what it has said."""
    with selectors.DefaultSelector() as selector:
        for descriptor in source.descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        yield lambda: bool(selector.select(0.05))


def refuse(bench: Bench, times: int) -> None:
    packet = ip("198.51.100.1") / TCP(dport=5000, flags="S")
    # There is a ring for each CPU.
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        for _ in range(times):
            bench.egress(packet)
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_refusal_wakes_nobody(bench: Bench, source: EventSource, is_readable: Callable[[], bool]) -> None:
    refuse(bench, 1)
    assert not is_readable()
    (event,) = taken(source)
    assert event.reason is Reason.DENIED_UNKNOWN_ADDRESS


def test_so_many_refusals_do(bench: Bench, source: EventSource, is_readable: Callable[[], bool]) -> None:
    """A ring has 256 KiB, and half of that is enough."""
    refuse(bench, 1500)
    assert is_readable()
    assert len(taken(source)) == 1500
    assert not is_readable()


def test_what_a_client_waits_for_does(
    bench: Bench, source: EventSource, is_readable: Callable[[], bool]
) -> None:
    refuse(bench, 3)
    exchange(bench, ask(), tell(flags=RESPONSE | m.TC, counted=Reason.DNS_TRUNCATED))
    assert is_readable()
    events: list[Event] = []
    source.drain_questions(events.append)
    assert [event.reason for event in events] == [Reason.DNS_TRUNCATED]
    assert len(taken(source)) == 3


def test_the_same_about_a_name_that_nobody_lists_does_not(
    bench: Bench, source: EventSource, is_readable: Callable[[], bool]
) -> None:
    exchange(bench, ask("nobody.test"), tell(name="nobody.test", flags=RESPONSE | m.TC))
    assert not is_readable()


def rest(source: EventSource) -> None:
    source.rest()
    if not source.rests:
        pytest.skip("on this kernel events come by a queue, which wakes nobody")


def test_a_refusal_wakes_who_rests(
    bench: Bench, source: EventSource, is_readable: Callable[[], bool]
) -> None:
    rest(source)
    for _ in range(2):
        refuse(bench, 1)
        assert is_readable()
        assert len(taken(source)) == 1
        assert not is_readable()
    source.work()
    assert not source.rests
    refuse(bench, 1)
    assert not is_readable()
    assert len(taken(source)) == 1


def test_what_came_before_a_change_is_taken_behind_it(bench: Bench, source: EventSource) -> None:
    rest(source)
    for number in range(20):
        (source.work if number % 2 else source.rest)()
        bench.egress(ip("198.51.100.1") / TCP(dport=5000 + number, flags="S"))
    assert [event.port for event in taken(source)] == list(range(5000, 5020))


def test_a_change_amid_events_loses_none(bench: Bench, source: EventSource) -> None:
    """But for those for which there was no room, which are counted."""
    rest(source)
    packet = frame(ip("198.51.100.1") / TCP(dport=5000, flags="S"))
    events: list[Event] = []
    least, at_once = 100, 50
    changes = rounds = 0

    def run() -> None:
        nonlocal rounds
        while rounds < least or changes <= 10:  # on a busy machine one of the two may have to wait
            bench.egress(packet, repeat=at_once)
            rounds += 1

    refusing = threading.Thread(target=run)
    refusing.start()
    while refusing.is_alive():
        (source.rest if changes % 2 else source.work)()
        changes += 1
        source.drain(events.append)
    refusing.join()
    for change in (source.rest, source.work):  # a loss may be told when there is room again
        change()
        bench.egress(packet)
        source.drain(events.append)
    assert changes > 10
    assert len(events) + source.lost == rounds * at_once + 2
    assert source.malformed == 0
