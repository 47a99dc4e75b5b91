"""bpf/lib/special.h finds the same addresses special as ram_ebpf/policy/special.py, whose list it
computes.
"""

from __future__ import annotations

import bisect
import ctypes
import ipaddress
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ram_ebpf.dataplane.abi import IPAddress, pack_address
from ram_ebpf.dataplane.source import source_directory
from ram_ebpf.policy.special import SPECIAL_NETWORKS, is_special

_PROGRAM = """
#include "include/linux/kconfig.h"
#include "lib/special.h"

void find_special(const u32 *addresses, long count, unsigned char *found)
{
	for (long i = 0; i < count; i++)
		found[i] = ram_is_special(addresses + 4 * i);
}
"""

Find = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def find(tmp_path_factory: pytest.TempPathFactory) -> Find:
    """From many addresses of 16 octets to an octet each: whether the header takes it for special."""
    folder: Path = tmp_path_factory.mktemp("special")
    (folder / "special.c").write_text(_PROGRAM, encoding="utf-8")
    command = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", f"-I{source_directory()}"]
    done = subprocess.run(
        [*command, "-o", f"{folder}/special.so", f"{folder}/special.c"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    library = ctypes.CDLL(f"{folder}/special.so")

    def found(addresses: bytes) -> bytes:
        count = len(addresses) // 16
        result = ctypes.create_string_buffer(count)
        library.find_special(addresses, ctypes.c_long(count), result)
        return result.raw

    return found


class Intervals:
    """The same list as first and last numbers of 128 bits: looking through the networks takes too long
    here.
    """

    def __init__(self) -> None:
        ends = sorted(
            (
                int.from_bytes(pack_address(network.network_address), "big"),
                int.from_bytes(pack_address(network.broadcast_address), "big"),
            )
            for network in SPECIAL_NETWORKS
        )
        self.first = [first for first, _ in ends]
        self.last = [last for _, last in ends]

    def __contains__(self, number: int) -> bool:
        at = bisect.bisect_right(self.first, number) - 1
        return at >= 0 and number <= self.last[at]


def edges() -> Iterator[IPAddress]:
    """The first and last address of each network, what is next to them, and one bit away from them."""
    for network in SPECIAL_NETWORKS:
        family = type(network.network_address)
        for end in (int(network.network_address), int(network.broadcast_address)):
            near = [end - 1, end, end + 1, *(end ^ 1 << bit for bit in range(network.max_prefixlen))]
            for number in near:
                if 0 <= number < 1 << network.max_prefixlen:
                    yield family(number)
                    if network.version == 4:  # where IPv4 may stand in an IPv6 address, and where it may not
                        for prefix in (0, 0xFFFF << 32, 0xFFFE << 32, 0x64FF9B << 96, 0x64FF9B0001 << 80):
                            yield ipaddress.IPv6Address(prefix | number)
                        for prefix in (0x2002, 0x2001, 0x2003):
                            yield ipaddress.IPv6Address(prefix << 112 | number << 80)


def test_edges(find: Find) -> None:
    addresses = sorted(set(map(pack_address, edges())))
    assert len(addresses) > 10_000
    found = find(b"".join(addresses))
    intervals = Intervals()
    for address, special in zip(addresses, found, strict=True):
        assert bool(special) is (int.from_bytes(address, "big") in intervals), ipaddress.IPv6Address(address)


def test_intervals_are_the_list() -> None:
    """The reference of these tests against the function that user space calls."""
    intervals = Intervals()
    sample = random.Random(11).sample(sorted(set(map(pack_address, edges()))), 3000)
    for address in sample:
        number = int.from_bytes(address, "big")
        assert (number in intervals) is is_special(ipaddress.IPv6Address(number)), ipaddress.IPv6Address(
            number
        )


@pytest.mark.parametrize(
    ("head", "count"),
    [
        pytest.param("", 300_000, id="any"),
        pytest.param("0" * 20 + "ffff", 300_000, id="IPv4"),
        pytest.param("0064ff9b" + "0" * 16, 150_000, id="NAT64"),
        pytest.param("2002", 150_000, id="6to4"),
        pytest.param("f", 50_000, id="the last sixteenth of IPv6"),
        pytest.param("0" * 15, 50_000, id="the beginning of IPv6"),
    ],
)
def test_random_addresses(find: Find, head: str, count: int) -> None:
    noise = random.Random(head).randbytes(16 * count).hex()  # the same addresses each time
    rest = 32 - len(head)
    texts = [head + noise[32 * number : 32 * number + rest] for number in range(count)]
    found = find(bytes.fromhex("".join(texts)))
    intervals = Intervals()
    wrong = [
        text
        for text, special in zip(texts, found, strict=True)
        if bool(special) is not (int(text, 16) in intervals)
    ]
    assert wrong == []
