"""DNS exchanges for the differential test: right, nearly right, and changed at random.

Hypothesis draws whole exchanges, record by record. Each is then changed many times over by a seeded random
generator, which is a hundred times as fast.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from itertools import pairwise

from hypothesis import strategies as st

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import NameRule, RuleSet, compile_rules

from .messages import AAAA, ANY, CH, CNAME, HTTPS, IN, OPT_RECORD, QR, RD, RESPONSE, TC, TXT, A
from .reference import HEADER, SVCB, Case, Labels, Lead, Opened

DNAME = 39
MAX_MESSAGE = 3400
"""A test run takes a packet of one page with what the kernel puts around it."""

_POLICY = """
version: 1
registries:
  - host: registry.test
  - host: other.test
    ports: [443, 5000]
  - host: docker.io
  - host: "*.one.test"
  - host: "img-*.one.test"
    ports: [5001]
  - host: "**.deep.test"
  - host: "*.deep.test"
    ports: [5002]
  - host: exact.deep.test
    ports: [5000]
    private: true
  - host: inside.test
    private: [10.0.0.0/8, 192.168.7.0/24, "fd00::/8", "64:ff9b::a00:0/104"]
  - host: wide.test
    private: ["::/0"]
  - host: "a-*-b.x.*.glob.test"
  - host: "**.z"
denied: [bad.one.test, "*.no.deep.test", img-9.one.test, "**.evil.z"]
"""


def policy_rules() -> RuleSet:
    """The policy of the test: every kind of pattern, exceptions, and private addresses."""
    return compile_rules(parse_policy(_POLICY.encode(), "policy.yaml"), load_catalogue())


_LISTED = (
    "registry.test", "registry.test", "other.test", "docker.io", "x.one.test", "img-7.one.test",
    "a.deep.test", "a.b.c.deep.test", "exact.deep.test", "exact.deep.test", "inside.test", "inside.test",
    "wide.test", "a-foo-b.x.q.glob.test", "q.z",
)  # fmt: skip
_UNLISTED = (
    "evil.example", "one.test", "x.docker.io", "bad.one.test", "img-9.one.test", "x.no.deep.test", "q.evil.z",
    "a-b.x.q.glob.test", "test",
)  # fmt: skip


def _labels(name: str) -> Labels:
    return tuple(label.encode() for label in name.split(".")) if name else ()


_LONGEST: Labels = (*[b"a" * 63] * 3, b"b" * 51, b"deep", b"test")
_MOST_LABELS: Labels = tuple([b"z"] * 127)
_ODD: tuple[Labels, ...] = (
    (),
    (b"docker.io",),
    (b"x\0y", b"deep", b"test"),
    (b"x.y", b"one", b"test"),
    (b"\xe9", b"deep", b"test"),
)
_TARGETS: tuple[Labels, ...] = (
    *map(_labels, ("cdn.example", "edge.cdn.example", "fra.edge.cdn.example", "registry.test", "y.one.test")),
    *map(_labels, ("example", "a.very.long.chain.of.labels.example", "_443._https.registry.test")),
    (),
    _LONGEST,
    _MOST_LABELS,
    (b"c" * 63, b"example"),
    (b"o" * 15, b"example"),
    (b"p" * 16, b"example"),
)
_ADDRESSES = tuple(
    ip_address(text).packed
    for text in (
        "192.0.2.1", "192.0.2.2", "198.51.100.7", "203.0.113.200", "8.8.8.8", "223.255.255.255", "10.0.0.1",
        "10.255.255.255", "11.0.0.0", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.32.0.1",
        "192.168.7.7", "192.168.8.8", "100.64.0.1", "168.63.129.16", "168.63.129.17", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "192.0.0.9", "192.0.1.0",
    )
)  # fmt: skip
_ADDRESSES6 = tuple(
    ip_address(text).packed
    for text in (
        "2001:db8:1::1", "2001:db8:1::2", "2606:4700::1", "::1", "::", "::2", "fd00::1", "fc00::1", "fe80::1",
        "fec0::1", "ff02::1", "::ffff:192.0.2.1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1",
        "64:ff9b::808:808", "64:ff9b::7f00:1", "2002:a00:1::1", "2002:808:808::1", "::10.0.0.1",
    )
)  # fmt: skip
_TTLS = (300, 300, 60, 20, 0, 1, 2, 86399, 86400, 86401, 0x7FFFFFFF, 0x80000000, 0x8000012C, 0xFFFFFFFF)


# How a name is written into a message.

_WILD = (
    b"\xc0\x0c", b"\xc0\x00", b"\xc0\x04", b"\xc0\x0b", b"\xff\xff", b"\xc0", b"\x40", b"\x80", b"",
    b"\xbf" + b"a" * 63, b"\x3f" + b"a" * 63, (b"\x3f" + b"b" * 63) * 4 + b"\0", b"\x01a" * 127 + b"\0",
    b"\x01a" * 128 + b"\0",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Writing:
    """How a name is written: how many labels, and behind them its end or a pointer to the rest of it."""

    written: int = 0
    earlier: int = 0
    """Which of the places where the rest already stands; the question's is the first."""
    case: int = 0
    """Bits that turn letters into capitals."""
    wild: bytes | None = None
    """Instead of the rest."""
    jump: int | None = None
    """Instead of the rest, a pointer to so far from itself."""


