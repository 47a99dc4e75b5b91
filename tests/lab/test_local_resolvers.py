"""Real sockets of a resolver on the client, found from another process there, cookies and all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .lab import Lab

_ROOT = Path(__file__).parents[2]

# Binds each (family, address, port, IPV6_V6ONLY or null), and tells the cookies (SO_COOKIE is 57).
_SERVE = """
import json, socket, struct, sys
kept = []
for family, address, port, v6only in json.loads(sys.argv[1]):
    item = socket.socket(family, socket.SOCK_DGRAM)
    item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6only is not None:
        item.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    item.bind((address, port))
    kept.append(item)
print([struct.unpack("=Q", item.getsockopt(socket.SOL_SOCKET, 57, 8))[0] for item in kept], flush=True)
sys.stdin.read()
"""

# Asks for each (address, port), with the kernel's word on cgroups and without, as before Linux 5.9.
_FIND = """
import dataclasses, ipaddress, json, sys, time
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.local import LocalFinder, find_local, udp_sockets

def before_5_9(port):
    return [dataclasses.replace(item, cgroup_id=None) for item in udp_sockets(port)]

wanted = [TrustedResolver(ipaddress.ip_address(a), port, True) for a, port in json.loads(sys.argv[1])]
finder = LocalFinder()
first = finder.find(wanted)
started = time.perf_counter()
assert finder.find(wanted) == first == find_local(wanted)
seconds = time.perf_counter() - started
told = any(item.cgroup_id is not None for item in udp_sockets())
found = [first, LocalFinder(before_5_9).find(wanted)]
print(json.dumps([told, seconds, [[dataclasses.asdict(item) for item in one] for one in found]], default=str))
"""

V4, V6 = 2, 10
SOCKETS = [
    (V4, "127.0.0.53", 53, None),
    (V4, "0.0.0.0", 53, None),
    (V4, "127.0.0.1", 5301, None),
    (V6, "::", 5302, 0),
    (V6, "::", 5303, 1),
    (V6, "::ffff:127.0.0.1", 5304, None),
    (V6, "::1", 5305, None),
]


class Resolver:
    """A process on the client that serves these sockets, in a cgroup of its own."""

    def __init__(self, lab: Lab, cgroup: Path, sockets: list[Any]) -> None:
        self._lab = lab
        pipe = subprocess.PIPE
        argv = [sys.executable, "-c", _SERVE, json.dumps(sockets)]
        self._process = lab.client.popen(argv, cgroup=cgroup, stdin=pipe, stdout=pipe)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self.cookies: list[int] = json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._lab.client.stop(self._process)


def find(lab: Lab, *endpoints: tuple[str, int]) -> tuple[bool, float, list[list[dict[str, Any]]]]:
    """Whether the kernel tells cgroups, the seconds of two rounds, and what was found in both ways."""
    argv = [sys.executable, "-c", _FIND, json.dumps(endpoints)]
    told, seconds, found = json.loads(lab.client.run(argv, cwd=_ROOT).check().stdout)
    return told, seconds, found


@pytest.fixture
def cgroup(lab: Lab, request: pytest.FixtureRequest) -> Path:
    return lab.new_cgroup(f"resolver-{request.node.name.partition('[')[0]}")


@pytest.fixture
def resolver(lab: Lab, cgroup: Path) -> Iterator[Resolver]:
    result = Resolver(lab, cgroup, SOCKETS)
    yield result
    result.stop()


@pytest.mark.core
def test_sockets_are_found(lab: Lab, cgroup: Path, resolver: Resolver) -> None:
    cookie = dict(zip([(address, port) for _, address, port, _ in SOCKETS], resolver.cookies, strict=True))
    expected = {
        ("127.0.0.53", 53): ("127.0.0.53", 53),
        ("127.0.0.1", 53): ("0.0.0.0", 53),
        ("10.77.0.10", 53): ("0.0.0.0", 53),
        ("127.0.0.1", 5301): ("127.0.0.1", 5301),
        ("127.0.0.2", 5301): None,
        ("127.0.0.1", 5302): ("::", 5302),
        ("::1", 5302): ("::", 5302),
        ("127.0.0.1", 5303): None,
        ("fd77::10", 5303): ("::", 5303),
        ("127.0.0.1", 5304): ("::ffff:127.0.0.1", 5304),
        ("::1", 5304): None,
        ("::1", 5305): ("::1", 5305),
        ("127.0.0.1", 5305): None,
    }
    _, _, ways = find(lab, *expected)
    for found in ways:
        assert [(item["address"], item["port"]) for item in found] == list(expected)
        for item, served_by in zip(found, expected.values(), strict=True):
            if served_by is None:
                assert (item["cookies"], item["cgroups"], item["process"], item["uid"]) == (
                    [],
                    [],
                    None,
                    None,
                )
            else:
                assert item["cookies"] == [cookie[served_by]]
                assert item["cgroups"] == [str(cgroup)]
                assert item["process"].startswith("python")
                assert item["uid"] == 0
                assert item["sockets"][0]["pid"] == resolver.pid


def test_a_moved_process(lab: Lab, cgroup: Path, resolver: Resolver) -> None:
    """Its sockets stay in the cgroup that they were made in, and there the hooks of their packets run."""
    other = lab.new_cgroup("resolver-moved")
    (other / "cgroup.procs").write_text(str(resolver.pid), encoding="ascii")
    told, _, (first, before_5_9) = find(lab, ("127.0.0.53", 53))
    assert first[0]["cgroups"] == [str(cgroup if told else other)]
    assert before_5_9[0]["cgroups"] == [str(other)]


def test_somebody_shares_the_address(lab: Lab, cgroup: Path, resolver: Resolver) -> None:
    """By SO_REUSEADDR: both sockets are told, each with its owner, and no common one."""
    rogue = Resolver(lab, lab.client_cgroup, [(V4, "127.0.0.53", 53, None)])
    try:
        _, _, (found, _) = find(lab, ("127.0.0.53", 53))
    finally:
        rogue.stop()
    assert found[0]["cookies"] == sorted([resolver.cookies[0], *rogue.cookies])
    assert found[0]["cgroups"] == sorted(map(str, [cgroup, lab.client_cgroup]))
    by_cookie = {item["cookie"]: item for item in found[0]["sockets"]}
    assert by_cookie[rogue.cookies[0]]["cgroup"] == str(lab.client_cgroup)
    assert by_cookie[resolver.cookies[0]]["pid"] == resolver.pid


def test_the_labs_own_resolver(lab: Lab) -> None:
    """dnsmasq in its own namespace: addresses that are not loopback ones."""
    argv = [sys.executable, "-c", _FIND, json.dumps([(lab.resolver, 53), (lab.resolver_v6, 53)])]
    _, seconds, (found, _) = json.loads(lab.dns.node.run(argv, cwd=_ROOT).check().stdout)
    assert [item["process"] for item in found] == ["dnsmasq", "dnsmasq"]
    assert all(len(item["cookies"]) == len(item["cgroups"]) == 1 for item in found)
    assert seconds < 1  # a few milliseconds where nothing else runs


def test_other_namespaces_are_not_ours(lab: Lab) -> None:
    """The same addresses are bound in the resolver's namespace, and nobody serves them here."""
    _, _, (found, _) = find(lab, (lab.resolver, 53))
    assert found[0]["cookies"] == []
