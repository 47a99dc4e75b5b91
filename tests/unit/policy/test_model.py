"""What a right policy becomes."""

from __future__ import annotations

import ipaddress

import pytest
from pydantic import ValidationError

from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.model import (
    AddressEntry,
    AlsoHost,
    DnsOptions,
    HostEntry,
    Mode,
    Policy,
    Posture,
    Resolver,
)
from ram_ebpf.policy.names import HostPattern
from ram_ebpf.policy.refusals import Switch


def policy_with(text: str) -> Policy:
    return parse_policy(f"version: 1\nregistries: [ghcr]\n{text}\n".encode(), "p.yaml")


def test_defaults() -> None:
    policy = policy_with("")
    assert (policy.organization, policy.message, policy.mode) == (None, None, Mode.ENFORCE)
    assert policy.refusals.responder is Switch.ON
    assert policy_with("refusals: { responder: off }").refusals.responder is Switch.OFF
    assert policy.resolvers == "auto"
    assert policy.denied == ()
    assert policy.dns == DnsOptions(
        grace_seconds=30, minimum_ttl_seconds=1, maximum_ttl_seconds=86400, allowed_names_only=False
    )
    assert [(scope.kind, scope.target, scope.posture) for scope in policy.scopes] == [
        ("engine", "all", Posture.STRICT)
    ]


def test_entries() -> None:
    text = """
version: 1
registries:
  - host: Registry.Corp.example
    ports: [5000, 443]
    also: [s3.corp.example, { host: "*.cdn.corp.example", ports: [8443] }]
    private: true
  - address: 10.20.0.7
  - address: 2001:db8::/32
    ports: [5000]
"""
    assert parse_policy(text.encode(), "p.yaml").registries == (
        HostEntry(
            host=HostPattern.parse("registry.corp.example"),
            ports=(5000, 443),
            also=(
                AlsoHost(host=HostPattern.parse("s3.corp.example")),
                AlsoHost(host=HostPattern.parse("*.cdn.corp.example"), ports=(8443,)),
            ),
            private=True,
        ),
        AddressEntry(address=ipaddress.ip_network("10.20.0.7/32"), ports=(443,)),
        AddressEntry(address=ipaddress.ip_network("2001:db8::/32"), ports=(5000,)),
    )


NETWORKS = [ipaddress.ip_network(text) for text in ("fd00:1::/64", "10.20.0.0/16", "10.0.0.1/32", "::1/128")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("true", True, id="true"),
        pytest.param("false", False, id="false"),
        pytest.param("[10.20.0.0/16]", (NETWORKS[1],), id="one"),
        pytest.param("[fd00:1::/64, 10.20.0.0/16, 10.0.0.1, '::1']", tuple(NETWORKS), id="in-this-order"),
        pytest.param(
            f"[{', '.join(f'10.{number}.0.0/16' for number in range(16))}]",
            tuple(ipaddress.ip_network(f"10.{number}.0.0/16") for number in range(16)),
            id="sixteen",
        ),
    ],
)
def test_private(text: str, expected: object) -> None:
    data = f"version: 1\nregistries: [{{ host: a.example, private: {text} }}]\n"
    (entry,) = parse_policy(data.encode(), "p.yaml").registries
    assert isinstance(entry, HostEntry)
    assert entry.private == expected
    assert type(entry.private) is type(expected)


def test_private_made_in_python() -> None:
    host = HostPattern.parse("a.example")
    assert HostEntry(host=host).private is False
    assert HostEntry(host=host, private=(NETWORKS[0],)).private == (NETWORKS[0],)


def test_denied() -> None:
    policy = policy_with("denied: [Public.Corp.example., '*.bücher.example', '**.a.b', 'x*.*.c', quay.]")
    assert [pattern.text for pattern in policy.denied] == [
        "public.corp.example",
        "*.xn--bcher-kva.example",
        "**.a.b",
        "x*.*.c",
        "quay",  # with its dot it is a name, not the catalogue's id
    ]
    again = Policy(version=1, registries=policy.registries, denied=policy.denied)
    assert again.denied == policy.denied