_writings = st.one_of(
    st.just(_Writing()),
    st.builds(_Writing, st.just(0), st.integers(0, 7)),
    st.builds(_Writing, st.integers(0, 4), st.integers(0, 7), st.integers(0, 255)),
    st.builds(_Writing, st.just(255), case=st.integers(0, 255)),
)
_wild_writings = st.one_of(
    st.builds(_Writing, st.integers(0, 3), wild=st.sampled_from(_WILD)),
    st.builds(_Writing, st.integers(0, 3), jump=st.integers(-60, 40)),
)


class _Writer:
    """A message under way, and where in it names stand."""

    def __init__(self) -> None:
        self.out = bytearray(HEADER)
        self.places: dict[Labels, list[int]] = {}
        self.marks: list[int] = [0, 2, 3, 4, 6]
        """Places at which to change something: names, fixed fields, lengths."""
        self.records: list[int] = []
        """Where records begin, and where the last one ends."""

    def name(self, labels: Labels, writing: _Writing) -> None:
        """Writes a name."""
        canonical = tuple(label.lower() for label in labels)
        self.marks.append(len(self.out))
        for index in range(len(labels) + 1):
            rest = canonical[index:]
            places = self.places.get(rest)
            if index >= writing.written:
                if writing.wild is not None:
                    self.out += writing.wild
                    return
                if writing.jump is not None:
                    self._pointer(len(self.out) + writing.jump)
                    return
                if places and places[0] < 0x4000 and (rest or writing.case & 1):
                    self.marks.append(len(self.out))
                    target = places[writing.earlier % len(places)]
                    places.append(len(self.out))
                    self._pointer(target)
                    return
            self.places.setdefault(rest, []).append(len(self.out))
            if index < len(labels):
                self._label(labels[index], writing.case)
        self.out.append(0)

    def _label(self, label: bytes, case: int) -> None:
        self.out.append(len(label))
        for position, octet in enumerate(label):
            letter = 0x61 <= octet <= 0x7A
            self.out.append(octet - 0x20 if letter and case >> position % 8 & 1 else octet)

    def _pointer(self, target: int) -> None:
        self.out += struct.pack("!H", 0xC000 | target & 0x3FFF)


# Records, with the names in them still apart.


@dataclass(frozen=True, slots=True)
class _Record:
    rtype: int
    owner: Labels
    ttl: int = 300
    data: tuple[bytes | tuple[Labels, _Writing], ...] = ()
    writing: _Writing = _Writing()
    rclass: int = IN
    excess: int = 0
    """Of RDLENGTH over the length of the data."""

    def write(self, writer: _Writer) -> None:
        """Into the message."""
        writer.records.append(len(writer.out))
        writer.name(self.owner, self.writing)
        head = len(writer.out)
        writer.marks += (head, head + 2, head + 4, head + 8, head + 9)
        writer.out += bytes(10)
        for part in self.data:
            if isinstance(part, bytes):
                writer.marks.append(len(writer.out))
                writer.out += part
            else:
                writer.name(*part)
        length = max(len(writer.out) - head - 10 + self.excess, 0)
        struct.pack_into("!HHIH", writer.out, head, self.rtype, self.rclass, self.ttl, length & 0xFFFF)


@dataclass(frozen=True, slots=True)
class _Plan:
    """A record as it is drawn: what it is, before it is known which names it is about."""

    kind: str
    pick: int
    ttl: int
    owner: int
    writing: _Writing
    target: _Writing
    count: int


