"""The answers of a resolver under attack: the first label of a name says what is wrong with its reply.

`wrong-id.lies.test` is answered with a wrong id, as is `wrong-id-2`; any other name honestly.
All replies give the attacker's address for the name (packets.address_for).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.adversarial.packets import address_for
from tests.lab import topology
from tests.lab.dns_replies import Address, Reply, respond

HONEST = "192.0.2.80"  # nobody's address either: what the resolver answers before the attacker does
STRANGER = "10.77.0.55"  # nobody's address
STRANGER_PORT = 5353
QUIET_RESOLVER = "10.77.0.56"  # trusted, and nobody there to answer


def answer(query: dns.message.Message, client: Address) -> Iterator[Reply]:
    """Answers one query."""
    question = query.question[0]
    name = question.name.to_wire()
    assert name is not None
    case = re.sub(r"-\d+$", "", question.name.labels[0].decode(errors="replace"))
    honest = respond(query, address_for(name, question.rdtype))
    lie = copy.deepcopy(honest)
    if case == "silent":
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
