"""What the programs must make of a DNS exchange: a model in Python that shares no code with them.

It models what is documented (docs/architecture.md and the heads of bpf/lib/query.h, reply.h, answers.h and
learn.h). Each name, address and service record that it reads is read by dnspython too, from the same octets,
and so is the message as a whole. Where the two differ, DEVIATIONS says why; anything else is a
ContradictionError.
"""

from __future__ import annotations

import ipaddress
import json
import struct
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.svcbbase

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.rules import NameRule
from ram_ebpf.policy.special import is_special

from .messages import AAAA, CNAME, HTTPS, IN, QR, TC, A

SVCB = 64
IPV4HINT, IPV6HINT = 4, 6
HEADER = 12
MAX_STEPS = abi.ANSWER_STEPS * abi.ANSWER_PROGRAMS
_OPCODE, _RCODE = 0x7800, 0x000F
_ADDRESS_TYPES = (A, AAAA)
_SERVICE_TYPES = (HTTPS, SVCB)
_RELEVANT_TYPES = (*_ADDRESS_TYPES, *_SERVICE_TYPES)

# dnspython loads the class for a type when it first meets one, and if that is a record of class ANY, takes
# the type for unknown in class IN too, from then on.
_load_class: Any = dns.rdata.get_rdata_class  # which says nothing of its types
for _rtype in (*_RELEVANT_TYPES, CNAME):
    _load_class(dns.rdataclass.IN, dns.rdatatype.RdataType.make(_rtype))

DEVIATIONS = {
    "overlap": """
        A name that a pointer leads into itself, as octets read twice. dnspython refuses it from 2.9 on,
        and before that looks for the next field behind all that was read. The programs read it, and go
        on behind the first pointer: each pointer leads strictly backwards, so it ends, and stub
        resolvers read it so.""",
    "pointers": """
        More than 16 pointers in a name. dnspython refuses them from 2.9 on; here the number of steps is
        the limit, and what exceeds it is counted as DNS_TOO_MANY.""",
    "question": """
        A pointer in the question. dnspython follows it, into the header; the programs refuse it, since
        there is no name before the question that it could point to.""",
    "service": """
        An HTTPS or SVCB record that dnspython refuses: keys out of order or twice, a mandatory key that
        is missing, a value that its key does not allow, an empty hint, parameters in AliasMode, a
        compressed TargetName. The programs read keys and lengths alone and take every hint: whether the
        service can be used is the client's affair, and the resolver is trusted.""",
    "whole": """
        A message that dnspython refuses as a whole, though its answers can be read. The programs look
        at nothing behind the answers, nor at the data of records that open nothing: of other types,
        classes or names.""",
    "order": """
        Records of a name that the chain has not come to, or has left, and a chain that comes back to a
        name. dnspython collects all records first, so that their order does not matter; of several
        CNAME records of a name it takes the last, and none where the name has what was asked for. The
        programs read once, in order; what they pass over is counted as DNS_OTHER_NAME where it is an
        address, and user space asks again.""",
    "long chain": """
        More than 16 CNAME records one behind the other. dnspython gives up; the programs follow, as
        each record is read once and the steps are limited.""",
}
"""Where the programs differ from dnspython on purpose. Beside these: of a malformed message dnspython gives
up all, while what the programs read before the malformed place stays open; and it gives all records of a
name and type the least of their times to live, while each address is opened for its own."""

Labels = tuple[bytes, ...]
"""A name: its labels in lower case, without the root."""


class ContradictionError(AssertionError):
    """The model and dnspython read the same octets differently, and DEVIATIONS does not say why."""


@dataclass(frozen=True, slots=True)
class Lead:
    """What is remembered of a name: that an allowed one leads to it, as an alias."""

    seconds: float
    rule: int
    depth: int
    before: bool = False
    """Remembered before the exchange."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What is kept of an address and a list of ports."""

    seconds: float
    rule: int
    private: bool
    before: bool = False
    """Opened before the exchange."""


