"""The name servers and their clients, with nothing enforced: each client gets on with each server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from . import ports
from .dns_lab import ADDRESSES, CLIENTS, OWNER, REMOTE, SERVERS, DnsLab, dns_lab
from .lab import Lab
from .servers import aside
from .zones import Zones

MANY = 200
FORTY = 40
FITTING = 29  # records of 16 octets, beside header and question in 512


def zones() -> Zones:
    result = Zones(OWNER)
    result.host("plain.zone.test")
    result.host("zero.zone.test", ttl=0)
    result.host("many.zone.test", MANY, 0)
    result.host("forty.zone.test", FORTY, 0)
    result.host("web.zone.test")
    result.service("web.zone.test")
    result.host("a.new.other.test")
    result.subtree("old.zone.test", "new.other.test")
    result.host("chain-6.other.test")
    result.chain("chain-1.zone.test", *(f"chain-{number}.other.test" for number in range(2, 7)))
    return result


@pytest.fixture(scope="module")
def servers(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DnsLab]:
    with dns_lab(lab, zones(), tmp_path_factory.mktemp("dns")) as result:
        yield result


def made_fragments(servers: DnsLab, server: str) -> int:
    return ports.counters(servers.server(server).pid)["Ip.FragCreates"]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("server", SERVERS)
def test_client_and_server(servers: DnsLab, server: str, client: str) -> None:
    reached = servers.reach(client, server, "plain.zone.test")
    assert reached.ok, reached.said
    if client not in ("go", "curl"):
        assert set(reached.errors) == set(servers.zones.addresses["plain.zone.test"])


@pytest.mark.parametrize("server", SERVERS)
def test_records(servers: DnsLab, server: str) -> None:
    addresses = servers.zones.addresses
    asked = ("chain-1.zone.test", "A", "web.zone.test", "HTTPS", "a.old.zone.test", "A")
    v4, v6 = addresses["web.zone.test"]
    assert servers.dig(server, "+short", *asked).splitlines() == [
        *(f"chain-{number}.other.test." for number in range(2, 7)),
        addresses["chain-6.other.test"][0],
        f'1 . alpn="h2" ipv4hint={v4} ipv6hint={v6}',
        "new.other.test.",
        "a.new.other.test.",
        addresses["a.new.other.test"][0],
    ]
    said = servers.dig(server, "zero.zone.test", "nobody.zone.test")
    assert re.search(r"^zero\.zone\.test\.\s+0\s+IN\s+A\s", said, re.M), said
    assert "status: NXDOMAIN" in said


@pytest.mark.parametrize("server", SERVERS)
def test_many_addresses(servers: DnsLab, server: str) -> None:
    """By TCP where the client is content with 512 octets, else by one datagram, in fragments if need be."""
    expected = set(servers.zones.addresses["many.zone.test"])
    fragments = made_fragments(servers, server)
    for reached in (
        servers.cares(server, "many.zone.test"),
        servers.glibc(server, "many.zone.test"),
        servers.glibc(server, "many.zone.test", options="use-vc"),
    ):
        assert reached.ok, reached.said
        assert set(reached.errors) == expected
    assert made_fragments(servers, server) == fragments
    reached = servers.cares(server, "many.zone.test", size=4096)
    assert reached.ok, reached.said
    assert set(reached.errors) == expected
    assert (made_fragments(servers, server) > fragments) == (server in REMOTE)
    assert re.search(r"\(UDP\).*rcvd: 32\d\d", servers.dig(server, "+bufsize=4096", "many.zone.test"), re.S)


@pytest.mark.parametrize("server", SERVERS)
def test_truncated_reply(servers: DnsLab, server: str) -> None:
    """unbound leaves out what does not fit as a whole, BIND as little as possible; a cache as it likes."""
    said = servers.dig(server, "+noedns", "+ignore", "forty.zone.test")
    found = re.search(r"flags: qr[a-z ]* tc .* ANSWER: (\d+),", said)
    assert found, said
    assert int(found[1]) in {"unbound": (0,), "bind": (FITTING,)}.get(server, (0, FITTING))


@pytest.mark.parametrize("server", [name for name in SERVERS if name != "resolved"])
def test_round_robin(servers: DnsLab, server: str) -> None:
    """All but systemd-resolved, which keeps the order in which the records came to it."""
    found = servers.dig(server, "+short", "+bufsize=4096", *["many.zone.test"] * 5).split()
    assert len(set(found)) == MANY
    assert len(set(found[::MANY])) > 1


def test_go_resolves_by_itself(servers: DnsLab) -> None:
    """Not by the C library, which skopeo could ask as well."""
    argv = ["skopeo", "--insecure-policy", "inspect", "--raw", "docker://plain.zone.test/lab/hello:1"]
    env = {"GODEBUG": "netdns=2"}
    result = servers.lab.client.run(argv, resolver=servers.server("bind").address, env=env).check()
    assert re.search(r"hostLookupOrder\(plain\.zone\.test\) = files,dns\b", result.stderr), result.stderr


def test_getent(servers: DnsLab) -> None:
    address = servers.server("bind").address
    found = servers.lab.client.run(["getent", "ahosts", "plain.zone.test"], resolver=address).check()
    assert {line.split()[0] for line in found.stdout.splitlines()} == set(
        servers.zones.addresses["plain.zone.test"]
    )


def test_curl(servers: DnsLab, record_property: Callable[[str, object], None]) -> None:
    version = servers.lab.client.run(["curl", "--version"]).check().stdout
    resolver = "c-ares" if "c-ares" in version else "the C library"
    record_property("curl resolves by", resolver)
    print(f"curl resolves by {resolver}")


def test_resolved_stays_in_its_namespaces(servers: DnsLab) -> None:
    files = [Path("/etc/resolv.conf"), Path("/etc/passwd")]
    before = [path.read_bytes() for path in files]
    servers.server("resolved")
    assert [path.read_bytes() for path in files] == before
    assert ADDRESSES["resolved"] not in before[0].decode()


def test_what_others_may_write_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "unbound").mkdir()
    (tmp_path / "unbound").chmod(0o777)
    with pytest.raises(PermissionError, match="only root"):
        aside.unpack("unbound", tmp_path)


def test_what_was_fetched_before_is_used_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FileNotFoundError):
        aside.unpack("unbound", tmp_path)
    old = tmp_path / "unbound"
    old.mkdir(mode=0o755)
    os.utime(old, (0, 0))
    assert aside.unpack("unbound", tmp_path) == old
