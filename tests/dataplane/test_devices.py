"""What only devices have: frames with tags and padding, and an answer to whatever is refused."""

from __future__ import annotations

from collections.abc import Iterator

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, LLC, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane import devices, syscall
from ram_ebpf.dataplane.abi import Mode, PlaceFlag, Reason
from ram_ebpf.dataplane.devices import BEHIND
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.scope_maps import place_of
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.scopes.device import DeviceTarget

from . import messages as m
from .exchanges import DENIED_NAMES, LONGEST, ONE, REGISTRIES, ask
from .support import CLIENT, RESOLVER, RESOLVER6, Bench, ip
from .wire import own_network

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

PASSED, DROPPED, ANSWERED = 0xFFFFFFFF, 2, 7  # TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT
GATEWAY_MAC, CLIENT_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
NOWHERE, NOWHERE6 = "198.51.100.1", "2001:db8:5::1"
EVIL = "evil.example"


@pytest.fixture
def bench(loaded: Bench) -> Iterator[Bench]:
    loaded.device = BEHIND
    loaded.reset()
    yield loaded
    loaded.device = None


def link() -> Packet:
    return Ether(src=CLIENT_MAC, dst=GATEWAY_MAC)


def sent(bench: Bench, packet: Packet | bytes, flags: PlaceFlag = BEHIND) -> tuple[int, bytes]:
    """What becomes of what leaves: the verdict, and the packet afterwards."""
    program = bench.scope.programs_for(flags).fds["d_out"]
    run = syscall.program_test_run(program, bytes(packet), room=4096)
    return run.retval, run.packet


def answered(bench: Bench, packet: Packet) -> Packet:
    """The answer, whose addresses and checksums are right."""
    verdict, raw = sent(bench, packet)
    assert verdict == ANSWERED
    result = Ether(raw)
    assert (result.src, result.dst) == (GATEWAY_MAC, CLIENT_MAC)
    asked = packet[IPv6] if IPv6 in packet else packet[IP]
    told = result[type(asked)]
    assert (told.src, told.dst) == (asked.dst, asked.src)
    assert bytes(without_checksums(raw)) == raw
    return result


def without_checksums(raw: bytes) -> Packet:
    """The frame with lengths and checksums that scapy works out anew."""
    packet = Ether(raw)
    for layer, fields in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",))):
        if layer in packet:
            for field in fields:
                delattr(packet[layer], field)
    if UDP in packet and ICMP not in packet and ICMPv6DestUnreach not in packet:
        del packet[UDP].len, packet[UDP].chksum
    if ICMP in packet:
        del packet[ICMP].chksum
    if ICMPv6DestUnreach in packet:
        del packet[ICMPv6DestUnreach].cksum
    return packet


# --- TCP: a reset (RFC 9293 3.10.7.1)


