"""From the bytes of an event to its values."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.events import Event, MalformedEventError, parse_event

SIZE = len(bytes(abi.Event()))


def raw_event(packet: bytes = b"", **fields: Any) -> bytes:
    address = abi.pack_address(ipaddress.ip_address(fields.pop("address", "192.0.2.1")))
    event = abi.Event(packet_len=len(packet))
    event.address[:] = abi.Endpoint.from_buffer_copy(address + b"\0" * 4).address
    for name, value in fields.items():
        setattr(event, name, value)
    return bytes(event) + packet


def test_packet_with_a_frame_in_front() -> None:
    """As of a device: the packet begins at its IP header, wherever that stands."""
    packet = b"e" * 18 + b"i" * 28 + b"the message"
    event = parse_event(raw_event(packet, dns_offset=46, link_len=18))
    assert event.packet == b"i" * 28 + b"the message"
    assert event.dns_message == b"the message"
    assert parse_event(raw_event(packet, dns_offset=18, link_len=18)).dns_message is None
    assert parse_event(raw_event(packet, dns_offset=7, link_len=18)).dns_message is None


def test_every_field() -> None:
    raw = raw_event(
        time_ns=7,
        verdict=abi.Verdict.DENY,
        reason=abi.Reason.DENIED_PORT,
        hook=abi.Hook.INET4_CONNECT,
        port=8443,
        protocol=6,
        rule=3,
        scope=1023,
        detail=2**32 - 1,
        socket_cookie=9,
        pid=42,
        uid=1000,
        cgroup_id=2**40 + 1,
        comm=b"docker",
    )
    assert parse_event(raw) == Event(
        time_ns=7,
        verdict=abi.Verdict.DENY,
        reason=abi.Reason.DENIED_PORT,
        hook=abi.Hook.INET4_CONNECT,
        address=ipaddress.ip_address("192.0.2.1"),
        port=8443,
        protocol=6,
        rule=3,
        scope=1023,
        detail=2**32 - 1,
        socket_cookie=9,
        pid=42,
        process="docker",
        uid=1000,
        cgroup_id=2**40 + 1,
        packet=b"",
        dns_message=None,
    )


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::", "::1", "0.0.0.0", "255.255.255.255"])
def test_addresses(address: str) -> None:
    assert str(parse_event(raw_event(address=address)).address) == address


def test_what_the_kernel_could_not_tell() -> None:
    event = parse_event(raw_event(pid=0, uid=2**32 - 1, cgroup_id=0, comm=b""))
    assert (event.pid, event.uid, event.process, event.cgroup_id) == (None, None, None, None)


def test_root_is_a_user() -> None:
    assert parse_event(raw_event(uid=0)).uid == 0


@pytest.mark.parametrize("length", [0, 1, 8, SIZE - 1])
def test_short(length: int) -> None:
    with pytest.raises(MalformedEventError) as caught:
        parse_event(bytes(length))
    assert str(caught.value) == f"{length} bytes are no event: it has {SIZE}"


@pytest.mark.parametrize(
    "fields",
    [
        {"verdict": 4},
        {"verdict": 255},
        {"reason": 14},
        {"reason": 15},
        {"reason": 53},
        {"reason": max(abi.Reason) + 1},
        {"reason": abi.REASON_COUNT},
        {"reason": 65535},
        {"hook": 8},
    ],
)
def test_unknown_numbers(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedEventError, match=str(next(iter(fields.values())))):
        parse_event(raw_event(**fields))


@pytest.mark.parametrize("reason", list(abi.Reason))
def test_every_reason(reason: abi.Reason) -> None:
    assert parse_event(raw_event(reason=reason)).reason is reason


def test_the_process_ends_at_its_first_zero_byte() -> None:
    assert parse_event(raw_event(comm=b"docker\0rubbish")).process == "docker"
    assert parse_event(raw_event(comm=b"a" * 15)).process == "a" * 15


def test_a_process_that_is_not_utf8() -> None:
    assert (
        parse_event(raw_event(comm=b"\xffd\xe9")).process
        == "\N{REPLACEMENT CHARACTER}d\N{REPLACEMENT CHARACTER}"
    )


def test_the_message_begins_at_its_offset() -> None:
    packet = b"i" * 20 + b"u" * 8 + b"the message"
    assert parse_event(raw_event(packet, dns_offset=28)).dns_message == b"the message"


def test_the_packet_is_there_whole() -> None:
    """Who reads TCP streams needs its headers, also where nobody looked for a message."""
    packet = b"i" * 20 + b"t" * 20 + b"a piece"
    assert parse_event(raw_event(packet, dns_offset=40)).packet == packet
    assert parse_event(raw_event(packet)).packet == packet
    assert parse_event(raw_event()).packet == b""


def test_padding_is_no_part_of_the_message() -> None:
    packet = b"i" * 28 + b"message"
    event = parse_event(raw_event(packet, dns_offset=28) + b"\0" * 5)
    assert (event.packet, event.dns_message) == (packet, b"message")


def test_a_packet_that_was_cut() -> None:
    """packet_len says what was to come; less may have."""
    raw = raw_event(b"i" * 28 + b"message", dns_offset=28)
    event = parse_event(raw[:-3])
    assert (event.packet, event.dns_message) == (b"i" * 28 + b"mess", b"mess")


@pytest.mark.parametrize(("packet", "offset"), [(b"", 0), (b"", 28), (b"i" * 40, 0)])
def test_no_message(packet: bytes, offset: int) -> None:
    assert parse_event(raw_event(packet, dns_offset=offset)).dns_message is None


@pytest.mark.parametrize("offset", [40, 41, 65535])
def test_an_offset_behind_the_packet(offset: int) -> None:
    assert not parse_event(raw_event(b"i" * 40, dns_offset=offset)).dns_message


@given(st.binary(max_size=SIZE + 40))
def test_any_bytes(raw: bytes) -> None:
    try:
        assert isinstance(parse_event(raw), Event)
    except MalformedEventError as error:
        assert str(error)  # noqa: PT017 - either is right


@given(
    st.binary(min_size=SIZE, max_size=SIZE + 40),
    st.sampled_from(list(abi.Verdict)),
    st.sampled_from(list(abi.Reason)),
    st.sampled_from(list(abi.Hook)),
)
def test_any_bytes_with_known_numbers(
    raw: bytes, verdict: abi.Verdict, reason: abi.Reason, hook: abi.Hook
) -> None:
    event = abi.Event.from_buffer_copy(raw)
    event.verdict, event.reason, event.hook = verdict, reason, hook
    parsed = parse_event(bytes(event) + raw[SIZE:])
    assert (parsed.verdict, parsed.reason, parsed.hook) == (verdict, reason, hook)
    assert parsed.dns_message is None or len(parsed.dns_message) <= 40