@dataclass(frozen=True, slots=True)
class Case:
    """One exchange over UDP, and what the scope knew before it."""

    query: bytes
    reply: bytes
    query_length: int | None = None
    """The length field of the UDP header, where it lies."""
    reply_length: int | None = None
    ipv6: bool = False
    alias: Labels | None = None
    """A name that an allowed one, by `lead`, leads to."""
    lead: Lead | None = None
    openings: tuple[tuple[bytes, Opened], ...] = ()
    """Addresses (16 octets) that are open already."""

    def to_json(self) -> str:
        """On one line, for from_json."""
        raw = asdict(self)
        raw["query"], raw["reply"] = self.query.hex(), self.reply.hex()
        if self.alias is not None:
            raw["alias"] = [label.hex() for label in self.alias]
        raw["openings"] = [[address.hex(), asdict(opened)] for address, opened in self.openings]
        return json.dumps(raw)

    @classmethod
    def from_json(cls, text: str) -> Case:
        """The reverse of to_json."""
        raw = json.loads(text)
        raw["query"], raw["reply"] = bytes.fromhex(raw["query"]), bytes.fromhex(raw["reply"])
        if raw["alias"] is not None:
            raw["alias"] = tuple(bytes.fromhex(label) for label in raw["alias"])
            raw["lead"] = Lead(**raw["lead"])
        raw["openings"] = tuple((bytes.fromhex(a), Opened(**opened)) for a, opened in raw["openings"])
        return cls(**raw)


@dataclass(slots=True)
class Expected:
    """What must come of it."""

    counted: Counter[Reason] = field(default_factory=Counter)
    openings: dict[tuple[bytes, int], Opened] = field(default_factory=dict)
    """By address (16 octets) and number of the list of ports."""
    aliases: dict[Labels, Lead] = field(default_factory=dict)
    awaited: str = ""
    """The map that the query is still in: `queries` or `unlisted`."""
    reason: Reason = Reason.NONE
    """Of the reply."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it stands in a message."""

    labels: Labels
    end: int
    """What follows it in the message; -1: it is malformed."""
    places: tuple[int, ...]
    """Where it begins, and where pointers at its very beginning lead to."""
    items: int
    """Labels and pointers, with the root; of a malformed name those up to the malformed one."""
    pointers: int
    overlaps: bool
    """A pointer leads to octets that run on into what was read before."""


def walk_name(message: bytes, start: int) -> Name:
    """Reads a name by RFC 1035 3.1 and 4.1.4. Each pointer leads to before the piece that it ends."""
    size = len(message)
    labels: list[bytes] = []
    places = [start]
    at = segment = start
    boundary = size
    end = items = pointers = 0
    length = 1
    overlaps = False
    while True:
        items += 1
        if at >= size:
            break
        octet = message[at]
        if octet >= 0xC0:
            if at + 1 >= size:
                break
            target = (octet & 0x3F) << 8 | message[at + 1]
            if target >= segment:
                break
            overlaps |= at + 2 > boundary
            end = end or at + 2
            if at == places[-1]:
                places.append(target)
            boundary, segment, at = segment, target, target
            pointers += 1
        elif octet > 63:
            break
        elif octet:
            length += octet + 1
            if length > abi.NAME_MAX or at + octet >= size:
                break
            overlaps |= at + octet + 1 > boundary
            labels.append(message[at + 1 : at + 1 + octet].lower())
            at += octet + 1
        else:
            overlaps |= at + 1 > boundary
            return Name(tuple(labels), end or at + 1, tuple(places), items, pointers, overlaps)
    return Name((), -1, tuple(places), items, pointers, overlaps)


@lru_cache(maxsize=1 << 16)
def _read_address(rtype: int, data: bytes) -> bytes | None:
    """The 16 octets of an A or AAAA record's address by dnspython; None: it refuses the record."""
    try:
        rdata = dns.rdata.from_wire(
            dns.rdataclass.IN, dns.rdatatype.RdataType.make(rtype), data, 0, len(data)
        )
    except dns.exception.DNSException:
        return None
    (text,) = _addresses(rdata)
    return abi.pack_address(ipaddress.ip_address(text))


@lru_cache(maxsize=1 << 16)
def _is_special(address: bytes) -> bool:
    return is_special(abi.unpack_address(address))


@dataclass(frozen=True, slots=True)
class _Service:
    target: Labels
    hints: tuple[bytes, ...]