@pytest.mark.parametrize("remote", [NOWHERE, NOWHERE6])
@pytest.mark.parametrize(
    ("flags", "payload", "expected"),
    [
        pytest.param("S", b"", ("RA", 0, 1001), id="what opens a connection"),
        pytest.param("SEC", b"", ("RA", 0, 1001), id="the same with congestion notification"),
        pytest.param("S", b"early", ("RA", 0, 1006), id="the same with data"),
        pytest.param("A", b"", ("R", 7000, 0), id="what belongs to one"),
        pytest.param("PA", b"x" * 1400, ("R", 7000, 0), id="data"),
        pytest.param("FA", b"", ("R", 7000, 0), id="its end"),
        pytest.param("F", b"abc", ("RA", 0, 1004), id="an end that acknowledges nothing"),
        pytest.param("", b"abc", ("RA", 0, 1003), id="no flags"),
    ],
)
def test_segment_is_reset(
    bench: Bench, remote: str, flags: str, payload: bytes, expected: tuple[str, int, int]
) -> None:
    options = [("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]
    segment = TCP(sport=40000, dport=443, flags=flags, seq=1000, ack=7000, options=options) / Raw(payload)
    reset = answered(bench, link() / ip(remote) / segment)[TCP]
    assert (str(reset.flags), reset.seq, reset.ack) == expected
    assert (reset.sport, reset.dport, reset.window, reset.dataofs) == (443, 40000, 0, 5)
    assert not reset.payload
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}


@pytest.mark.parametrize("remote", [NOWHERE, NOWHERE6])
def test_no_reset_for_a_reset(bench: Bench, remote: str) -> None:
    assert sent(bench, link() / ip(remote) / TCP(dport=443, flags="RA"))[0] == DROPPED


def test_segment_with_padding_is_reset(bench: Bench) -> None:
    """A frame has 60 bytes at least (IEEE 802.3), of which some may be nobody's."""
    packet = link() / ip(NOWHERE) / TCP(sport=40000, dport=443, flags="S", seq=1000)
    verdict, raw = sent(bench, bytes(packet).ljust(60, b"\xff"))
    assert verdict == ANSWERED
    assert Ether(raw)[TCP].ack == 1001


# --- UDP and others: administratively prohibited


@pytest.mark.parametrize("size", [0, 1, 8, 27, 28, 29, 512, 1400])
def test_datagram_is_prohibited(bench: Bench, size: int) -> None:
    """RFC 1812 5.2.7.1; the header and eight octets of what is refused are in it (RFC 792)."""
    packet = link() / ip(NOWHERE) / UDP(sport=40000, dport=443) / Raw(bytes(size))
    error = answered(bench, packet)
    assert (error[ICMP].type, error[ICMP].code) == (3, 13)
    assert bytes(error[ICMP].payload) == bytes(packet[IP])[:28]


@pytest.mark.parametrize("size", [0, 1, 8, 512, 1400])
def test_datagram_is_prohibited_over_ipv6(bench: Bench, size: int) -> None:
    """RFC 4443 3.1."""
    packet = link() / ip(NOWHERE6) / UDP(sport=40000, dport=443) / Raw(bytes(size))
    error = answered(bench, packet)
    assert (error[ICMPv6DestUnreach].type, error[ICMPv6DestUnreach].code) == (1, 1)
    assert bytes(error[ICMPv6DestUnreach].payload) == bytes(packet[IPv6])[:48]


def test_other_protocol_is_prohibited(bench: Bench) -> None:
    packet = link() / ip(NOWHERE, proto=132) / Raw(b"\x9c\x40\x01\xbb" + bytes(20))  # SCTP
    assert answered(bench, packet)[ICMP].code == 13
    assert bench.counted() == {Reason.DENIED_PROTOCOL: 1}


@pytest.mark.parametrize("remote", ["224.0.0.251", "255.255.255.255", "ff02::fb"])
def test_no_error_about_what_goes_to_many(bench: Bench, remote: str) -> None:
    """RFC 1122 3.2.2, RFC 4443 2.4."""
    assert sent(bench, link() / ip(remote) / UDP(dport=5353))[0] == DROPPED


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        pytest.param(ip(NOWHERE, frag=3) / Raw(bytes(30)), Reason.DENIED_FRAGMENT, id="a later fragment"),
        pytest.param(
            ip(NOWHERE6) / IPv6ExtHdrFragment(offset=3, nh=17) / Raw(bytes(30)),
            Reason.DENIED_FRAGMENT,
            id="a later IPv6 fragment",
        ),
        pytest.param(
            ip(NOWHERE, options=[IPOption_NOP()] * 4) / TCP(dport=443, flags="S"),
            Reason.DENIED_SOURCE_ROUTE,
            id="IP options",
        ),
        pytest.param(ip(NOWHERE, proto=6) / Raw(bytes(4)), Reason.DENIED_MALFORMED, id="half a TCP header"),
        pytest.param(Raw(b"\x95" + bytes(30)), Reason.DENIED_MALFORMED, id="no IP version that there is"),
    ],
)
def test_dropped_without_a_word(bench: Bench, packet: Packet, reason: Reason) -> None:
    frame = link() / packet
    if Raw in frame and IP not in frame and IPv6 not in frame:
        frame.type = 0x0800
    assert sent(bench, frame)[0] == DROPPED
    assert bench.counted() == {reason: 1}


def test_reset_behind_an_extension_header(bench: Bench) -> None:
    packet = link() / ip(NOWHERE6) / IPv6ExtHdrHopByHop() / TCP(sport=1, dport=443, flags="S", seq=5)
    reset = answered(bench, packet)
    assert reset[IPv6].nh == 6
    assert reset[TCP].ack == 6


def test_audit_answers_nothing(bench: Bench) -> None:
    packet = bytes(link() / ip(NOWHERE) / TCP(dport=443, flags="S"))
    with bench.configured(Settings(mode=Mode.AUDIT)):
        assert sent(bench, packet) == (PASSED, packet)


# --- DNS: REFUSED with an Extended DNS Error (RFC 8914)


