"""The last line that a client prints, without what is another one each time."""

from __future__ import annotations

import re

from ram_ebpf.responder import wording
from tests.lab import topology

from .names import MESSAGE, ORGANIZATION

HOST, NAME, TEXT = "H", "NAME", "TEXT"
NAME_IS = wording.blocked_name(ORGANIZATION, MESSAGE)
TEXT_IS = wording.sentence(HOST, ORGANIZATION, None, MESSAGE)
_TIME = re.compile(r'time="[^"]*"')
_END = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}:\d+->")  # the client's own, of a connection
_SLOW = re.compile(r"time(?:d )?-?out", re.IGNORECASE)


def last_line(output: str, host: str, address: str) -> str:
    """Of all that a client printed when it was refused `host` at `address`."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    line = line.replace(host, HOST).replace(address, "ADDRESS").replace(topology.RESOLVER, "RESOLVER")
    line = _END.sub("CLIENT->", _TIME.sub('time="…"', line))
    return line.replace(TEXT_IS, TEXT).replace(NAME_IS, NAME)


def speaks_of_a_timeout(output: str) -> bool:
    """Whether somebody who reads it would take the refusal for a network that is out of order."""
    return _SLOW.search(output) is not None