_plans = st.builds(
    _Plan,
    st.sampled_from(
        ["main"] * 22 + ["cname"] * 6 + ["address", "service", "other", "dname", "class", "wrong"]
    ),
    st.integers(0, 255),
    st.sampled_from(_TTLS),
    st.sampled_from([0] * 20 + [1, 2, 3, 4]),
    _writings,
    _writings,
    st.sampled_from([1] * 12 + [2, 3, 5, 9]),
)


def _params(pick: int, count: int, chooser: random.Random) -> bytes:
    """SvcParams (RFC 9460 2.2), now and then in the wrong order or with the wrong length."""
    parts = []
    for _ in range(chooser.choice((0, 1, 1, 2, 3))):
        key = chooser.choice((4, 4, 4, 6, 6, 1, 3, 0, 2, 5, 7, 0xFFFF))
        if key == 4:
            value = b"".join(chooser.choices(_ADDRESSES, k=count))
        elif key == 6:
            value = b"".join(chooser.choices(_ADDRESSES6, k=count))
        else:
            value = {0: b"\0\4", 1: b"\2h2", 2: b"", 3: b"\1\xbb"}.get(key, b"value")
        if chooser.random() < 0.04:
            value = chooser.choice((value[:-1], value + b"\1", value + b"\xff\xff\0\0"))
        length = len(value) + (chooser.choice((-1, 1, 4)) if chooser.random() < 0.03 else 0)
        parts.append((key, struct.pack("!2H", key, length & 0xFFFF) + value))
    if pick % 8:
        parts.sort()
    return b"".join(part for _, part in parts)


class _Composer:
    """Turns plans into records: follows the chain that they make."""

    def __init__(self, question: Labels, qtype: int, seed: int) -> None:
        self.current = self.question = question
        self.qtype = qtype
        self.chooser = random.Random(seed)
        self.records: list[_Record] = []

    def add(self, plan: _Plan) -> None:
        """One plan, perhaps as several records."""
        owner = (self.current, self.question, *_TARGETS[:3])[plan.owner]
        getattr(self, f"_{plan.kind}")(plan, owner)

    def _put(self, plan: _Plan, owner: Labels, rtype: int, *data: bytes | tuple[Labels, _Writing]) -> None:
        self.records.append(_Record(rtype, owner, plan.ttl, data, plan.writing))

    def _of_type(self, plan: _Plan) -> int:
        """An address type, most often that of the question."""
        if plan.pick % 4 and self.qtype in (A, AAAA):
            return self.qtype
        return AAAA if plan.pick & 8 else A

    def _packed(self, rtype: int, number: int) -> bytes:
        if self.chooser.random() < 0.5:
            return (
                bytes((192, 0, 2, number & 255))
                if rtype == A
                else b"\x20\1\r\xb8" + bytes(11) + bytes((number & 255,))
            )
        pool = _ADDRESSES if rtype == A else _ADDRESSES6
        return self.chooser.choice(pool)

    def _main(self, plan: _Plan, owner: Labels) -> None:
        """What was asked for."""
        if self.qtype in (HTTPS, SVCB):
            self._service(plan, owner)
        else:
            self._address(plan, owner)

    def _wrong(self, plan: _Plan, owner: Labels) -> None:
        if plan.pick & 1:
            self._target(plan, owner)
        else:
            self._length(plan, owner)

    def _address(self, plan: _Plan, owner: Labels) -> None:
        rtype = self._of_type(plan)
        for number in range(plan.count):
            self._put(plan, owner, rtype, self._packed(rtype, plan.pick + number))

    def _cname(self, plan: _Plan, owner: Labels) -> None:
        target = _TARGETS[plan.pick % len(_TARGETS)]
        self._put(plan, owner, CNAME, (target, plan.target))
        if owner == self.current:
            self.current = target

    def _service(self, plan: _Plan, owner: Labels) -> None:
        rtype = self.qtype if self.qtype in (HTTPS, SVCB) and plan.pick % 16 else HTTPS
        priority = bytes((0, plan.pick % 3))
        target = _TARGETS[plan.pick % len(_TARGETS)] if plan.pick & 64 else ()
        # RFC 9460 2.2: not compressed, and yet it is now and then.
        writing = plan.target if plan.pick % 5 == 0 else _Writing(255)
        params = _params(plan.pick, plan.count, self.chooser)
        self._put(plan, owner, rtype, priority, (target, writing), params)

    def _other(self, plan: _Plan, owner: Labels) -> None:
        rtype = (TXT, 2, 6, 46, 33, 99, 0, 0xFFFF)[plan.pick % 8]
        self._put(plan, owner, rtype, b"\4text" * (plan.pick % 3))

    def _dname(self, plan: _Plan, owner: Labels) -> None:
        """With the CNAME record that goes with it (RFC 6672 3.1)."""
        target = _TARGETS[plan.pick % 6]
        self._put(plan, owner[1:], DNAME, (target, _Writing(255)))
        made = (*owner[:1], *target)
        if sum(map(len, made)) + len(made) < abi.NAME_MAX:
            self._put(plan, owner, CNAME, (made, plan.target))
            self.current = made

    def _class(self, plan: _Plan, owner: Labels) -> None:
        rtype = self._of_type(plan)
        rclass = (CH, 0, 255, 0x0101)[plan.pick % 4]
        self.records.append(
            _Record(rtype, owner, plan.ttl, (self._packed(rtype, plan.pick),), plan.writing, rclass)
        )

    def _length(self, plan: _Plan, owner: Labels) -> None:
        """Data of the wrong length, or a length that lies."""
        rtype = self._of_type(plan)
        data = self._packed(rtype, plan.pick)
        excess = (0, 0, -1, 1, -4, 12, 300, 0xFFFF)[plan.pick % 8]
        if not excess:
            data = data[:-1] if plan.pick & 8 else data + b"\0"
        self.records.append(_Record(rtype, owner, plan.ttl, (data,), plan.writing, excess=excess))

    def _target(self, plan: _Plan, owner: Labels) -> None:
        """A CNAME record whose length lies."""
        target = _TARGETS[plan.pick % 4]
        data = ((target, plan.target),)
        self.records.append(
            _Record(CNAME, owner, plan.ttl, data, plan.writing, excess=(1, -1, 2, -2)[plan.pick % 4])
        )
        self.current = target