def query(name: str, edns: bool, identity: int = 0x1234, flags: int = dns.flags.RD) -> bytes:
    asked = dns.message.make_query(name, "A", use_edns=0 if edns else False, payload=4096)
    asked.id, asked.flags = identity, dns.flags.Flag(flags)
    return asked.to_wire()


@pytest.mark.parametrize("resolver", [RESOLVER, RESOLVER6])
@pytest.mark.parametrize("edns", [True, False], ids=["EDNS", "no EDNS"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(EVIL, id="a name"),
        pytest.param("x.y", id="a short one"),
        pytest.param("a" * 63 + ".bc", id="a long label"),
        pytest.param(LONGEST.replace("deep", "evil"), id="the longest"),
        pytest.param("EvIl.ExAmPlE", id="mixed case"),
    ],
)
def test_query_is_refused(bench: Bench, resolver: str, edns: bool, name: str) -> None:
    wire = query(name, edns)
    packet = link() / ip(resolver) / UDP(sport=40000, dport=53) / Raw(wire)
    with bench.configured(Settings(allowed_names_only=True)):
        told = answered(bench, packet)
    assert (told[UDP].sport, told[UDP].dport) == (53, 40000)
    reply = dns.message.from_wire(bytes(told[UDP].payload))
    assert dns.message.from_wire(wire).is_response(reply)
    assert (reply.rcode(), reply.id) == (dns.rcode.REFUSED, 0x1234)
    assert dns.flags.to_text(reply.flags) == "QR RD RA"
    assert str(reply.question[0].name) == f"{name}."
    assert not reply.answer + reply.authority + reply.additional
    if edns:
        (option,) = reply.options
        assert isinstance(option, dns.edns.EDEOption)
        assert (option.code, option.text) == (dns.edns.EDECode.BLOCKED, None)
    else:
        assert reply.edns == -1
    assert bench.counted() == {Reason.DENIED_QUERY_NAME: 1}


def test_refusal_says_whether_recursion_was_desired(bench: Bench) -> None:
    packet = link() / ip(RESOLVER) / UDP(sport=40000, dport=53) / Raw(query(EVIL, True, flags=0))
    with bench.configured(Settings(allowed_names_only=True)):
        reply = dns.message.from_wire(bytes(answered(bench, packet)[UDP].payload))
    assert dns.flags.to_text(reply.flags) == "QR RA"


def test_refused_query_over_tcp_is_reset(bench: Bench) -> None:
    wire = query(EVIL, True)
    segment = TCP(sport=40000, dport=53, flags="PA", ack=9) / Raw(len(wire).to_bytes(2, "big") + wire)
    with bench.configured(Settings(allowed_names_only=True)):
        assert answered(bench, link() / ip(RESOLVER) / segment)[TCP].seq == 9


def test_what_is_no_query_is_prohibited(bench: Bench) -> None:
    with bench.configured(Settings(allowed_names_only=True)):
        told = answered(bench, link() / ip(RESOLVER) / UDP(sport=40000, dport=53) / Raw(b"secret"))
    assert told[ICMP].code == 13


def test_own_refusal_on_its_way_back_teaches_nothing(bench: Bench) -> None:
    """It goes through the other program of the device."""
    packet = link() / ip(RESOLVER) / UDP(sport=40000, dport=53) / Raw(query(EVIL, True))
    with bench.configured(Settings(allowed_names_only=True)):
        _, raw = sent(bench, packet)
        bench.counted()
        assert bench.ingress(raw)
    assert not bench.learned()
    assert bench.counted() == {}


# --- frames


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param([Dot1Q(vlan=5)], id="one tag"),
        pytest.param([Dot1AD(vlan=5), Dot1Q(vlan=6)], id="two tags"),
    ],
)
def test_tags(bench: Bench, tags: list[Packet]) -> None:
    """Those that the kernel has left in the packet, and has taken out (IEEE 802.1Q)."""
    frame = link()
    for tag in tags:
        frame /= tag
    asked = m.message(m.question())
    assert sent(bench, frame / ip(RESOLVER) / UDP(sport=4000, dport=53) / Raw(asked))[0] == PASSED
    reply = frame / ip(CLIENT, RESOLVER) / UDP(sport=53, dport=4000)
    reply /= Raw(m.message(m.question(), [m.address(ONE)], flags=m.RESPONSE))
    assert bench.ingress(bytes(reply))
    assert set(bench.learned()) == {(ONE, 443)}
    assert sent(bench, frame / ip(ONE) / TCP(dport=443, flags="S"))[0] == PASSED
    verdict, raw = sent(bench, frame / ip(NOWHERE) / TCP(sport=40000, dport=443, flags="S", seq=1000))
    assert verdict == ANSWERED
    assert bytes(without_checksums(raw)) == raw
    told = Ether(raw)
    assert told[TCP].ack == 1001
    assert [layer.vlan for layer in told.iterpayloads() if isinstance(layer, Dot1Q)] == [
        tag.vlan for tag in tags
    ]


