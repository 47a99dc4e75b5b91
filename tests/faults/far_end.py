"""The other ends of the stream's connections: `python -m tests.faults.far_end ROLE ARGUMENT...`.

    names ADDRESS            a resolver, which gives each name of NAMES an address
    registry PORT CHAIN KEY  answers over TLS, and counts the handshakes by the name that was asked for
    target PORT              counts what must not come: TCP connections, and bytes over TCP and UDP

Each says `{"ready": true}` when its ports are open, and for each line on stdin what it has counted.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import sys
import threading
from collections import Counter
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.lab import topology

EXACT = "exact.registry.test"
"""In the policies by itself."""
FRESH = "allowed.registry.test"
"""Each name n<number> below it has an address of its own."""
BLOCKED = "blocked.registry.test"
UNLISTED = "other.registry.test"
"""In no policy, but in the certificate, and at the same server as the first."""

FRESH_NETWORK = "10.78.0.0/16"
_TTL = 5
_SO_RCVBUFFORCE = 33  # asm-generic/socket.h
_FRESH = re.compile(rf"(?:n(\d+)|([0-9a-f]{{16}}))\.{re.escape(FRESH)}")

counted: Counter[str] = Counter()


def address_of(name: str) -> str | None:
    """What the resolver says; None: there is no such name."""
    if name in (EXACT, UNLISTED, FRESH):
        return topology.ALLOWED
    if name == BLOCKED:
        return topology.BLOCKED
    found = _FRESH.fullmatch(name)
    if found is None:
        return None
    number = (int(found[1]) if found[1] else int(found[2], 16)) % 0xFFFE + 1
    return f"10.78.{number >> 8}.{number & 0xFF}"


class Names(asyncio.DatagramProtocol):
    """A resolver over UDP."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        counted["queries"] += 1
        reply = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        found = address_of(question.name.to_text(omit_final_dot=True).lower())
        if found is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            reply.answer.append(dns.rrset.from_text(question.name, _TTL, "IN", "A", found))
        self._transport.sendto(reply.to_wire(), address)


class Uninvited(asyncio.DatagramProtocol):
    """Counts datagrams."""

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        counted["datagrams"] += 1


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Each line gets `ok` and itself."""
    try:
        while line := await reader.readline():
            writer.write(b"ok " + line)
            await writer.drain()
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def _count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    counted["connections"] += 1
    try:
        while data := await reader.read(65536):
            counted["bytes"] += len(data)
    except OSError:
        pass
    finally:
        writer.close()


def _context(chain: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)

    def note(connection: ssl.SSLObject, name: str | None, used: ssl.SSLContext) -> None:
        counted[f"hello {name if name in (EXACT, UNLISTED) else 'fresh' if name else 'without a name'}"] += 1

    context.sni_callback = note
    return context


def _tell(told: object) -> None:
    print(json.dumps(told), flush=True)


def _report() -> None:
    for _ in sys.stdin:
        _tell(dict(counted))


async def _serve(role: str, arguments: list[str]) -> None:
    loop = asyncio.get_running_loop()
    if role == "names":
        waiting = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        waiting.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)  # no query is to be lost
        waiting.setblocking(False)
        waiting.bind((arguments[0], 53))
        await loop.create_datagram_endpoint(Names, sock=waiting)
    elif role == "registry":
        port, chain, key = arguments
        await asyncio.start_server(_answer, "0.0.0.0", int(port), ssl=_context(chain, key), backlog=512)
    else:
        port = arguments[0]
        await asyncio.start_server(_count, ["0.0.0.0", "::"], int(port))
        await loop.create_datagram_endpoint(Uninvited, ("::", int(port)))  # of both families
    _tell({"ready": True})
    threading.Thread(target=_report, daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2:]))