def _read_service(message: bytes, at: int, length: int, rtype: int) -> _Service | None:
    """An HTTPS or SVCB record by dnspython; None: it refuses the record."""
    try:
        rdata = dns.rdata.from_wire(
            dns.rdataclass.IN, dns.rdatatype.RdataType.make(rtype), message, at, length
        )
    except (dns.exception.DNSException, ValueError, struct.error):
        return None
    assert isinstance(rdata, dns.rdtypes.svcbbase.SVCBBase)
    hints: list[bytes] = []
    for key in sorted(rdata.params):
        value = rdata.params[key]
        if isinstance(value, dns.rdtypes.svcbbase.IPv4HintParam | dns.rdtypes.svcbbase.IPv6HintParam):
            hints += (abi.pack_address(ipaddress.ip_address(text)) for text in value.addresses)
    return _Service(_canonical(rdata.target), tuple(hints))


def _canonical(name: dns.name.Name) -> Labels:
    assert name.is_absolute()
    return tuple(label.lower() for label in name.labels[:-1])


def _read_name(message: bytes, at: int) -> tuple[Labels, int] | None:
    """A name by dnspython, and what follows it; None: it refuses the name."""
    try:
        name, used = dns.name.from_wire(message, at)
    except dns.exception.DNSException:
        return None
    return _canonical(name), at + used


_read_name_once = lru_cache(maxsize=1 << 12)(_read_name)