def test_more_tags_than_are_read(bench: Bench) -> None:
    frame = link() / Dot1AD(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / ip(ONE) / TCP(dport=443, flags="S")
    assert sent(bench, frame)[0] == DROPPED
    assert bench.counted() == {Reason.DENIED_MALFORMED: 1}


def test_arp_passes(bench: Bench) -> None:
    assert sent(bench, link() / ARP(psrc=CLIENT, pdst=NOWHERE))[0] == PASSED
    assert bench.counted() == {Reason.ALLOWED_PROTOCOL: 1}


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(link() / LLC() / Raw(bytes(40)), id="LLC"),
        pytest.param(Ether(type=0x88B5) / Raw(bytes(40)), id="a type for experiments"),
        pytest.param(Ether(type=0x8847) / Raw(bytes(40)), id="MPLS"),
    ],
)
def test_what_is_not_ip_is_refused(bench: Bench, frame: Packet) -> None:
    assert sent(bench, frame)[0] == DROPPED
    assert bench.ingress(bytes(frame))


def test_padding_is_no_data(bench: Bench) -> None:
    """An acknowledgment to a resolver, in the shortest frame there is, is not taken for a query."""
    segment = link() / ip(RESOLVER) / TCP(sport=40000, dport=53, flags="A")
    with bench.configured(Settings(allowed_names_only=True)):
        assert sent(bench, bytes(segment).ljust(60, b"\0"))[0] == PASSED
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1}


# --- connections


@pytest.fixture
def unread(bench: Bench) -> Iterator[Bench]:
    """With names that are not read, UDP to an address that a name opened passes too."""
    with bench.configured(Settings(read_names=False)):
        yield bench


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_connection_outlives_its_address(unread: Bench, protocol: str) -> None:
    bench = unread
    bench.open("learned", ONE, (443,), 0.3)
    first = TCP(sport=40000, dport=443, flags="S") if protocol == "tcp" else UDP(sport=40000, dport=443)
    more = TCP(sport=40000, dport=443, flags="PA") if protocol == "tcp" else UDP(sport=40000, dport=443)
    assert sent(bench, link() / ip(ONE) / first)[0] == PASSED
    bench.map("learned").clear()
    assert sent(bench, link() / ip(ONE) / more)[0] == PASSED
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 1, Reason.ALLOWED_ESTABLISHED: 1}
    other = TCP(sport=40001, dport=443, flags="PA") if protocol == "tcp" else UDP(sport=40001, dport=443)
    assert sent(bench, link() / ip(ONE) / other)[0] == ANSWERED
    assert sent(bench, link() / ip(ONE) / TCP(sport=40000, dport=443, flags="S"))[0] == ANSWERED


def test_what_one_protocol_may_is_nothing_to_the_other(unread: Bench) -> None:
    bench = unread
    bench.open("learned", ONE, (443,), 60)
    assert sent(bench, link() / ip(ONE) / UDP(sport=40000, dport=443))[0] == PASSED
    bench.map("learned").clear()
    assert sent(bench, link() / ip(ONE) / TCP(sport=40000, dport=443, flags="PA"))[0] == ANSWERED


def test_connection_of_another_scope(bench: Bench) -> None:
    bench.open("learned", ONE, (443,), 60)
    packet = link() / ip(ONE) / TCP(sport=40000, dport=443, flags="PA")
    assert sent(bench, packet)[0] == PASSED
    assert not bench.egress(bytes(packet), scope=bench.other)


# --- what is told


def test_event_names_the_packet_without_its_frame(bench: Bench) -> None:
    wire = query(EVIL, True)
    packet = link() / Dot1Q(vlan=5) / ip(RESOLVER) / UDP(sport=40000, dport=53) / Raw(wire)
    source = EventSource(bench.plane)
    events: list[Event] = []
    try:
        with bench.configured(Settings(allowed_names_only=True)):
            sent(bench, packet)
        source.drain(events.append)
    finally:
        source.close()
    (event,) = events
    assert event.outgoing
    assert not event.incoming
    assert event.dns_message == wire
    assert event.packet == bytes(packet[IP])
    assert event.scope == bench.scope.number


