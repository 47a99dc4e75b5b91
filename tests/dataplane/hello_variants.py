"""ClientHellos that no client of today sends, made with scapy, and what is to become of each."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from scapy.layers.tls.extensions import (
    ServerName,
    TLS_Ext_ALPN,
    TLS_Ext_EncryptThenMAC,
    TLS_Ext_ExtendedMasterSecret,
    TLS_Ext_Padding,
    TLS_Ext_ServerName,
    TLS_Ext_SessionTicket,
    TLS_Ext_SignatureAlgorithms,
    TLS_Ext_SupportedGroups,
    TLS_Ext_SupportedVersion_CH,
    TLS_Ext_Unknown,
)
from scapy.layers.tls.handshake import TLS13ClientHello, TLSClientHello, TLSHelloRequest
from scapy.layers.tls.handshake_sslv2 import SSLv2ClientHello
from scapy.layers.tls.keyexchange_tls13 import (
    PSKBinderEntry,
    PSKIdentity,
    TLS_Ext_PreSharedKey_CH,
)
from scapy.layers.tls.record import TLS, TLSAlert, TLSChangeCipherSpec
from scapy.layers.tls.record_sslv2 import SSLv2
from scapy.packet import Packet

from ram_ebpf.dataplane.abi import Reason

ALLOWED, MISMATCH = Reason.ALLOWED_NAME, Reason.NAME_MISMATCH
STRANGE, WAITS = Reason.DENIED_NOT_NAMED, Reason.ALLOWED_ESTABLISHED
NO_NAME = STRANGE  # refused for the same reason
GOOD, EVIL = b"registry.test", b"a.evil.example"
# The longest that there may be, which "**.deep.test" allows.
LONGEST = b".".join([b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 51, b"deep.test"])
assert len(LONGEST) == 253


def named(*names: bytes, kind: int = 0, **fields: Any) -> Packet:
    """server_name; `fields`: lengths other than those that fit."""
    return TLS_Ext_ServerName(
        servernames=[ServerName(nametype=kind, servername=name) for name in names], **fields
    )


def others() -> list[Packet]:
    """Extensions as clients send them."""
    return [
        TLS_Ext_ExtendedMasterSecret(),
        TLS_Ext_SupportedGroups(groups=[29, 23, 24]),
        TLS_Ext_SignatureAlgorithms(sig_algs=[0x0403, 0x0804, 0x0401]),
        TLS_Ext_EncryptThenMAC(),
    ]


def usual() -> list[Packet]:
    """With an allowed name in front."""
    return [named(GOOD), *others()]


def message(extensions: Sequence[Packet] | None, **fields: Any) -> bytes:
    """A ClientHello. Without extensions there is no length of them either."""
    fields = {"version": 0x0303, "ciphers": [0x1301, 0xC02F, 0xC030], "sid": b"s" * 32, **fields}
    return bytes(TLSClientHello(ext=extensions, **fields))


def record(content: bytes, kind: int = 22, version: int = 0x0301, size: int | None = None) -> bytes:
    """One that says it is of some version, and has some size. By hand, as scapy makes none of no version."""
    return struct.pack("!BHH", kind, version, len(content) if size is None else size) + content


def hello(extensions: Sequence[Packet] | None, **fields: Any) -> bytes:
    """In a record of its own."""
    return record(message(extensions, **fields))


def split(content: bytes, *ends: int, between: bytes = b"") -> bytes:
    """In records that end there, with something between each two."""
    pieces = pairwise([0, *ends, len(content)])
    return between.join(record(content[begin:end]) for begin, end in pieces)


def unknown(kind: int, size: int = 0) -> Packet:
    """An extension of which nobody has heard."""
    return TLS_Ext_Unknown(type=kind, val=bytes(size))


PLAIN = message(usual())
NAME = PLAIN.index(GOOD)
CHANGE = bytes(TLS(version=0x0303, msg=[TLSChangeCipherSpec()]))
WARNING = bytes(TLS(version=0x0303, msg=[TLSAlert(level=1, descr=0)]))
REQUEST = bytes(TLSHelloRequest())

VERSIONS: dict[str, tuple[bytes, Reason]] = {
    **{
        f"{name}, record of {record_version:#06x}": (
            record(message(usual(), version=version), version=record_version),
            ALLOWED,
        )
        for name, version in (
            ("SSL 3.0", 0x0300),
            ("TLS 1.0", 0x0301),
            ("TLS 1.1", 0x0302),
            ("TLS 1.2", 0x0303),
        )
        for record_version in (0x0300, 0x0301, 0x0303, 0x0304)
    },
    "TLS 1.3": (
        record(
            bytes(
                TLS13ClientHello(
                    sid=b"s" * 32,
                    ciphers=[0x1301],
                    ext=[TLS_Ext_SupportedVersion_CH(versions=[0x0A0A, 0x0304]), *others(), named(GOOD)],
                )
            )
        ),
        ALLOWED,
    ),
    "a version that is none yet": (hello(usual(), version=0x03FF), ALLOWED),
    "version 2.0 inside": (hello(usual(), version=0x0200), STRANGE),
    "version 4.0 inside": (hello(usual(), version=0x0400), STRANGE),
    "a draft's version inside": (hello(usual(), version=0x7F1C), STRANGE),
    "a record of version 2.0": (record(PLAIN, version=0x0200), STRANGE),
    "a record of DTLS 1.2": (record(PLAIN, version=0xFEFD), STRANGE),
    "SSL 2.0": (bytes(SSLv2(msg=SSLv2ClientHello(version=0x0303, challenge=b"c" * 32))), STRANGE),
    "SSL 2.0 with a header of three bytes": (
        b"\x00\x2f\x00" + bytes(SSLv2(msg=SSLv2ClientHello(version=0x0303, challenge=b"c" * 32)))[2:],
        STRANGE,
    ),
    "SSL 2.0 with a name inside": (
        bytes(SSLv2(msg=SSLv2ClientHello(version=0x0303, challenge=PLAIN[:32]))) + record(PLAIN),
        STRANGE,
    ),
}

FIELDS: dict[str, tuple[bytes, Reason]] = {
    "no session": (hello(usual(), sid=b""), ALLOWED),
    "a session of one byte": (hello(usual(), sid=b"s"), ALLOWED),
    "a session of 33 bytes": (hello(usual(), sid=b"s" * 33), STRANGE),
    "a session of 255 bytes": (hello(usual(), sid=b"s" * 255), STRANGE),
    "no ciphers": (hello(usual(), ciphers=[]), ALLOWED),
    "a cipher and a half": (hello(usual(), cipherslen=3, ciphers=[0x1301], comp=[0, 1, 0]), STRANGE),
    "1000 ciphers": (hello(usual(), ciphers=list(range(1000))), ALLOWED),
    "no compression": (hello(usual(), comp=[]), ALLOWED),
    "255 ways to compress": (hello(usual(), comp=[0] * 255), ALLOWED),
}

EXTENSIONS: dict[str, tuple[bytes, Reason]] = {
    "none, and no length of them": (hello(None), NO_NAME),
    "none": (hello([], extlen=0), NO_NAME),
    "one without a name": (hello([unknown(0x0A0A)]), NO_NAME),
    "one of padding that holds a whole ClientHello": (
        hello([TLS_Ext_Padding(padding=record(PLAIN))]),
        NO_NAME,
    ),
    "the name alone": (hello([named(GOOD)]), ALLOWED),
    "the name last": (hello([*others(), named(GOOD)]), ALLOWED),
    "the name in the middle": (hello([*others(), named(GOOD), *others()]), ALLOWED),
    "another name alone": (hello([named(EVIL)]), MISMATCH),
    "another name last": (hello([*others(), named(EVIL)]), MISMATCH),
    "another name in the ALPN": (hello([TLS_Ext_ALPN(protocols=[EVIL]), named(GOOD)]), ALLOWED),
    "100 in front of the name": (hello([*(unknown(0x4000 + at) for at in range(100)), named(GOOD)]), ALLOWED),
    "300 in front of the name": (hello([*(unknown(0x4000 + at) for at in range(300)), named(GOOD)]), ALLOWED),
    "100 behind the name": (hello([named(GOOD), *(unknown(0x4000 + at) for at in range(100))]), ALLOWED),
    "100 behind another name": (hello([named(EVIL), *(unknown(0x4000 + at) for at in range(100))]), MISMATCH),
    "an empty ticket": (hello([TLS_Ext_SessionTicket(), named(GOOD)]), ALLOWED),
    "a ticket in front": (hello([TLS_Ext_SessionTicket(ticket=b"t" * 200), named(GOOD)]), ALLOWED),
    "a long ticket in front": (hello([TLS_Ext_SessionTicket(ticket=b"t" * 3000), named(GOOD)]), ALLOWED),
    "too long a ticket in front": (hello([TLS_Ext_SessionTicket(ticket=b"t" * 4096), named(GOOD)]), STRANGE),
    "a long ticket at the end": (hello([named(GOOD), TLS_Ext_SessionTicket(ticket=b"t" * 6000)]), ALLOWED),
    "too long a ticket behind the name": (
        hello([named(GOOD), TLS_Ext_SessionTicket(ticket=b"t" * 4096), *others()]),
        STRANGE,
    ),
    "too long a ticket behind another name": (
        hello([named(EVIL), TLS_Ext_SessionTicket(ticket=b"t" * 4096), *others()]),
        MISMATCH,
    ),
    "a ticket of TLS 1.3": (
        hello(
            [
                *others(),
                named(GOOD),
                TLS_Ext_PreSharedKey_CH(
                    identities=[PSKIdentity(identity=b"i" * 2000)], binders=[PSKBinderEntry(binder=b"b" * 32)]
                ),
            ]
        ),
        ALLOWED,
    ),
}

NAMES: dict[str, tuple[bytes, Reason]] = {
    "in upper case": (hello([named(GOOD.upper())]), ALLOWED),
    "with a dot at its end": (hello([named(GOOD + b".")]), ALLOWED),
    "with two dots at its end": (hello([named(GOOD + b"..")]), MISMATCH),
    "with a dot in front": (hello([named(b"." + GOOD)]), MISMATCH),
    "a dot alone": (hello([named(b".")]), MISMATCH),
    "with a zero at its end": (hello([named(GOOD + b"\0")]), MISMATCH),
    "with a zero and another name": (hello([named(GOOD + b"\0." + EVIL)]), MISMATCH),
    "behind another one and a zero": (hello([named(EVIL + b"\0" + b"a.deep.test")]), MISMATCH),
    "with a port": (hello([named(GOOD + b":443")]), MISMATCH),
    "with a space": (hello([named(b" " + GOOD)]), MISMATCH),
    "with a line end": (hello([named(GOOD + b"\r\n")]), MISMATCH),
    "in UTF-8": (hello([named("régistry.test".encode())]), MISMATCH),
    "in UTF-16": (hello([named(GOOD.decode().encode("utf-16-be"))]), MISMATCH),
    "an address": (hello([named(b"198.51.100.7")]), MISMATCH),
    "a wildcard": (hello([named(b"*.test")]), MISMATCH),
    "empty": (hello([named(b"")]), STRANGE),
    "the longest": (hello([named(LONGEST)]), ALLOWED),
    "the longest of another domain": (hello([named(LONGEST[:-9] + b"evil.test")]), MISMATCH),
    "one byte longer": (hello([named(b"a" + LONGEST)]), STRANGE),
    "of 255 bytes": (hello([named(b"aa" + LONGEST)]), STRANGE),
    "of 3000 bytes": (hello([named(b"a." * 1495 + b"deep.test")]), STRANGE),
    "of another type": (hello([named(GOOD, kind=1)]), STRANGE),
    "of type 255": (hello([named(GOOD, kind=255)]), STRANGE),
    "an empty list": (hello([named()]), STRANGE),
    "an empty extension": (hello([unknown(0), *others()]), STRANGE),
    "an empty extension at the end": (hello([*others(), unknown(0)]), STRANGE),
    "twice the same in the list": (hello([named(GOOD, GOOD)]), STRANGE),
    "another behind it in the list": (hello([named(GOOD, EVIL)]), STRANGE),
    "another in front of it in the list": (hello([named(EVIL, GOOD)]), STRANGE),
    "a nameless type in front of it in the list": (
        hello(
            [
                TLS_Ext_ServerName(
                    servernames=[ServerName(nametype=1, servername=EVIL), ServerName(servername=GOOD)]
                )
            ]
        ),
        STRANGE,
    ),
    "twice": (hello([named(GOOD), *others(), named(GOOD)]), ALLOWED),
    "twice, one behind the other": (hello([named(GOOD), named(GOOD), *others()]), ALLOWED),
    "two that are allowed": (hello([named(GOOD), *others(), named(b"a.deep.test")]), ALLOWED),
    "and another at the end": (hello([named(GOOD), *others(), named(EVIL)]), MISMATCH),
    "and another behind it": (hello([named(GOOD), named(EVIL), *others()]), MISMATCH),
    "and another in front of it": (hello([named(EVIL), named(GOOD), *others()]), MISMATCH),
    "and another as the third": (hello([named(GOOD), named(GOOD), *others(), named(EVIL)]), MISMATCH),
    "and another on another port": (hello([named(GOOD), *others(), named(b"other.test")]), MISMATCH),
    "and one that is none": (hello([named(GOOD), *others(), named(EVIL, kind=1)]), STRANGE),
    "and two in a list": (hello([named(GOOD), *others(), named(GOOD, EVIL)]), STRANGE),
    "and an empty one": (hello([named(GOOD), *others(), named(b"")]), STRANGE),
    "and another behind a long ticket": (
        hello([named(GOOD), TLS_Ext_SessionTicket(ticket=b"t" * 3000), named(EVIL)]),
        MISMATCH,
    ),
    "and another too far behind": (
        hello([named(GOOD), TLS_Ext_SessionTicket(ticket=b"t" * 5000), named(EVIL)]),
        STRANGE,
    ),
}

RECORDS: dict[str, tuple[bytes, Reason]] = {
    "two": (split(PLAIN, 20), ALLOWED),
    "two with another name": (split(message([*others(), named(EVIL)]), 20), MISMATCH),
    "of a byte each in front of the name": (split(PLAIN, *range(1, NAME), NAME + len(GOOD)), ALLOWED),
    "of a byte each behind the name": (split(PLAIN, *range(NAME + len(GOOD), len(PLAIN))), ALLOWED),
    "of a byte each behind another name": (
        split(message([named(EVIL), *others()]), *range(NAME + len(EVIL), NAME + len(EVIL) + 30)),
        MISMATCH,
    ),
    "of a byte each": (split(PLAIN, *range(1, len(PLAIN))), STRANGE),
    "of a byte for its header": (split(PLAIN, 1, 2, 3, 4), ALLOWED),
    "ends in front of the name": (split(PLAIN, NAME), STRANGE),
    "ends in the name": (split(PLAIN, NAME + 5), STRANGE),
    "ends behind the name": (split(PLAIN, NAME + len(GOOD)), ALLOWED),
    "ends in the second name": (
        split(
            message([named(GOOD), *others(), named(EVIL)]),
            -5 % len(message([named(GOOD), *others(), named(EVIL)])),
        ),
        STRANGE,
    ),
    "of no bytes in front": (record(b"") + record(PLAIN), STRANGE),
    "of no bytes between": (split(PLAIN, 20, between=record(b"")), STRANGE),
    "of no bytes behind the name": (split(PLAIN, NAME + len(GOOD), between=record(b"")), STRANGE),
    "ChangeCipherSpec in front": (CHANGE + record(PLAIN), STRANGE),
    "ChangeCipherSpec between": (split(PLAIN, 20, between=CHANGE), STRANGE),
    "ChangeCipherSpec behind the name": (split(PLAIN, NAME + len(GOOD), between=CHANGE), STRANGE),
    "a warning in front": (WARNING + record(PLAIN), STRANGE),
    "a warning between": (split(PLAIN, 20, between=WARNING), STRANGE),
    "a warning behind the name": (split(PLAIN, NAME + len(GOOD), between=WARNING), STRANGE),
    "application data between": (split(PLAIN, 20, between=record(b"x", 23)), STRANGE),
    "a heartbeat between": (split(PLAIN, 20, between=record(b"\1\0\0", 24)), STRANGE),
    "a type that is none between": (split(PLAIN, 20, between=record(b"x", 99)), STRANGE),
    "a version that is none between": (split(PLAIN, 20, between=record(b"x", version=0x0201)), STRANGE),
    "a HelloRequest in front": (record(REQUEST) + record(PLAIN), STRANGE),
    "a HelloRequest in the same one": (record(REQUEST + PLAIN), STRANGE),
    "a request of HTTP behind it": (
        record(PLAIN) + b"GET / HTTP/1.1\r\nHost: a.evil.example\r\n\r\n",
        ALLOWED,
    ),
}

# What is longer or shorter than it is said to be. None of these is let through, or would be answered.
LIES: dict[str, tuple[bytes, Reason]] = {
    "a record of 65535 bytes": (record(PLAIN, size=65535), STRANGE),
    "a record of 16385 bytes": (record(PLAIN, size=16385), STRANGE),
    "a record of 16384 bytes": (record(PLAIN, size=16384), ALLOWED),
    "a record that is a byte longer": (record(PLAIN, size=len(PLAIN) + 1), ALLOWED),
    "a record that ends in the last extension": (
        hello([named(GOOD), *others(), TLS_Ext_Padding(padding=bytes(9))])[:-1],
        ALLOWED,
    ),
    "a record that is shorter": (record(PLAIN, size=len(PLAIN) - 20), STRANGE),
    "a message that is a byte longer": (hello(usual(), msglen=len(PLAIN) - 4 + 1), STRANGE),
    "a message that is a byte shorter": (hello(usual(), msglen=len(PLAIN) - 4 - 1), STRANGE),
    "a message of no bytes": (hello(usual(), msglen=0), STRANGE),
    "a message of 16 MiB": (hello(usual(), msglen=0xFFFFFF), STRANGE),
    "a message that ends in front of the extensions": (hello(usual(), msglen=34 + 33 + 8 + 2), NO_NAME),
    "extensions that are a byte longer": (hello(usual(), extlen=len(PLAIN)), STRANGE),
    "extensions of no bytes": (hello(usual(), extlen=0), STRANGE),
    "a session of 31 bytes": (hello(usual(), sidlen=31), STRANGE),
    "a session that reaches into what follows": (hello(usual(), sid=b"", sidlen=32), STRANGE),
    "ciphers that are longer": (hello(usual(), cipherslen=8), STRANGE),
    "ciphers of 65535 bytes": (hello(usual(), cipherslen=65535), STRANGE),
    "compression that is longer": (hello(usual(), complen=3), STRANGE),
    "an extension that is longer": (
        hello([TLS_Ext_SessionTicket(ticket=b"tt", len=5), named(GOOD)]),
        STRANGE,
    ),
    "an extension that hides the name": (
        hello([TLS_Ext_SessionTicket(ticket=b"tt", len=2 + 18 + 4), named(GOOD), unknown(0x0A0A)]),
        NO_NAME,
    ),
    "an extension that is shorter": (
        hello([TLS_Ext_SessionTicket(ticket=b"tttt", len=2), named(GOOD)]),
        STRANGE,
    ),
    "an extension of 65535 bytes": (
        hello([named(GOOD), TLS_Ext_SessionTicket(ticket=b"tt", len=65535)]),
        STRANGE,
    ),
    "server_name that is longer": (hello([named(GOOD, len=30), *others()]), STRANGE),
    "server_name that is shorter": (hello([named(GOOD, len=10), *others()]), STRANGE),
    "a list that is longer": (hello([named(GOOD, servernameslen=30), *others()]), STRANGE),
    "a list that is shorter": (hello([named(GOOD, servernameslen=10), *others()]), STRANGE),
    "a list of no bytes": (hello([named(GOOD, servernameslen=0), *others()]), STRANGE),
    "a name that is longer": (
        hello([TLS_Ext_ServerName(servernames=[ServerName(servername=GOOD, namelen=20)]), *others()]),
        STRANGE,
    ),
    "a name that is shorter": (
        hello(
            [TLS_Ext_ServerName(servernames=[ServerName(servername=GOOD + b".evil", namelen=13)]), *others()]
        ),
        STRANGE,
    ),
    "a name of 65535 bytes": (
        hello([TLS_Ext_ServerName(servernames=[ServerName(servername=GOOD, namelen=65535)]), *others()]),
        STRANGE,
    ),
}

ALL = {
    f"{title}: {case}": found
    for title, cases in (
        ("version", VERSIONS),
        ("field", FIELDS),
        ("extensions", EXTENSIONS),
        ("name", NAMES),
        ("records", RECORDS),
        ("lie", LIES),
    )
    for case, found in cases.items()
}
"""By a name for each: the bytes, and what they are to come to."""