@dataclass(frozen=True, slots=True)
class _Question:
    name: Labels
    qtype: int
    qclass: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query that is remembered."""

    question: _Question
    identity: int
    rule: NameRule | None
    alias: NameRule | None
    depth: int

    @property
    def first(self) -> NameRule | None:
        """The rule that what is learned is put down to."""
        return self.rule or self.alias


class _MalformedError(Exception):
    pass


class _TooManyError(Exception):
    pass


def datagram(payload: bytes, length: int | None) -> bytes:
    """What of a payload is in the UDP datagram. A length that cannot be counts as none: segmentation offload
    leaves such."""
    return payload if length is None or not 8 <= length <= len(payload) + 8 else payload[: length - 8]


class Reference:
    """The model, for one policy."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self.tables = tables
        self.settings = settings
        self.deviations: Counter[str] = Counter()
        """How often each of DEVIATIONS was met."""
        self.confirmed = 0
        """Messages whose answers dnspython's resolve_chaining() gave too."""
        self._queries: dict[bytes, _Question | None] = {}
        self._rules: dict[Labels, NameRule | None] = {}

    def rule(self, number: int) -> NameRule:
        """The name rule of a number."""
        rule = self.tables.rule(number)
        assert isinstance(rule, NameRule)
        return rule

    def key(self, address: bytes, rule: NameRule) -> tuple[bytes, int]:
        """Of Expected.openings."""
        return address, self.tables.port_list_of(rule)

    def is_refused_as_private(self, address: bytes, rule: NameRule) -> bool:
        """Whether the address is kept as one that opens nothing."""
        if rule.private or not _is_special(address):
            return False
        parsed = abi.unpack_address(address)
        return not any(
            parsed.version == network.version and parsed in network for network in rule.private_networks
        )

    def clamped(self, ttl: int) -> int:
        """The seconds that a time to live counts for."""
        return min(max(ttl, self.settings.minimum_ttl), self.settings.maximum_ttl)

    def expect(self, case: Case) -> Expected:
        """What must come of the exchange."""
        expected = Expected()
        for address, opened in case.openings:
            expected.openings[self.key(address, self.rule(opened.rule))] = opened
        if case.alias is not None and case.lead is not None:
            expected.aliases[case.alias] = case.lead
        query = datagram(case.query, case.query_length)
        asked = self._ask(query, expected)
        expected.reason = self._answer(datagram(case.reply, case.reply_length), asked, expected)
        expected.counted[expected.reason] += 1
        return expected

    def read_name(self, message: bytes, at: int) -> Name:
        """By the model and by dnspython."""
        ours = walk_name(message, at)
        if ours.end < 0 or ours.overlaps:
            theirs = _read_name(message, at)
        else:  # nothing behind it can matter, so that one reading does for many messages that begin alike
            theirs = _read_name_once(message[: ours.end], at)
        if theirs is None:
            if ours.end >= 0:
                self._deviates("overlap" if ours.overlaps else "pointers" if ours.pointers > 16 else "", at)
            return ours
        labels, end = theirs
        if ours.end < 0 or ours.labels != labels:
            self._deviates("", at)
        if ours.end != end:
            self._deviates("overlap" if ours.overlaps else "", at)
        return ours

    def _deviates(self, kind: str, where: object) -> None:
        if not kind:
            raise ContradictionError(f"the model and dnspython differ at {where}")
        self.deviations[kind] += 1

    def _question(self, message: bytes) -> _Question | None:
        name = self.read_name(message, HEADER)
        if name.pointers:
            self.deviations["question"] += 1
            return None
        if name.end < 0 or name.end + 4 > len(message):
            return None
        qtype, qclass = struct.unpack_from("!2H", message, name.end)
        return _Question(name.labels, qtype, qclass)

    def _query_question(self, message: bytes) -> _Question | None:
        """Of a query: one question, and the opcode QUERY."""
        if len(message) < HEADER:
            return None
        _, flags, questions = struct.unpack_from("!3H", message)
        if flags & (QR | _OPCODE) or questions != 1:
            return None
        return self._question(message)

    def _match(self, name: Labels) -> NameRule | None:
        """The rule that decides a name. One with octets that no host name has is matched by none."""
        if name not in self._rules:
            text = dns.name.Name((*name, b"")).to_text(omit_final_dot=True)
            self._rules[name] = self.tables.rules.match(text)
        return self._rules[name]

    def _ask(self, message: bytes, expected: Expected) -> _Asked | None:
        """The query on its way out. None: it is not remembered."""
        expected.counted[Reason.ALLOWED_RESOLVER] += 1
        if not message:
            return None
        if message not in self._queries:
            if len(self._queries) > 1000:
                self._queries.clear()
                self._rules.clear()
            self._queries[message] = self._query_question(message)
        question = self._queries[message]
        if question is None:
            expected.counted[Reason.DNS_NOT_A_QUERY] += 1
            return None
        if question.qclass != IN or question.qtype not in _RELEVANT_TYPES:
            return None
        (identity,) = struct.unpack_from("!H", message)
        rule = self._match(question.name)
        if rule is not None and rule.deny:
            return _Asked(question, identity, None, None, 0)
        lead = expected.aliases.get(question.name)
        if lead is None or lead.seconds < 0:
            return _Asked(question, identity, rule, None, 0)
        # A name with a rule of its own is the beginning of a chain, whatever else leads to it.
        depth = 0 if rule is not None else lead.depth
        return _Asked(question, identity, rule, self.rule(lead.rule), depth)

    def _answer(self, message: bytes, asked: _Asked | None, expected: Expected) -> Reason:
        """The reply on its way in."""
        if asked is not None:
            expected.awaited = "queries" if asked.first else "unlisted"
        if len(message) < HEADER:
            return Reason.DNS_MALFORMED
        identity, flags, questions, answers = struct.unpack_from("!4H", message)
        if not flags & QR or flags & _OPCODE:
            return Reason.DNS_MALFORMED
        if asked is None or identity != asked.identity:
            return Reason.DNS_NO_QUERY
        if asked.first is None:
            expected.awaited = ""
            return Reason.DNS_NOT_LISTED
        question = self._question(message) if questions == 1 else None
        if (
            question is None
            or question.name != asked.question.name
            or (question.qtype, question.qclass) != (asked.question.qtype, IN)
        ):
            return Reason.DNS_WRONG_QUESTION
        expected.awaited = ""
        if flags & _RCODE:
            return Reason.DNS_NO_ADDRESS
        reason = _Walk(self, message, answers, asked, question, expected).run()
        # What a truncated reply holds is learned, since some clients use it.
        return Reason.DNS_TRUNCATED if flags & TC else reason


