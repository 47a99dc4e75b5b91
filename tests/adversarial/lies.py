"""The answers of a resolver under attack: the first label of a name says what is wrong with its reply.

`wrong-id.lies.test` is answered with a wrong id, as is `wrong-id-2`; any other name honestly.
All replies give the attacker's address for the name (packets.address_for), but `is-x0a000001` gives 10.0.0.1.
`to-a--evil--test` is an alias, as is `step7`. Of malformed.py there is all by its name.
`deaf` hears only queries with EDNS, which are the daemon's.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.adversarial import malformed
from tests.adversarial.packets import address_for
from tests.lab import topology
from tests.lab.dns_replies import Address, Reply, respond

HONEST = "192.0.2.80"  # nobody's address either: what the resolver answers before the attacker does
STRANGER = "10.77.0.55"  # nobody's address
STRANGER_PORT = 5353
BRIEF = 1  # seconds that an alias is valid
QUIET_RESOLVER = "10.77.0.56"  # trusted, and nobody there to answer


def _with_addresses(query: dns.message.Message, words: list[str]) -> bytes:
    """Addresses in hexadecimal, of which the fitting ones are given, as hints where such are asked for."""
    words = [word.removeprefix("x") for word in words]
    addresses = [
        str(ipaddress.IPv4Address(int(word, 16)) if len(word) == 8 else ipaddress.IPv6Address(int(word, 16)))
        for word in words
    ]
    question = query.question[0]
    message = respond(query, *addresses)
    if question.rdtype == dns.rdatatype.HTTPS:
        hints = {
            f"ipv{version}hint=" + ",".join(found)
            for version, mark in ((4, "."), (6, ":"))
            if (found := [address for address in addresses if mark in address])
        }
        text = f"1 . alpn=h2 {' '.join(sorted(hints))}"
        message.answer.append(dns.rrset.from_text(question.name, 60, question.rdclass, question.rdtype, text))
    return message.to_wire()


def _alias(query: dns.message.Message, target: str) -> bytes:
    """A CNAME record alone: `to-a--evil--test` leads to a.evil.test, `to-a--evil--test-7` too."""
    question = query.question[0]
    message = respond(query)
    owner, leads_to = question.name, target.replace("--", ".")
    message.answer.append(dns.rrset.from_text(owner, BRIEF, question.rdclass, "CNAME", f"{leads_to}."))
    return message.to_wire()


def _next_step(query: dns.message.Message, number: int) -> bytes:
    """`step7` leads to `step8` in the attacker's domain, and so on."""
    question = query.question[0]
    message = respond(query)
    target = f"step{number + 1}.evil.test."
    message.answer.append(dns.rrset.from_text(question.name, 60, question.rdclass, "CNAME", target))
    return message.to_wire()


def answer(query: dns.message.Message, client: Address) -> Iterator[Reply]:
    """Answers one query."""
    question = query.question[0]
    name = question.name.to_wire()
    assert name is not None
    case = re.sub(r"-\d+$", "", question.name.labels[0].decode(errors="replace"))
    honest = respond(query, address_for(name, question.rdtype))
    lie = respond(query, address_for(name, question.rdtype))
    if case == "silent" or (case == "deaf" and query.edns < 0):
        return
    if case in malformed.CASES:
        packed = ipaddress.ip_address(address_for(name)).packed
        message = malformed.CASES[case](name + struct.pack("!HH", question.rdtype, 1), packed)
        yield Reply(struct.pack("!H", query.id) + message)
        return
    if case in malformed.ASIDE:
        honest_packed, packed = (
            ipaddress.ip_address(address_for(text)).packed for text in (name, name + b"x")
        )
        message = malformed.ASIDE[case](name + struct.pack("!HH", question.rdtype, 1), honest_packed, packed)
        yield Reply(struct.pack("!H", query.id) + message)
        return
    if case.startswith("to-"):
        yield Reply(_alias(query, case.removeprefix("to-")))
        return
    if case.startswith("step"):
        yield Reply(_next_step(query, int(case.removeprefix("step"))))
        return
    if case.startswith("is-"):
        yield Reply(_with_addresses(query, case.removeprefix("is-").split("-")))
        return
    if case == "from-another-address":
        yield Reply(honest.to_wire(), source=STRANGER)
    elif case == "from-another-port":
        yield Reply(honest.to_wire(), source=topology.ROGUE_RESOLVER, source_port=STRANGER_PORT)
    elif case == "from-another-resolver":
        yield Reply(honest.to_wire(), source=QUIET_RESOLVER)
    elif case == "wrong-id":
        lie.id ^= 1
        yield Reply(lie.to_wire())
    elif case == "wrong-name":
        other = dns.rrset.RRset(dns.name.from_text("other.lies.test"), question.rdclass, question.rdtype)
        lie.question = [other]
        yield Reply(lie.to_wire())
    elif case == "wrong-type":
        lie.question = [dns.rrset.RRset(question.name, question.rdclass, dns.rdatatype.AAAA)]
        yield Reply(lie.to_wire())
    elif case == "two-questions":
        lie.question = [question, question]
        yield Reply(lie.to_wire())
    elif case == "no-question":
        lie.question = []
        yield Reply(lie.to_wire())
    elif case == "noisy":
        lie.id ^= 1
        yield Reply(lie.to_wire())
        yield Reply(b"\0" * 20)
        yield Reply(honest.to_wire(), source=STRANGER)
        yield Reply(honest.to_wire(), delay=0.02)
    elif case == "second-reply":
        yield Reply(respond(query, HONEST).to_wire())
        yield Reply(honest.to_wire(), delay=0.02)
    elif case == "not-a-response":
        lie.flags &= ~dns.flags.QR
        yield Reply(lie.to_wire())
    elif case == "additional":
        lie.additional, lie.answer = lie.answer, []
        yield Reply(lie.to_wire())
    elif case == "name-error":
        lie.set_rcode(dns.rcode.NXDOMAIN)
        yield Reply(lie.to_wire())
    elif case == "chaos":
        wire = bytearray(honest.to_wire())
        wire[-11] = 3  # class, TTL (4), length (2) and address (4) end the message
        yield Reply(bytes(wire))
    elif case == "cut-off":
        yield Reply(honest.to_wire()[:-1])
    else:
        yield Reply(honest.to_wire())