# --- this host's own traffic


def test_own_traffic_is_answered_too(bench: Bench) -> None:
    verdict, _ = sent(bench, link() / ip(NOWHERE) / TCP(dport=443, flags="S"), PlaceFlag.OWN_TRAFFIC)
    assert verdict == ANSWERED


# --- containers of which nothing is known yet


@pytest.fixture
def holding(bench: Bench) -> Iterator[int]:
    """The program at a bridge. Without a mark by which it knows others' packets it would hold nobody."""
    bench.plane.prepare_bridges([])
    yield bench.scope.programs_for(BEHIND | PlaceFlag.HOLD).fds["d_hold"]
    bench.plane.release_bridges()


def test_hold(bench: Bench, holding: int) -> None:
    """What is allowed passes, DNS above all. The rest gets no answer, so that who asks asks again."""

    def verdict(packet: Packet) -> int:
        return syscall.program_test_run(holding, bytes(link() / packet)).retval

    bench.open("learned", ONE, (443,), 60)
    assert verdict(ip(ONE) / TCP(dport=443, flags="S")) == PASSED
    assert verdict(ip(RESOLVER) / UDP(sport=4000, dport=53) / Raw(ask().payload)) == PASSED
    assert verdict(ARP(psrc=CLIENT, pdst=ONE)) == PASSED
    bench.counted()
    for packet in (ip(NOWHERE) / TCP(dport=443, flags="S"), ip(NOWHERE) / UDP(dport=53), ip(NOWHERE6)):
        assert verdict(packet) == DROPPED
    assert bench.counted() == {Reason.DENIED_NEW_CONTAINER: 3}
    assert bench.queries(), "the query was not remembered"


def test_nothing_is_said_of_what_is_held(bench: Bench, holding: int) -> None:
    source = EventSource(bench.plane)
    syscall.program_test_run(holding, bytes(link() / ip(NOWHERE) / TCP(dport=443, flags="S")))
    events: list[Event] = []
    source.drain(events.append)
    source.close()
    assert events == []


# --- where others are still there, from whom it is taken over


def test_learning_refuses_nothing_and_says_nothing(bench: Bench) -> None:
    source = EventSource(bench.plane)
    events: list[Event] = []
    try:
        for packet in (ip(NOWHERE) / TCP(dport=443, flags="S"), ip(NOWHERE) / UDP(dport=443), ip(NOWHERE6)):
            assert sent(bench, link() / packet, BEHIND | PlaceFlag.LEARN)[0] == PASSED
            assert sent(bench, link() / packet)[0] in (ANSWERED, DROPPED)
            source.drain(events.append)
            assert len(events) == 1  # about the second
            events.clear()
    finally:
        source.close()


def test_what_is_asked_while_learning_is_learned(bench: Bench) -> None:
    packet = link() / ip(RESOLVER) / UDP(sport=40000, dport=53) / Raw(ask().payload)
    assert sent(bench, packet, BEHIND | PlaceFlag.LEARN)[0] == PASSED
    assert len(bench.queries()) == 1


def test_a_query_while_one_takes_over_from_another(bench: Bench) -> None:
    """It is known to the newer programs, or copied: either way its reply is learned."""
    with own_network(), IPRoute() as netlink:
        netlink.link("add", ifname="outside", kind="veth", peer={"ifname": "inside"})
        (device,) = DeviceTarget("outside").find().devices
        programs = bench.scope.programs_for(BEHIND)
        learning = bench.scope.programs_for(BEHIND | PlaceFlag.LEARN)
        _, out = device.ways()
        meanwhile: list[str] = []

        def look() -> None:
            for attachment in devices.ours_attached(device):
                if attachment.way is out:
                    with syscall.opened_program(attachment.program) as fd:
                        meanwhile.append("learns" if (place_of(fd) or 0) & PlaceFlag.LEARN else "refuses")

        attached = devices.attach(programs, device, learning=learning, before_refusing=look)
        assert meanwhile == ["learns"]
        look()
        assert meanwhile[1:] == ["refuses"]
        assert sorted(attached, key=str) == sorted(devices.ours_attached(device), key=str)
        devices.detach(device, attached)
        assert devices.ours_attached(device) == []