class _Walk:
    """The answers of a reply. Their limit is a number of steps: one for each label, pointer or root octet
    of a name, with what it names; for each further address that is opened, key of a service record, and
    end of a hint or a service record; and for noticing that all is done. A pointer to where the chain's
    name stands ends a name that begins with it."""

    def __init__(
        self,
        reference: Reference,
        message: bytes,
        answers: int,
        asked: _Asked,
        question: _Question,
        expected: Expected,
    ) -> None:
        self._reference = reference
        self._message = message
        self._answers = answers
        self._asked = asked
        self._question = question
        self._expected = expected
        self._names: dict[int, Name] = {}
        self._steps = 0
        self._chain = question.name
        self._chain_at = HEADER
        self._chain_ttl = 0x7FFFFFFF
        self._visited = {question.name}
        self._hints = question.qtype in _SERVICE_TYPES
        # What was met.
        self._opened = self._private = self._strangers = self._remembered = False
        self._in_order = True

    def run(self) -> Reason:
        """Reads all answers. What is read before a malformed place, or before the steps end, counts."""
        try:
            self._read()
            self._spend(1)
        except _MalformedError:
            return Reason.DNS_MALFORMED
        except _TooManyError:
            return Reason.DNS_TOO_MANY
        reason = self._conclude()
        self._confirm()
        return reason

    def _conclude(self) -> Reason:
        if self._strangers:
            return Reason.DNS_OTHER_NAME
        if self._opened:
            return Reason.DNS_LEARNED
        if self._private:
            return Reason.DNS_PRIVATE_ADDRESS
        # A chain that ends without an address: the client may ask for its end in a query of its own.
        if self._chain != self._question.name:
            self._remember(self._chain, self._chain_ttl)
        return Reason.DNS_ALIAS if self._remembered else Reason.DNS_NO_ADDRESS

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise _TooManyError

    def _name(self, at: int) -> tuple[Labels, int, int]:
        """Its labels, its end, and its place."""
        name = self._names.get(at)
        if name is None:
            name = self._names[at] = self._reference.read_name(self._message, at)
        for pointers, place in enumerate(name.places[1:], start=1):
            if place == self._chain_at:
                self._spend(pointers)
                return self._chain, name.end, place
        self._spend(name.items)
        if name.end < 0:
            raise _MalformedError
        return name.labels, name.end, name.places[-1]

    def _read(self) -> None:
        if not self._answers:
            return
        _, end, _ = self._name(HEADER)
        at = end + 4
        for _ in range(self._answers):
            owner, end, _ = self._name(at)
            if end + 10 > len(self._message):
                raise _MalformedError
            rtype, rclass, ttl, length = struct.unpack_from("!HHIH", self._message, end)
            data, at = end + 10, end + 10 + length
            if at > len(self._message):
                raise _MalformedError
            if rclass == IN:
                ttl = min(self._chain_ttl, 0 if ttl >> 31 else ttl)
                self._record(owner == self._chain, rtype, ttl, data, length)

    def _record(self, ours: bool, rtype: int, ttl: int, data: int, length: int) -> None:
        if rtype == CNAME:
            if ours:
                self._follow(ttl, data, length)
            else:
                self._in_order = False
        elif rtype in _ADDRESS_TYPES and not self._hints:
            address = _read_address(rtype, self._message[data : data + length])
            if address is None:
                raise _MalformedError
            if ours:
                self._open(address, ttl)
            else:
                self._strangers = True
                self._in_order = False
        elif rtype in _SERVICE_TYPES and self._hints:
            if ours:
                self._serve(rtype, ttl, data, length)
            else:
                self._in_order = False

    def _follow(self, ttl: int, data: int, length: int) -> None:
        self._chain_ttl = ttl
        target, end, place = self._name(data)
        if end != data + length:
            raise _MalformedError
        self._in_order &= target not in self._visited
        self._visited.add(target)
        self._chain, self._chain_at = target, place

    def _serve(self, rtype: int, ttl: int, data: int, length: int) -> None:
        """An HTTPS or SVCB record (RFC 9460 2.2): the name that it leads to, and its hints."""
        message, end = self._message, data + length
        if length < 3:
            raise _MalformedError
        target, at, _ = self._name(data + 2)
        if at > end:
            raise _MalformedError
        # The root stands for the owner itself, or for no service at all (2.5).
        if target and target != self._chain:
            self._remember(target, ttl)
        hints: list[bytes] = []
        while True:
            self._spend(1)
            if at == end:
                break
            if at + 4 > end:
                raise _MalformedError
            key, size = struct.unpack_from("!2H", message, at)
            at += 4
            if at + size > end:
                raise _MalformedError
            if key in (IPV4HINT, IPV6HINT):
                self._take_hints(message[at : at + size], 4 if key == IPV4HINT else 16, ttl, hints)
            at += size
        theirs = _read_service(message, data, length, rtype)
        if theirs is None:
            self._reference.deviations["service"] += 1
        elif theirs != _Service(target, tuple(hints)):
            raise ContradictionError(f"the model and dnspython differ about the service at {data}")

    def _take_hints(self, value: bytes, size: int, ttl: int, hints: list[bytes]) -> None:
        for at in range(0, len(value) - size + 1, size):
            self._spend(1)
            packed = value[at : at + size]
            address = abi.pack_address(ipaddress.ip_address(packed))
            hints.append(address)
            self._open(address, ttl)
        self._spend(1)
        if len(value) % size:
            raise _MalformedError

    def _open(self, address: bytes, ttl: int) -> None:
        asked = self._asked
        assert asked.first is not None
        self._open_for(asked.first, address, ttl)
        if asked.rule is not None and asked.alias is not None:
            self._spend(1)
            self._open_for(asked.alias, address, ttl)

    def _open_for(self, rule: NameRule, address: bytes, ttl: int) -> None:
        """Opens it on the ports of the rule, or for longer. What is open is not shut by another rule, with
        the same ports, that does not expect it to be private."""
        key = self._reference.key(address, rule)
        new = Opened(
            self._reference.clamped(ttl), rule.rank, self._reference.is_refused_as_private(address, rule)
        )
        self._private |= new.private
        self._opened |= not new.private
        old = self._expected.openings.get(key)
        if old is not None and not old.private and (new.private or old.seconds >= new.seconds):
            return
        self._expected.openings[key] = new

    def _remember(self, name: Labels, ttl: int) -> None:
        """That an allowed name leads to this one, in a chain of queries that has an end. What is known by the
        same rule already is not made shorter."""
        first = self._asked.first
        assert first is not None
        if self._asked.depth >= abi.ALIAS_DEPTH_MAX:
            return
        self._remembered = True
        lead = Lead(self._reference.clamped(ttl), first.rank, self._asked.depth + 1)
        old = self._expected.aliases.get(name)
        if old is None or old.rule != lead.rule or old.seconds < lead.seconds:
            self._expected.aliases[name] = lead

    def _confirm(self) -> None:
        """By dnspython's own following of the chain, where the message stands in order: each address that it
        finds is opened for at least as long as it says."""
        reference = self._reference
        if not self._in_order:
            reference.deviations["order"] += 1
            return
        if not (self._opened or self._private) and self._chain == self._question.name:
            return
        try:
            message = dns.message.from_wire(self._message, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError, struct.error):
            reference.deviations["whole"] += 1
            return
        assert isinstance(message, dns.message.QueryMessage)
        try:
            result = message.resolve_chaining()
        except dns.message.ChainTooLong:
            reference.deviations["long chain"] += 1
            return
        if _canonical(result.canonical_name) != self._chain and result.answer is None:
            raise ContradictionError(f"dnspython's chain ends in {result.canonical_name}")
        if result.answer is None:
            return
        reference.confirmed += 1
        first = self._asked.first
        assert first is not None
        at_least = reference.clamped(result.minimum_ttl)
        for rdata in result.answer:
            for text in _addresses(rdata):
                address = abi.pack_address(ipaddress.ip_address(text))
                opened = self._expected.openings.get(reference.key(address, first))
                refused = reference.is_refused_as_private(address, first)
                if opened is None or (not refused and opened.seconds < at_least):
                    raise ContradictionError(f"dnspython finds {text} for {at_least} s; the model: {opened}")


def _addresses(rdata: dns.rdata.Rdata) -> list[str]:
    if isinstance(rdata, dns.rdtypes.svcbbase.SVCBBase):
        params = (rdata.params.get(key) for key in (IPV4HINT, IPV6HINT))
        return [text for param in params if param is not None for text in param.addresses]
    assert isinstance(rdata, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
    return [rdata.address]
