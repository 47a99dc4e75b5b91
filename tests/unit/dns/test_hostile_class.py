"""A record of class ANY must not spoil what dnspython makes of later records of that type."""

from __future__ import annotations

import subprocess
import sys

import pytest

# In a process of its own: the damage would last as long as the process, and so would its absence.
_PROGRAM = """
import struct, sys
from ram_ebpf.dns.response import read_message

def reply(rdclass, rdtype, value):
    head = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0) + b"\\4ghcr\\2io\\0" + struct.pack("!2H", rdtype, 1)
    return head + b"\\xc0\\x0c" + struct.pack("!HHIH", rdtype, rdclass, 60, len(value)) + value

rdtype, value = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
read_message(reply(255, rdtype, value))
print(*(address for address, _ in read_message(reply(1, rdtype, value)).addresses))
"""


@pytest.mark.parametrize(
    ("rdtype", "value", "address"),
    [
        pytest.param(1, "c0000201", "192.0.2.1", id="A"),
        pytest.param(28, "20010db8000000000000000000000001", "2001:db8::1", id="AAAA"),
        pytest.param(65, "00010000040004c0000201", "192.0.2.1", id="HTTPS"),
    ],
)
def test_class_any_comes_first(rdtype: int, value: str, address: str) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(rdtype), value]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == (address, "")
