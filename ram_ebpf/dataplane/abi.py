"""Mirror of bpf/abi.h: structures, enums and limits. tests/unit/test_abi.py compares the two.

Addresses are 16 bytes in network order (IPv4 as IPv4-mapped, RFC 4291 2.5.5.2), ports in host order, times
in nanoseconds of the clock in clock.py.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import zlib
from collections.abc import Iterable
from enum import IntEnum, IntFlag

CLASS_COUNT = 40
CLASS_ROOM = 64
CLASS_OTHER = 0
CLASS_SEP = 39
HASH_LANES = 4
PORT_LISTS_MAX = 64
NAME_MAX = 255
LABELS_MAX = 127
ANSWER_STEPS = 24
ANSWER_PROGRAMS = 28
ALIAS_DEPTH_MAX = 8
DATAGRAM_MAX = 4352
SCOPES_MAX = 1024
SCOPE_MASK = 0x07FF
DEPTH_SHIFT = 16
MARK_SHIFT = 16
SOME_PORTS_MAX = 8
COMM_LEN = 16
BEGINNING_MAX = 4096
BEGINNING_ROOM = 4352
HELLO_STEPS = 32
REQUEST_STEPS = 208
BEGINNING_RUNS = 20


class Mode(IntEnum):
    """enum ram_mode."""

    ENFORCE = 0
    AUDIT = 1


class Posture(IntEnum):
    """enum ram_posture."""

    STRICT = 0
    REGISTRIES = 1


class Unknown(IntEnum):
    """enum ram_unknown."""

    ALLOW = 0
    PROBE = 1
    DENY = 2


class Verdict(IntEnum):
    """enum ram_verdict."""

    NONE = 0
    ALLOW = 1
    DENY = 2
    WOULD_DENY = 3


class Reason(IntEnum):
    """enum ram_reason; each has its sentence in docs/reasons.md."""

    NONE = 0
    ALLOWED_LEARNED = 1
    ALLOWED_GRACE = 2
    ALLOWED_ADDRESS = 3
    ALLOWED_RESOLVER = 4
    ALLOWED_ESTABLISHED = 5
    ALLOWED_INBOUND = 6
    ALLOWED_PROTOCOL = 7
    ALLOWED_RESOLVER_REPLY = 8
    ALLOWED_OTHER = 9
    ALLOWED_UNASKED = 10
    ALLOWED_OWN = 11
    ALLOWED_RESPONDER = 12
    ALLOWED_NAME = 13
    DENIED_UNKNOWN_ADDRESS = 16
    DENIED_EXPIRED = 17
    DENIED_PORT = 18
    DENIED_PROTOCOL = 19
    DENIED_MALFORMED = 20
    DENIED_FRAGMENT = 21
    DENIED_RESOLVER = 22
    DENIED_SOURCE_ROUTE = 23
    DENIED_PRIVATE_ADDRESS = 24
    DENIED_DNS_OVER_TLS = 25
    DENIED_DNS_OVER_QUIC = 26
    DENIED_DNS_OVER_HTTPS = 27
    DENIED_QUERY_NAME = 28
    DENIED_NOT_A_QUERY = 29
    DENIED_NEW_CONTAINER = 30
    DENIED_REGISTRY = 31
    DNS_LEARNED = 32
    DNS_NOT_LISTED = 33
    DNS_NO_QUERY = 34
    DNS_WRONG_QUESTION = 35
    DNS_TRUNCATED = 36
    DNS_MALFORMED = 37
    DNS_TOO_MANY = 38
    DNS_MAP_FULL = 39
    DNS_WRONG_INTERFACE = 40
    DNS_NO_ADDRESS = 41
    DNS_NOT_A_QUERY = 42
    DNS_UNTRUSTED_SENDER = 43
    DNS_OVER_TCP = 44
    DNS_LATE = 45
    DNS_PRIVATE_ADDRESS = 46
    DNS_OTHER_NAME = 47
    DNS_ALIAS = 48
    DNS_HELD = 49
    DENIED_REGISTRY_PORT = 50
    DENIED_UNASKED = 51
    DNS_RECOGNISED = 52
    NAME_MISMATCH = 56
    DENIED_NOT_NAMED = 57
    DENIED_SEGMENT = 58
    DENIED_REMOVED = 59

    @property
    def slug(self) -> str:
        """The spelling used in logs and metrics."""
        return self.name.lower().replace("_", "-")

    @property
    def is_denied(self) -> bool:
        """Whether what it is given for is refused; ram_is_denied() in bpf/lib/verdict.h."""
        return self.name.startswith("DENIED") or self is Reason.NAME_MISMATCH

    @property
    def is_decision(self) -> bool:
        """Whether something passes or is refused for it; else it is about a DNS message."""
        return self.is_denied or self.name.startswith("ALLOWED")


REASON_COUNT = 64


class Hook(IntEnum):
    """enum ram_hook."""

    INET_INGRESS = 0
    INET_EGRESS = 1
    INET4_CONNECT = 2
    INET6_CONNECT = 3
    UDP4_SENDMSG = 4
    UDP6_SENDMSG = 5
    DEVICE_INCOMING = 6
    DEVICE_OUTGOING = 7


class PlaceFlag(IntFlag):
    """enum ram_place_flag."""

    SENDMSG = 0x0800
    LEARN = 0x1000
    HOLD = 0x2000
    NO_LINK_HEADER = 0x4000
    OWN_TRAFFIC = 0x8000


class ResolverFlag(IntFlag):
    """enum ram_resolver_flag."""

    LOCAL = 1
    TRANSLATED = 2


class ConfigFlag(IntFlag):
    """enum ram_config_flag."""

    ALLOWED_NAMES_ONLY = 1
    OTHER_DNS_PORTS = 2
    NESTED = 4
    READ_NAMES = 8
    CUT_EARLIER = 16


class RuleFlag(IntFlag):
    """enum ram_rule_flag."""

    DENY = 1
    PRIVATE = 2
    PRIVATE_RANGES = 4
    UNNAMED = 8
    PROXY = 16
    ADDRESS = 32


class OpeningFlag(IntFlag):
    """enum ram_opening_flag."""

    PRIVATE = 1


class RefusedList(IntEnum):
    """enum ram_refused_list."""

    ALL = 0x10000
    ON = 0x20000


class IngressProgram(IntEnum):
    """enum ram_ingress_program."""

    MAIN = 0
    ANSWERS = 1
    TELL = 2


class EgressProgram(IntEnum):
    """enum ram_egress_program."""

    MAIN = 0
    QUERY = 1
    RULE = 2
    REFUSE = 3
    REFUSE_QUERY = 4
    BEGINNING = 5
    HELLO = 6
    NAME = 7
    REQUEST = 8


_Address = ctypes.c_uint32 * 4
SomePorts = ctypes.c_uint16 * SOME_PORTS_MAX


class Config(ctypes.Structure):
    """struct ram_config."""

    _fields_ = [
        ("layout", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
        ("grace_ns", ctypes.c_uint64),
        ("query_lifetime_ns", ctypes.c_uint64),
        ("hold_ns", ctypes.c_uint64),
        ("lease_ns", ctypes.c_uint64),
        ("identity_key", ctypes.c_uint64 * 2),
        ("zero", ctypes.c_uint64),
        ("mode", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("minimum_ttl", ctypes.c_uint32),
        ("maximum_ttl", ctypes.c_uint32),
        ("automaton_start", ctypes.c_uint32),
        ("port_lists", ctypes.c_uint32),
        ("loopback_ifindex", ctypes.c_uint32),
        ("multiplier", ctypes.c_uint32 * HASH_LANES),
        ("class_of", ctypes.c_uint8 * 256),
        ("suffix_depths", ctypes.c_uint32),
        ("posture", ctypes.c_uint32),
        ("unknown", ctypes.c_uint32),
        ("registry_ports", SomePorts),
        ("asked_ports", SomePorts),
    ]


class SuffixKey(ctypes.Structure):
    """struct ram_suffix_key."""

    _fields_ = [("hash", ctypes.c_uint32 * HASH_LANES)]


class Suffix(ctypes.Structure):
    """struct ram_suffix."""

    _fields_ = [("exact", ctypes.c_uint32), ("one", ctypes.c_uint32), ("deep", ctypes.c_uint32)]


class State(ctypes.Structure):
    """struct ram_state."""

    _fields_ = [("accept", ctypes.c_uint32), ("next", ctypes.c_uint16 * CLASS_ROOM)]


class Rule(ctypes.Structure):
    """struct ram_rule."""

    _fields_ = [
        ("port_list", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("identity", ctypes.c_uint64),
    ]


class Endpoint(ctypes.Structure):
    """struct ram_endpoint."""

    _fields_ = [("address", _Address), ("port", ctypes.c_uint16), ("zero", ctypes.c_uint16)]


class OpeningKey(ctypes.Structure):
    """struct ram_opening_key."""

    _fields_ = [("address", _Address), ("port_list", ctypes.c_uint32)]


class Opening(ctypes.Structure):
    """struct ram_opening."""

    _fields_ = [("expires_ns", ctypes.c_uint64), ("rule", ctypes.c_uint32), ("flags", ctypes.c_uint32)]


class RangeKey(ctypes.Structure):
    """struct ram_range_key."""

    _fields_ = [("prefixlen", ctypes.c_uint32), ("port_be", ctypes.c_uint32), ("address", _Address)]


class Range(ctypes.Structure):
    """struct ram_range."""

    _fields_ = [("rule", ctypes.c_uint32)]


class QueryKey(ctypes.Structure):
    """struct ram_query_key."""

    _fields_ = [
        ("resolver", _Address),
        ("local", _Address),
        ("resolver_port", ctypes.c_uint16),
        ("local_port", ctypes.c_uint16),
        ("id", ctypes.c_uint16),
        ("zero", ctypes.c_uint16),
    ]


class Query(ctypes.Structure):
    """struct ram_query."""

    _fields_ = [
        ("asked_ns", ctypes.c_uint64),
        ("identity", ctypes.c_uint64),
        ("rule", ctypes.c_uint32),
        ("alias", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
        ("qtype", ctypes.c_uint16),
        ("depth", ctypes.c_uint16),
    ]


class Alias(ctypes.Structure):
    """struct ram_alias."""

    _fields_ = [("expires_ns", ctypes.c_uint64), ("rule", ctypes.c_uint32), ("depth", ctypes.c_uint32)]


class Flow(ctypes.Structure):
    """struct ram_flow."""

    _fields_ = [
        ("local", _Address),
        ("remote", _Address),
        ("local_port", ctypes.c_uint16),
        ("remote_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint32),
    ]


class Hold(ctypes.Structure):
    """struct ram_hold."""

    _fields_ = [("since_ns", ctypes.c_uint64), ("queries", ctypes.c_uint32), ("zero", ctypes.c_uint32)]


class Responder(ctypes.Structure):
    """struct ram_responder."""

    _fields_ = [
        ("ipv4", _Address),
        ("ipv6", _Address),
        ("priority", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("zero", ctypes.c_uint16),
    ]


class Led(ctypes.Structure):
    """struct ram_led."""

    _fields_ = [
        ("time_ns", ctypes.c_uint64),
        ("address", _Address),
        ("scope", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("reason", ctypes.c_uint16),
    ]


class Stage(IntEnum):
    """enum ram_stage."""

    PASSES = 0
    UNANSWERED = 1
    UNNAMED = 2
    NAMED = 3
    CUT = 4
    TUNNELLED = 5
    DONE = 6


class Connection(ctypes.Structure):
    """struct ram_connection."""

    _fields_ = [
        ("rule", ctypes.c_uint32),
        ("stage", ctypes.c_uint32),
        ("start", ctypes.c_uint32),
        ("named", ctypes.c_uint32),
        ("identity", ctypes.c_uint64),
        ("generation", ctypes.c_uint32),
        ("port", ctypes.c_uint32),
    ]


class Peer(ctypes.Structure):
    """struct ram_peer."""

    _fields_ = [
        ("address", _Address),
        ("port", ctypes.c_uint16),
        ("local_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint16),
        ("set", ctypes.c_uint16),
        ("connection", Connection),
    ]


class Event(ctypes.Structure):
    """struct ram_event."""

    _fields_ = [
        ("time_ns", ctypes.c_uint64),
        ("cgroup_id", ctypes.c_uint64),
        ("socket_cookie", ctypes.c_uint64),
        ("address", _Address),
        ("pid", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("scope", ctypes.c_uint32),
        ("detail", ctypes.c_uint32),
        ("packet_len", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("dns_offset", ctypes.c_uint16),
        ("reason", ctypes.c_uint16),
        ("verdict", ctypes.c_uint8),
        ("hook", ctypes.c_uint8),
        ("protocol", ctypes.c_uint8),
        ("link_len", ctypes.c_uint8),
        ("beginning", ctypes.c_uint8),
        ("zero", ctypes.c_uint8),
        ("acknowledged", ctypes.c_uint32),
        ("comm", ctypes.c_char * COMM_LEN),
    ]


class Beginning(ctypes.Structure):
    """struct ram_beginning."""

    _fields_ = [
        ("gathered", ctypes.c_uint64),
        ("start", ctypes.c_uint32),
        ("held", ctypes.c_uint32),
        ("at", ctypes.c_uint32),
        ("part", ctypes.c_uint32),
        ("need", ctypes.c_uint32),
        ("skip", ctypes.c_uint32),
        ("record_left", ctypes.c_uint32),
        ("message_left", ctypes.c_uint32),
        ("outcome", ctypes.c_uint32),
        ("name_at", ctypes.c_uint32),
        ("name_length", ctypes.c_uint32),
        ("runs", ctypes.c_uint32),
        ("inner", ctypes.c_uint32),
        ("hello", ctypes.c_uint32),
        ("tunnel_port", ctypes.c_uint16),
        ("connects", ctypes.c_uint16),
        ("again", ctypes.c_uint8),
        ("may_follow", ctypes.c_uint8),
        ("early_data", ctypes.c_uint8),
        ("zero", ctypes.c_uint8),
        ("event", Event),
        ("flow", Flow),
        ("bytes", ctypes.c_uint8 * BEGINNING_ROOM),
    ]


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def pack_address(address: IPAddress) -> bytes:
    """The 16 bytes of an address, IPv4 as IPv4-mapped."""
    if isinstance(address, ipaddress.IPv4Address):
        return b"\0" * 10 + b"\xff\xff" + address.packed
    return address.packed


def unpack_address(packed: bytes) -> IPAddress:
    """The reverse of pack_address: an IPv4-mapped address becomes an IPv4 one."""
    address = ipaddress.IPv6Address(packed)
    return address.ipv4_mapped or address


def endpoint(address: IPAddress, port: int) -> bytes:
    """The key of `resolvers`."""
    return bytes(Endpoint(_Address.from_buffer_copy(pack_address(address)), port, 0))


def opening_key(address: IPAddress, port_list: int) -> bytes:
    """The key of `learned` and `seeded`."""
    return bytes(OpeningKey(_Address.from_buffer_copy(pack_address(address)), port_list))


def flow(local: IPAddress, local_port: int, remote: IPAddress, remote_port: int, protocol: int = 0) -> bytes:
    """The key of `inbound`, `held` and `released`; with a protocol that of `established`."""
    return bytes(
        Flow(
            _Address.from_buffer_copy(pack_address(local)),
            _Address.from_buffer_copy(pack_address(remote)),
            local_port,
            remote_port,
            protocol,
        )
    )


def range_key(network: ipaddress.IPv4Network | ipaddress.IPv6Network, number: int) -> bytes:
    """The key of `ranges` (with a port) and `private_ranges` (with a rule).

    The number is the first 32 bits of the prefix, so it always matches whole.
    """
    extra = 96 if isinstance(network, ipaddress.IPv4Network) else 0
    key = RangeKey(
        32 + extra + network.prefixlen,
        socket.htonl(number),
        _Address.from_buffer_copy(pack_address(network.network_address)),
    )
    return bytes(key)


def _described(structure: type[ctypes.Structure]) -> str:
    fields = (f"{field[0]}@{getattr(structure, field[0]).offset}" for field in structure._fields_)
    return f"{structure.__name__}:{ctypes.sizeof(structure)}:{','.join(fields)}"


_OUTLIVING = (
    *(Config, Rule, Peer, Connection),
    *(Flow, Hold, Beginning),
    *(OpeningKey, Opening, Alias, QueryKey, Query),
)
# What numbers in these structures mean. A stage of another name would let through what was cut.
_OUTLIVING_NUMBERS: tuple[type[IntEnum | IntFlag], ...] = (Stage, RuleFlag, OpeningFlag, RefusedList)


def _counted(numbers: type[IntEnum | IntFlag]) -> str:
    return f"{numbers.__name__}:{','.join(f'{item.name}={int(item)}' for item in numbers)}"


def layout_of(
    structures: Iterable[type[ctypes.Structure]], numbers: Iterable[type[IntEnum | IntFlag]]
) -> int:
    """A number that is another one when a field has another place, or a name another number."""
    return zlib.crc32("\n".join([*map(_described, structures), *map(_counted, numbers)]).encode())


LAYOUT = layout_of(_OUTLIVING, _OUTLIVING_NUMBERS)
"""Of the structures that one instance takes over from another one, and of the numbers in them; in the
`config` of both."""