@dataclass(frozen=True, slots=True)
class Drawn:
    """An exchange, and what the changes need to know of its reply."""

    case: Case
    marks: tuple[int, ...] = field(default=(), repr=False)
    records: tuple[int, ...] = field(default=(), repr=False)
    question_end: int = HEADER


_names = st.sampled_from(
    [*map(_labels, _LISTED)] * 8 + [_LONGEST, _MOST_LABELS] * 3 + [*map(_labels, _UNLISTED)] + [*_ODD]
)
_unlisted = st.sampled_from([*map(_labels, _UNLISTED)])
_query_oddities = st.sampled_from([0] * 150 + [99] * 60 + [1, 2, 3, 4, 5])
_reply_oddities = st.sampled_from([0] * 120 + [1] * 5 + [2, 3, 4, 5, 6, 7, 8, 9, 9, 9])
_many_kinds = st.sampled_from([0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 7])
_cuts = st.sampled_from([0] * 80 + [1, 2, 3, 4, 5])


@st.composite
def exchanges(draw: st.DrawFn, tables: Tables) -> Drawn:
    """A query and its reply."""
    known = draw(st.sampled_from([*range(11)] + [11] * 10))
    name = draw(_unlisted if known < 5 and known % 2 else _names)
    qtype = draw(st.sampled_from([A] * 50 + [AAAA] * 20 + [HTTPS] * 20 + [SVCB] * 6 + [TXT, ANY, CNAME]))
    odd = draw(_query_oddities)
    writing = _Writing(255, case=draw(st.integers(0, 255)))
    query = _query(name, qtype, writing, odd)
    composer = _Composer(name, qtype, draw(st.integers(0, 1 << 32)))
    size = draw(st.sampled_from([1] * 40 + [0, 2, 2, 2]))
    if size < 2:
        for plan in draw(st.lists(_plans, min_size=size, max_size=8)):
            composer.add(plan)
    else:
        _many(composer, draw(_many_kinds), draw(st.sampled_from([30, 60, 100, 200, 700, 700])))
    records = composer.records
    if draw(st.sampled_from([0] * 6 + [1])):
        records = draw(st.permutations(records))
    if draw(st.sampled_from([0] * 9 + [1])) and records:
        at = draw(st.integers(0, len(records) - 1))
        wild = draw(_wild_writings)
        record = records[at]
        if record.rtype == CNAME and draw(st.booleans()):
            records = [*records[:at], replace(record, data=((name, wild),)), *records[at + 1 :]]
        else:
            records = [*records[:at], replace(record, writing=wild), *records[at + 1 :]]
    drawn = _reply(
        name, qtype, draw(st.integers(0, 255)), draw(_reply_oddities), records, draw(st.integers(0, 7))
    )
    alias, lead = _lead(known, name, composer.chooser, tables)
    case = replace(
        drawn.case,
        query=query,
        ipv6=draw(st.booleans()),
        alias=alias,
        lead=lead,
        openings=_openings(known, records, composer.chooser, tables),
    )
    return replace(drawn, case=_cut(case, draw(_cuts)))