@pytest.mark.parametrize("value", [True, False])
def test_allowed_names_only(value: bool) -> None:
    dns = policy_with(f"dns: {{ allowed_names_only: {str(value).lower()} }}").dns
    assert dns.allowed_names_only is value
    assert dns.grace_seconds == 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("auto", "auto", id="auto"),
        pytest.param("[10.0.0.53]", (Resolver(address=ipaddress.ip_address("10.0.0.53")),), id="ipv4"),
        pytest.param("[2001:db8::53]", (Resolver(address=ipaddress.ip_address("2001:db8::53")),), id="ipv6"),
        pytest.param(
            "[{ address: 10.0.0.53, port: 5353 }]",
            (Resolver(address=ipaddress.ip_address("10.0.0.53"), port=5353),),
            id="port",
        ),
    ],
)
def test_resolvers(text: str, expected: object) -> None:
    assert policy_with(f"resolvers: {text}").resolvers == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("cgroup: /system.slice/a.service", ("cgroup", "/system.slice/a.service"), id="cgroup"),
        pytest.param("cgroup: /", ("cgroup", "/"), id="cgroup-root"),
        pytest.param("engine: docker", ("engine", "docker"), id="docker"),
        pytest.param("engine: containerd", ("engine", "containerd"), id="containerd"),
        pytest.param("engine: podman", ("engine", "podman"), id="podman"),
        pytest.param("engine: crio", ("engine", "crio"), id="crio"),
        pytest.param("engine: all", ("engine", "all"), id="all"),
        pytest.param("builders: buildx", ("builders", "buildx"), id="builders"),
        pytest.param("builders: kubernetes", ("builders", "kubernetes"), id="builders-kubernetes"),
        pytest.param("builders: any", ("builders", "any"), id="builders-any"),
        pytest.param("unit: docker.service", ("unit", "docker.service"), id="unit"),
        pytest.param("unit: 'getty@tty1.service'", ("unit", "getty@tty1.service"), id="unit-instance"),
        pytest.param("netns: blue", ("netns", "blue"), id="netns"),
        pytest.param("device: eth0", ("device", "eth0"), id="device"),
        pytest.param("container: buildkit0", ("container", "buildkit0"), id="container"),
    ],
)
@pytest.mark.parametrize("posture", [Posture.STRICT, Posture.REGISTRIES])
def test_scopes(text: str, expected: tuple[str, str], posture: Posture) -> None:
    (scope,) = policy_with(f"scopes: [{{ {text}, posture: {posture.value} }}]").scopes
    assert (scope.kind, scope.target) == expected
    assert scope.posture is posture


def test_host_scope() -> None:
    (scope,) = policy_with("scopes: [{ host: { posture: registries } }]").scopes
    assert (scope.kind, scope.target, scope.posture) == ("host", "", Posture.REGISTRIES)
    (scope,) = policy_with("scopes: [{ host: { posture: strict } }]").scopes
    assert scope.posture is Posture.STRICT
    # Of a host it is not the strict one: that would cut the host off.
    (scope,) = policy_with("scopes: [{ host: {} }]").scopes
    assert scope.posture is Posture.REGISTRIES


def test_edges_of_numbers() -> None:
    dns = policy_with("dns: { grace_seconds: 0, minimum_ttl_seconds: 3600, maximum_ttl_seconds: 604800 }").dns
    assert (dns.grace_seconds, dns.minimum_ttl_seconds, dns.maximum_ttl_seconds) == (0, 3600, 604800)


def test_frozen() -> None:
    policy = policy_with("")
    with pytest.raises(ValidationError):
        policy.mode = Mode.AUDIT  # type: ignore[misc]


def test_blobs_host_of_two_registries() -> None:
    text = "version: 1\nregistries:\n  - {host: a.b, also: [s3.b]}\n  - {host: c.b, also: [s3.b]}\n"
    assert len(parse_policy(text.encode(), "p.yaml").registries) == 2
