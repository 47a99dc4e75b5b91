"""The policy's names and their addresses, and what a hosts file makes of them."""

from __future__ import annotations

import ipaddress

import pytest

from ram_ebpf.dns.lookup import LookupFailedError
from ram_ebpf.dns.response import Answer
from ram_ebpf.doctor import names
from ram_ebpf.doctor.finding import Status
from ram_ebpf.doctor.names import HostsEntry, hosts_entries

from .cases import POLICY, case_of

ip = ipaddress.ip_address
CASE = case_of(POLICY)


def answer(name: str, *addresses: str) -> Answer:
    return Answer(name, tuple((ip(address), 60) for address in addresses))


def test_names_that_are_well() -> None:
    (found,) = names.of_answers(
        CASE,
        {
            "registry.corp.example": answer("registry.corp.example", "192.0.2.7", "2001:db8::7"),
            "inside.corp.example": answer("inside.corp.example", "10.20.1.1"),
        },
    )
    assert (found.status, found.title) == (
        Status.OK,
        "2 of 2 exact names of the policy: found, and what is found is opened",
    )


def test_names_that_are_not() -> None:
    unknown, private = names.of_answers(
        CASE,
        {
            "registry.corp.example": LookupFailedError("192.0.2.53: SERVFAIL"),
            "inside.corp.example": answer("inside.corp.example", "10.21.1.1"),
        },
    )
    assert (unknown.status, unknown.subject) == (Status.WARNING, "unknown")
    assert "registry.corp.example (192.0.2.53: SERVFAIL)" in unknown.title
    assert (private.status, private.subject) == (Status.WARNING, "private")
    assert "inside.corp.example (10.21.1.1)" in private.title
    assert "private:" in private.cure


def test_only_some_were_looked_up() -> None:
    (found,) = names.of_answers(CASE, {"registry.corp.example": answer("registry.corp.example", "192.0.2.7")})
    assert found.title.startswith("1 of 2 exact names")


def test_many_are_not_all_shown() -> None:
    hosts = "".join(f"  - host: h{n}.example\n" for n in range(30))
    case = case_of(f"version: 1\nregistries:\n{hosts}")
    (found,) = names.of_answers(case, {name: answer(name) for name in case.exact_names})
    assert found.title.endswith("h3.example (no address) and 26 more")


def test_nothing_to_look_up() -> None:
    case = case_of("version: 1\nregistries:\n  - address: 10.0.0.1\n")
    (found,) = names.of_answers(case, {})
    assert found.status is Status.OK
    (found,) = names.of_answers(CASE, {})
    assert "no resolver answers" in found.title


@pytest.mark.parametrize(
    ("name", "address", "wrong"),
    [
        ("registry.corp.example", "192.0.2.7", False),
        ("registry.corp.example", "10.0.0.7", True),
        ("registry.corp.example", "127.0.0.1", True),
        ("registry.corp.example", "10.30.0.7", False),  # an address: entry opens it
        ("inside.corp.example", "10.20.3.4", False),
        ("inside.corp.example", "10.30.0.8", True),
        ("inside.corp.example", "fd00::1", True),
    ],
)
def test_private_addresses(name: str, address: str, wrong: bool) -> None:
    assert bool(names.unexpected(CASE, name, answer(name, address))) is wrong


# --- the hosts file


def test_hosts_entries() -> None:
    text = (
        "127.0.0.1\tlocalhost vm # registry.corp.example\n\n# 10.0.0.1 a\n10.0.0.1 a b\nnonsense c\n"
        "fe80::1%lo0 d\n::1\n"
    )
    assert hosts_entries(text) == [
        HostsEntry(1, "localhost", ip("127.0.0.1")),
        HostsEntry(1, "vm", ip("127.0.0.1")),
        HostsEntry(4, "a", ip("10.0.0.1")),
        HostsEntry(4, "b", ip("10.0.0.1")),
        HostsEntry(6, "d", ip("fe80::1")),
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("192.0.2.9 registry.corp.example", True),
        ("192.0.2.9 Registry.Corp.Example.", True),
        ("192.0.2.7 registry.corp.example", False),  # as the resolver says
        ("10.30.0.7 registry.corp.example", False),  # an address: entry opens it on both ports
        ("10.30.0.7 a.mirrors.corp.example", False),
        ("192.0.2.9 a.mirrors.corp.example", True),
        ("192.0.2.9 bad.mirrors.corp.example", False),  # refused anyway
        ("192.0.2.9 elsewhere.example", False),
        ("192.0.2.9", False),
    ],
)
def test_hosts_file(line: str, told: bool) -> None:
    answers = {"registry.corp.example": answer("registry.corp.example", "192.0.2.7")}
    (found,) = names.of_hosts(CASE, hosts_entries(f"\n{line}\n"), answers)
    assert (found.status is Status.WARNING) == told
    if told:
        assert found.title.startswith("/etc/hosts:2: ")