def _query(name: Labels, qtype: int, writing: _Writing, odd: int) -> bytes:
    writer = _Writer()
    flags, questions, qclass, additional = RD, 1, IN, 0
    if odd == 1:
        flags |= (QR, 5 << 11, 1 << 11)[len(name) % 3]
    elif odd == 2:
        questions = len(name) % 2 * 2
    elif odd == 3:
        qclass = CH
    elif odd == 4:
        writing = replace(writing, written=len(name) // 2, jump=-4)
    writer.name(name, writing)
    writer.out += struct.pack("!2H", qtype, qclass)
    if odd == 5:
        writer.out = writer.out[:-3]
    elif odd > 20:
        writer.out += OPT_RECORD
        additional = 1
    struct.pack_into("!6H", writer.out, 0, 7, flags, questions, 0, 0, additional)
    return bytes(writer.out)


def _reply(name: Labels, qtype: int, case: int, odd: int, records: Sequence[_Record], tail: int) -> Drawn:
    writer = _Writer()
    writer.marks += (HEADER, HEADER + 1)
    flags, questions, qclass, identity = RESPONSE, 1, IN, 7
    if odd == 1:
        flags |= TC
    elif odd == 2:
        flags |= (case % 15) + 1
    elif odd == 3:
        flags = (RD, RESPONSE | 5 << 11, RESPONSE | 1 << 11)[case % 3]
    elif odd == 4:
        questions = case % 2 * 2
    elif odd == 5:
        qclass = CH
    elif odd == 6:
        identity = 8
    elif odd == 7:
        name = _labels(_LISTED[case % len(_LISTED)])
    elif odd == 8:
        qtype = (A, AAAA, HTTPS)[case % 3]
    writer.name(name, _Writing(255, case=case))
    writer.out += struct.pack("!2H", qtype, qclass)
    end = len(writer.out)
    if odd == 4 and questions:
        writer.name(name, _Writing())
        writer.out += struct.pack("!2H", qtype, qclass)
    count = 0
    for record in records:
        before = len(writer.out)
        record.write(writer)
        if len(writer.out) > MAX_MESSAGE:
            del writer.out[before:]
            writer.records.pop()
            break
        count += 1
    writer.records.append(len(writer.out))
    writer.marks = [mark for mark in writer.marks if mark < len(writer.out)]
    if odd == 9:
        count = max(count + (-1, 1, 2, 0xFFFF)[case % 4], 0)
    authority = additional = 0
    if tail in (1, 2):  # a record of the authority section: not an answer
        _Record(2, name, data=((_TARGETS[0], _Writing()),)).write(writer)
        authority = 1
    if tail in (2, 3):
        _Record(A, _TARGETS[0], data=(_ADDRESSES[2],)).write(writer)
        writer.out += OPT_RECORD
        additional = 2
    struct.pack_into("!6H", writer.out, 0, identity, flags, questions, count & 0xFFFF, authority, additional)
    return Drawn(Case(b"", bytes(writer.out)), tuple(writer.marks), tuple(writer.records), end)


def _many(composer: _Composer, kind: int, count: int) -> None:
    """As many records, or hints, as a message holds; some are more than is walked."""
    current = composer.current
    if composer.qtype in (HTTPS, SVCB):
        addresses = b"".join(bytes((192, 0, n >> 8, n & 255)) for n in range(count))
        for _ in range(1 + (kind == 1)):
            data = (
                b"\0\1",
                (_TARGETS[kind], _Writing(255)),
                struct.pack("!2H", 4, len(addresses)) + addresses,
            )
            composer.records.append(_Record(composer.qtype, current, data=data))
        return
    writing = (_Writing(), _Writing(255), _Writing(1), _Writing(0, -1))[kind % 4]
    for number in range(count):
        packed = bytes((192, 0, 2 + (number >> 8), number & 255))
        composer.records.append(_Record(A, current, 300, (packed,), writing))
    if kind == 5:
        chain = [(b"n%d" % number, b"example") for number in range(count // 6)]
        composer.records = [
            _Record(CNAME, owner, 300 + number, ((target, writing),), writing)
            for number, (owner, target) in enumerate(pairwise([current, *chain]))
        ] + [_Record(A, ([current, *chain])[-1], data=(_ADDRESSES[0],))]
    if kind > 5:
        # Much work for few octets: names of many labels.
        composer.records = [
            _Record(CNAME, current, data=((_MOST_LABELS, _Writing(255)),)),
            *(replace(record, owner=_MOST_LABELS, writing=_Writing(kind - 5, number)) for number, record in
              enumerate(composer.records)),
        ]  # fmt: skip


def _allowed(tables: Tables) -> list[NameRule]:
    return [rule for rule in tables.rules.names if not rule.deny]


def _lead(
    known: int, name: Labels, chooser: random.Random, tables: Tables
) -> tuple[Labels | None, Lead | None]:
    """Sometimes the name of the query is known as one that an allowed name leads to."""
    if known > 4:
        return None, None
    rule = chooser.choice(_allowed(tables))
    depth = chooser.choice((1, 1, 2, abi.ALIAS_DEPTH_MAX - 1, abi.ALIAS_DEPTH_MAX))
    lowered = tuple(label.lower() for label in name)
    return lowered, Lead(-1.5 if known == 4 else 900.5, rule.rank, depth, before=True)


def _openings(
    known: int, records: Sequence[_Record], chooser: random.Random, tables: Tables
) -> tuple[tuple[bytes, Opened], ...]:
    """Sometimes addresses are open already. Half seconds, which no time to live gives."""
    if known % 5:
        return ()
    rules = _allowed(tables)
    packed = [
        part for record in records for part in record.data if len(part) == 4 and isinstance(part, bytes)
    ]
    packed += (_ADDRESSES[0], chooser.choice(_ADDRESSES), bytes((192, 0, 2, chooser.randrange(256))))
    opened = {}
    for _ in range(4):
        rule = chooser.choice(rules)
        address = abi.pack_address(ip_address(chooser.choice(packed)))
        seconds = chooser.choice((-5.5, 10.5, 299.5, 300.5, 86400.5))
        opened[address, tables.port_list_of(rule)] = (
            address,
            Opened(seconds, rule.rank, chooser.random() < 0.3, before=True),
        )
    return tuple(opened.values())


def _cut(case: Case, odd: int) -> Case:
    """Lengths that lie, octets behind the datagram, and tails cut off."""
    if odd == 1:
        return replace(case, reply=case.reply[: len(case.reply) * 2 // 3])
    if odd == 2:
        return replace(case, reply_length=8 + len(case.reply) - 5)
    if odd == 3:
        return replace(case, reply=case.reply + b"\0" * 20, reply_length=8 + len(case.reply))
    if odd == 4:
        return replace(
            case, query=case.query + b"junk", query_length=(0, 7, 8 + len(case.query))[len(case.query) % 3]
        )
    if odd == 5:
        return replace(case, query_length=8 + len(case.query) - 1)
    return case


# Changes.

_KINDS = (0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 10, 11)
_OCTETS = (0, 1, 4, 5, 0x1C, 0x3F, 0x40, 0x41, 0x80, 0xBF, 0xC0, 0xC1, 0xFF)
_WORDS = (0, 1, 2, 4, 5, 6, 16, 28, 64, 65, 0xFF, 0x100, 0xC00C, 0xC000, 0x7FFF, 0x8000, 0xFFFF)


def variants(drawn: Drawn, seed: int, count: int) -> Iterator[Case]:
    """The exchange itself, and `count` - 1 changed ones; the same for the same seed."""
    chooser = random.Random(seed)
    yield drawn.case
    for _ in range(count - 1):
        yield _variant(drawn, chooser)


def _variant(drawn: Drawn, chooser: random.Random) -> Case:
    case = drawn.case
    kind = chooser.random()
    if kind < 0.03:
        query = bytearray(case.query)
        _change(query, 0, range(len(query)), chooser)
        return replace(case, query=bytes(query))
    if kind < 0.05:
        length = chooser.choice(
            (0, 7, 8, 9, 20, len(case.reply), len(case.reply) + 7, len(case.reply) + 9, 65535)
        )
        return replace(case, reply_length=length)
    reply = bytearray(case.reply)
    start = drawn.question_end
    if kind < 0.12:
        reply = reply[:start] + _noise(chooser, chooser.randrange(80))
        struct.pack_into("!H", reply, 6, chooser.choice((1, 1, 2, 3, 0xFFFF)))
    elif kind < 0.19 and len(drawn.records) > 2:
        reply = _rearranged(reply, drawn.records, chooser)
    else:
        inside = [mark for mark in drawn.marks if mark >= start] or list(drawn.marks)
        for _ in range(chooser.choice((1, 1, 1, 1, 2, 3))):
            if chooser.random() < 0.04:
                _change(reply, 0, drawn.marks, chooser)
            else:
                _change(reply, start, inside, chooser)
    return replace(case, reply=bytes(reply[:MAX_MESSAGE]))


def _noise(chooser: random.Random, length: int) -> bytes:
    """Octets that look a little like records."""
    noise = bytearray(chooser.randbytes(length))
    for at in range(0, length, 3):
        if chooser.random() < 0.5:
            noise[at] = chooser.choice(_OCTETS)
    if chooser.random() < 0.7:
        noise[:0] = b"\xc0\x0c" + struct.pack(
            "!HHIH",
            chooser.choice((1, 5, 28, 65, 64)),
            IN,
            chooser.choice(_TTLS),
            chooser.choice((4, 16, length, 2, 7)),
        )
    return bytes(noise)


def _rearranged(reply: bytearray, bounds: Sequence[int], chooser: random.Random) -> bytearray:
    """Two records swapped, one twice, or one gone. Pointers then lead elsewhere."""
    records = [reply[one:other] for one, other in pairwise(bounds)]
    one, other = chooser.randrange(len(records)), chooser.randrange(len(records))
    kind = chooser.randrange(3)
    if kind == 0:
        records[one], records[other] = records[other], records[one]
    elif kind == 1:
        records.insert(one, records[other])
    else:
        del records[one]
    changed = reply[: bounds[0]] + b"".join(records) + reply[bounds[-1] :]
    struct.pack_into("!H", changed, 6, len(records))
    return changed


def _change(data: bytearray, start: int, marks: Sequence[int], chooser: random.Random) -> None:
    """One change at or behind `start`."""
    if len(data) <= start + 2:
        data += chooser.randbytes(2)
        return
    kind = chooser.choice(_KINDS)
    at = chooser.choice(marks) if chooser.random() < 0.45 else chooser.randrange(start, len(data))
    at = min(max(at, start), len(data) - 2)
    if kind <= 1:
        data[at] ^= 1 << chooser.randrange(8)
    elif kind <= 3:
        data[at] = chooser.choice(_OCTETS)
    elif kind == 4:
        struct.pack_into("!H", data, at, chooser.choice(_WORDS))
    elif kind == 5:
        data[at : at + 2] = struct.pack("!H", 0xC000 | chooser.choice(marks))
    elif kind == 6:
        _change_pointer(data, start, chooser)
    elif kind == 7:
        data[at] = (data[at] + chooser.choice((1, -1, 2, -2, 4, -4))) & 255
    elif kind == 8:
        data[at:at] = chooser.randbytes(chooser.choice((1, 1, 2, 4)))
    elif kind == 9:
        del data[at : at + chooser.choice((1, 1, 2, 4, 12))]
    elif kind == 10:
        source = chooser.randrange(len(data))
        piece = data[source : source + chooser.choice((2, 4, 12, 16, 30))]
        if chooser.random() < 0.5:
            data[at:at] = piece
        else:
            data[at : at + len(piece)] = piece
    else:
        del data[chooser.randrange(start, len(data)) :]


def _change_pointer(data: bytearray, start: int, chooser: random.Random) -> None:
    """Turns a pointer elsewhere: into the header, to itself, forwards, or to any place before it."""
    pointers = [at for at in range(start, len(data) - 1) if data[at] >= 0xC0]
    if not pointers:
        data[start] = 0xC0
        return
    at = chooser.choice(pointers)
    target = chooser.choice(
        (chooser.randrange(at + 1), chooser.randrange(at + 1), at, at + 2, 0, 4, HEADER, at - 2)
    )
    struct.pack_into("!H", data, at, 0xC000 | max(target, 0))
