"""Resolvers that answer and that do not, on the loopback interface; and files that say how to get at them."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.local import LocalResolver
from ram_ebpf.dns.reach import Answered, Reached, reach
from ram_ebpf.doctor import resolvers
from ram_ebpf.doctor.finding import Finding, Status

from ..dns.server import LOCALHOST, Server, fails, free_port, knows, reply
from .cases import POLICY, case_of

NAME = "registry.corp.example"
GOOD = knows((f"{NAME}.", 60, "A", "192.0.2.7"))


def asked(*servers: TrustedResolver, timeout: float = 2.0) -> list[Finding]:
    return list(resolvers.of_reached(asyncio.run(reach(servers, (NAME, "."), timeout))))


def test_resolver_that_answers() -> None:
    with Server(GOOD) as server:
        (found,) = asked(server.resolver)
        assert server.types() == ["A", "A"]
    assert found.status is Status.OK
    assert found.title.startswith(f"127.0.0.1#{server.resolver.port} (on this host) answers in ")
    assert found.subject == f"127.0.0.1#{server.resolver.port}"


def test_resolver_that_knows_no_such_name() -> None:
    with Server(fails(dns.rcode.NXDOMAIN)) as server:
        (found,) = asked(server.resolver)
    assert found.status is Status.OK


@pytest.mark.parametrize("code", [dns.rcode.REFUSED, dns.rcode.SERVFAIL])
def test_resolver_that_refuses(code: dns.rcode.Rcode) -> None:
    with Server(fails(code)) as server:
        (found,) = asked(server.resolver)
    assert found.status is Status.FAILURE
    assert f"does not answer over UDP: {dns.rcode.to_text(code)}" in found.title


def test_domain_that_is_broken() -> None:
    """The next name is asked for, as it may be that domain's fault."""

    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        broken = query.question[0].name == dns.name.from_text(NAME)
        return reply(query, rcode=dns.rcode.SERVFAIL if broken else dns.rcode.NOERROR)

    with Server(handle) as server:
        (found,) = asked(server.resolver)
    assert found.status is Status.OK


def test_nobody_listens() -> None:
    nobody = TrustedResolver(LOCALHOST, free_port(), True)
    started = time.monotonic()
    (found,) = asked(nobody, timeout=0.5)
    assert time.monotonic() - started < 5
    assert found.status is Status.FAILURE
    assert "no name can be learned" in found.title
    with Server(GOOD) as server:
        bad, good = asked(nobody, server.resolver, timeout=0.5)
    assert (bad.status, good.status) == (Status.WARNING, Status.OK)
    assert bad.title.endswith("; others do")


def test_no_tcp() -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message | None:
        return None if over_tcp else GOOD(query, over_tcp)  # type: ignore[return-value]

    with Server(handle) as server:
        (found,) = asked(server.resolver)
    assert found.status is Status.WARNING
    assert "does not answer over TCP" in found.title


def test_what_is_special() -> None:
    fine = Answered(0.01)
    stub = Reached(TrustedResolver(ipaddress.ip_address("127.0.0.53"), 53, True), fine, fine)
    slow = Reached(TrustedResolver(ipaddress.ip_address("192.0.2.1")), Answered(1.4), fine)
    link = Reached(TrustedResolver(ipaddress.ip_address("fe80::1")), Answered(0.0, "Invalid argument"), fine)
    first, second, third = resolvers.of_reached([stub, slow, link])
    assert first.title == "127.0.0.53 (systemd-resolved's stub) answers in 10 ms, over TCP as well"
    assert second.status is Status.WARNING
    assert "192.0.2.1 takes 1400 ms" in second.title
    assert "without their interface" in third.cure


def test_who_serves_those_on_this_host() -> None:
    cgroup = Path("/sys/fs/cgroup/system.slice/dnsmasq.service")
    served = LocalResolver(LOCALHOST, 53, (7,), (cgroup,), 101, "dnsmasq")
    nobody = LocalResolver(ipaddress.ip_address("127.0.0.54"), 5353, (), (), None, None)
    first, second = resolvers.of_local([served, nobody])
    assert first.title == "127.0.0.1 is served by dnsmasq, whose replies are recognised"
    assert (second.status, second.subject) == (Status.WARNING, "127.0.0.54#5353")


# --- resolv.conf


@pytest.mark.parametrize(
    ("text", "more", "subjects"),
    [
        ("nameserver 10.0.0.53\n", "", []),
        ("search corp.example\nnameserver 10.0.0.53\n", "", []),
        ("search corp.example\n", "dns: { allowed_names_only: true }\n", ["search"]),
        ("nameserver 10.0.0.53\noptions edns0 use-vc\n", "", ["use-vc"]),
        ("nameserver 10.0.0.53\n", "resolvers: [10.0.0.53]\n", []),
        ("nameserver 10.0.0.53\nnameserver 10.0.0.54\n", "resolvers: [10.0.0.53]\n", ["nameserver"]),
        ("nameserver 10.0.0.53\n", "resolvers: [{ address: 10.0.0.53, port: 5353 }]\n", ["nameserver"]),
    ],
)
def test_resolv_conf(text: str, more: str, subjects: list[str]) -> None:
    policy = case_of(POLICY + more).policy
    assert policy is not None
    found = list(resolvers.of_resolv_conf(text, policy))
    assert [item.subject for item in found if item.status is Status.WARNING] == subjects
    assert found


# --- the name service


@pytest.mark.parametrize(
    ("text", "modules"),
    [
        ("hosts: files dns\n", ["files", "dns"]),
        ("passwd: files\nhosts:\tmymachines resolve [!UNAVAIL=return] files dns # x\n",
         ["mymachines", "resolve", "files", "dns"]),
        ("# hosts: files\n", []),
        ("", []),
    ],
)  # fmt: skip
def test_nsswitch(text: str, modules: list[str]) -> None:
    assert resolvers.nss_modules(text) == modules


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("", True),
        ("enable-cache hosts yes\n", True),
        ("\tenable-cache\t\thosts\t\tno\n", False),
        ("# enable-cache hosts no\nenable-cache passwd no\n", True),
    ],
)
def test_nscd(text: str, keeps: bool) -> None:
    assert resolvers.nscd_keeps_hosts(text) is keeps


@pytest.mark.parametrize(
    ("modules", "nscd", "wildcards", "status"),
    [
        (["files", "dns"], None, True, Status.OK),
        (["files", "dns", "resolve"], None, True, Status.OK),
        (["files", "resolve", "dns"], None, True, Status.WARNING),
        (["files", "resolve"], None, True, Status.WARNING),
        (["files", "resolve", "dns"], None, False, Status.OK),
        (["files", "dns"], "/run/nscd/socket", True, Status.WARNING),
        (["files", "dns"], "/run/nscd/socket", False, Status.OK),
    ],
)
def test_name_service(modules: list[str], nscd: str | None, wildcards: bool, status: Status) -> None:
    found = resolvers.of_name_service(modules, nscd, wildcards)
    assert found.status is status
    assert bool(found.cure) == (status is Status.WARNING)
