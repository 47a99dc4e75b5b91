"""What is proposed for what was refused; whatever that is, the policy with it loads."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.model import HostEntry
from ram_ebpf.policy.rules import compile_rules
from ram_ebpf.policy.scope_rules import rules_of_scopes
from ram_ebpf.suggestions.proposals import Kind, Suggestions, suggest
from ram_ebpf.suggestions.refused import Refused
from ram_ebpf.suggestions.summary import Forgotten
from ram_ebpf.suggestions.text import as_json, entry_data, lines

from .entries import NOW, policy_of, refused

CATALOGUE = load_catalogue()
POLICY = """\
version: 1
registries:
  - docker-hub
  - host: registry.corp.example
    ports: [443, 5000]
    also: [s3.corp.example]
  - host: "*.mirrors.corp.example"
  - host: full.corp.example
    ports: [1, 2, 3, 4, 5, 6, 7, 8]
  - address: 10.30.0.7
    ports: [5000]
  - address: 10.31.0.0/16
denied:
  - public.corp.example
  - "*.banned.example"
proxies:
  - host: proxy.corp.example
    ports: [3128]
  - address: 10.40.0.1
    ports: [3128]
"""


AFTER: dict[str, Any] = {
    "after": "registry.corp.example",
    "after_rule": "registry.corp.example",
    "after_count": 1,
}


def suggested(*entries: Refused, policy: str = POLICY, min_count: int = 1) -> Suggestions:
    return suggest(entries, policy_of(policy), CATALOGUE, min_count)


def pasted(*entries: Refused, policy: str = POLICY) -> list[Any]:
    """What would be pasted, as data."""
    return [
        entry_data(its.entry) for its in suggested(*entries, policy=policy).proposals if not its.is_change
    ]


def why(*entries: Refused) -> list[tuple[str, str]]:
    made = suggested(*entries)
    assert made.proposals == []
    return [(its.subject, its.why) for its in made.withheld]


def printed(made: Suggestions, indent: int = 2, forgotten: tuple[Forgotten, ...] = ()) -> str:
    return "".join(f"{line}\n" for line in lines(made, forgotten, NOW - 86400, NOW, indent))


def loads_with(text: str, policy: str = POLICY) -> None:
    """The policy loads with what was printed below its `registries:`."""
    head, key, rest = policy.partition("registries:\n")
    whole = policy_of(f"{head}{key}{text}{rest}")
    compile_rules(whole, CATALOGUE)
    rules_of_scopes(whole, CATALOGUE)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        pytest.param(["ghcr.io"], ["ghcr"], id="API"),
        pytest.param(["ghcr.io", "pkg-containers.githubusercontent.com"], ["ghcr"], id="API and blobs"),
        pytest.param(["pkg-containers.githubusercontent.com"], ["ghcr"], id="blobs alone"),
        pytest.param(["quay.io", "cdn03.quay.io"], ["quay"], id="blobs of two, and the API of one"),
        pytest.param(["cdn03.quay.io"], [{"host": "cdn03.quay.io"}], id="blobs of two"),
        pytest.param(["x.azurecr.io", "s.blob.core.windows.net"], ["acr"], id="shared blobs, and the API"),
        # The id would allow all of a vendor's registries for the sake of anybody's bucket.
        pytest.param(["s.blob.core.windows.net"], [{"host": "s.blob.core.windows.net"}], id="shared blobs"),
        pytest.param(["hub.docker.com"], [{"host": "hub.docker.com"}], id="optional, of an id that is there"),
        pytest.param(["new.example"], [{"host": "new.example"}], id="unknown"),
    ],
)
def test_hosts(hosts: list[str], expected: list[Any]) -> None:
    assert pasted(*map(refused, hosts)) == expected


def test_ports() -> None:
    found = pasted(refused("new.example", 5000), refused("new.example"), refused("other.example", 80))
    assert found == [
        {"host": "new.example", "ports": [443, 5000]},
        {"host": "other.example", "ports": [80]},
    ]
    # On the other port it is no registry of the catalogue, and an exact entry's ports alone count.
    assert pasted(refused("x.azurecr.io", 5000)) == [{"host": "x.azurecr.io", "ports": [5000]}]
    assert pasted(refused("x.azurecr.io", 5000), refused("x.azurecr.io")) == [
        "acr",
        {"host": "x.azurecr.io", "ports": [443, 5000]},
    ]


def test_the_most_used_ports_of_many() -> None:
    (proposal,) = suggested(*(refused("new.example", port, count=port) for port in range(1, 12))).proposals
    assert entry_data(proposal.entry) == {"host": "new.example", "ports": [4, 5, 6, 7, 8, 9, 10, 11]}
    assert proposal.note == "11 ports were tried, and an entry has 8 at most"


def test_an_id_for_all_customers_says_so() -> None:
    (proposal,) = suggested(refused("1.dkr.ecr.eu-west-1.amazonaws.com")).proposals
    assert proposal.note.endswith("to trust one alone, write host: for it")
    (proposal,) = suggested(refused("ghcr.io")).proposals
    assert proposal.note == "GitHub Container Registry"


@pytest.mark.parametrize("reason", ["name-mismatch", "denied-registry", "denied-unasked", "denied-image"])
def test_reasons_that_are_about_a_host(reason: str) -> None:
    assert pasted(refused("new.example", reason=reason)) == [{"host": "new.example"}]


@pytest.mark.parametrize(
    ("entry", "subject", "reason"),
    [
        (refused("public.corp.example"), "public.corp.example", "the policy denies it, by public."),
        (refused("a.banned.example"), "a.banned.example", "the policy denies it, by *.banned.example"),
        (refused("proxy.corp.example"), "proxy.corp.example", "it is a proxy, by "),
        (refused("registry.corp.example"), "registry.corp.example", "registry.corp.example (policy.yaml:4)"),
        (refused("full.corp.example", 99), "full.corp.example", "full.corp.example (policy.yaml:8) has 8"),
        (refused("new.example", protocol="udp"), "new.example", "registries are reached by TCP"),
        (refused("", protocol="udp"), "192.0.2.1", "registries are reached by TCP"),
        (refused("", address="169.254.169.254"), "169.254.169.254", "no registry has such an address"),
        (refused("", address="10.31.1.2"), "10.31.1.2", "10.31.0.0/16 (policy.yaml:12) allows it"),
        (refused("", address="10.40.0.1"), "10.40.0.1", "10.40.0.1/32 (policy.yaml:19) cannot have other p"),
        (refused("", address="nonsense"), "'nonsense'", "it is no address"),
        (refused("", reason="denied-resolver", port=53), "denied-resolver", "another resolver was asked"),
        (refused("", reason="denied-protocol", port=0), "denied-protocol", "no registry to be added"),
        (refused("5.0.in-addr.arpa", reason="denied-query-name"), "5.0.in-addr.arpa", "it was only looked"),
    ],
)  # fmt: skip
def test_withheld(entry: Refused, subject: str, reason: str) -> None:
    ((found, its_reason),) = why(entry)
    assert found == subject
    assert its_reason.startswith(reason)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example\n  - host: injected.example",
        "evil.example\r- ghcr",
        "evil.example\u2028- ghcr",
        "evil.example\x85- ghcr",
        "*.example",  # a name in the DNS may have any byte, and here would be a pattern
        "**.example",
        "-evil.example",
        "e\x1b[2Jvil.example",
        "Evil.example",
        "evil..example",
        "10.0.0.1",
        'a".example',
        "a b.example",
        "a" * 64 + ".example",
        "a." * 127 + "example",
        "b\u00fccher.example",
        "x: y",
        "#",
    ],
)
def test_what_is_no_host_name_is_no_entry(host: str) -> None:
    made = suggested(refused(host))
    assert made.proposals == []
    (withheld,) = made.withheld
    assert withheld.why == "it is no host name"
    text = printed(made)
    assert all(line.startswith("  #") for line in text.splitlines())
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", ["null", "true", "no", "1e5.0", "0x1f", "1_0.5", "y", "on", "_a.example"])
def test_names_that_yaml_takes_for_something_else(name: str) -> None:
    made = suggested(refused(name))
    (proposal,) = made.proposals
    assert isinstance(proposal.entry, HostEntry)
    assert yaml.safe_load(printed(made)) == [{"host": name}]
    loads_with(printed(made))


def test_blobs_of_an_allowed_registry() -> None:
    after = AFTER
    made = suggested(refused("cdn.corp.example", **after), refused("cdn.corp.example", 8443, **after))
    (proposal,) = made.proposals
    assert (proposal.kind, proposal.origin) == (Kind.ALSO, "policy.yaml:4")
    text = printed(made)
    assert "policy.yaml:4: would be refused 2 times" in text
    assert "#   - host: registry.corp.example\n" in text
    assert "#     also: [{ host: cdn.corp.example, ports: [443, 8443] }]\n" in text
    assert as_json(made, [], NOW, NOW)["suggestions"][0]["entry"] == {
        "host": "registry.corp.example",
        "also": [{"host": "cdn.corp.example", "ports": [443, 8443]}],
    }
    loads_with(text)
    # Changed as it says, it loads as well.
    whole = POLICY.replace("also: [s3", "also: [{ host: cdn.corp.example, ports: [443, 8443] }, s3")
    assert compile_rules(policy_of(whole), CATALOGUE).allows("cdn.corp.example") is not None


def test_blobs_of_a_registry_of_the_catalogue() -> None:
    """An id has no `also`."""
    after = {**AFTER, "after": "registry-1.docker.io"}
    (proposal,) = suggested(refused("cdn.new.example", **after)).proposals
    assert (proposal.kind, entry_data(proposal.entry)) == (Kind.HOST, {"host": "cdn.new.example"})
    assert proposal.note.startswith(
        "looked up shortly after registry-1.docker.io, which registry-1.docker.io (do"
    )


def test_a_host_that_was_once_looked_up_after_another() -> None:
    after = AFTER
    assert pasted(refused("new.example", count=3, **after)) == [{"host": "new.example"}]


@pytest.mark.parametrize(
    ("entry", "origin", "data"),
    [
        (
            refused("registry.corp.example", 8443, reason="denied-port"),
            "policy.yaml:4",
            {"host": "registry.corp.example", "ports": [443, 5000, 8443]},
        ),
        (
            refused("a.mirrors.corp.example", 80, reason="denied-port"),
            "policy.yaml:7",
            {"host": "*.mirrors.corp.example", "ports": [80, 443]},
        ),
        (
            refused("", address="10.30.0.7"),
            "policy.yaml:10",
            {"address": "10.30.0.7", "ports": [443, 5000]},
        ),
    ],
)  # fmt: skip
def test_ports_of_an_entry_that_is_there(entry: Refused, origin: str, data: dict[str, Any]) -> None:
    made = suggested(entry)
    (proposal,) = made.proposals
    assert (proposal.kind, proposal.origin, entry_data(proposal.entry)) == (Kind.PORTS, origin, data)
    loads_with(printed(made))


def test_addresses() -> None:
    assert pasted(refused("", address="10.20.0.7", port=5000), refused("", address="::ffff:10.20.0.8")) == [
        {"address": "10.20.0.7", "ports": [5000]},
        {"address": "10.20.0.8"},
    ]
    assert pasted(refused("", address="2001:db8::7")) == [{"address": "2001:db8::7"}]
    # A network of the policy has the address, but not the port.
    assert pasted(refused("", address="10.31.0.9", port=80)) == [{"address": "10.31.0.9", "ports": [80]}]


@pytest.mark.parametrize(
    ("address", "data", "note"),
    [
        ("10.20.0.7", {"private": ["10.20.0.7"]}, "its address is private: 10.20.0.7"),
        ("100.64.0.1", {"private": ["100.64.0.1"]}, "its address is private: 100.64.0.1"),
        ("fd00::7", {"private": ["fd00::7"]}, "its address is private: fd00::7"),
        ("169.254.169.254", {}, "its address is private: 169.254.169.254; that of a host itself or its link"),
        ("127.0.0.1", {}, "its address is private: 127.0.0.1; that of a host itself or its link"),
        ("168.63.129.16", {}, "its address is private: 168.63.129.16; that of a host itself or its link"),
        ("224.0.0.1", {}, "its address is private: 224.0.0.1; that of a host itself or its link"),
    ],
)
def test_hosts_with_private_addresses(address: str, data: dict[str, Any], note: str) -> None:
    """Without `private:` they would be refused again, and with it whoever runs their DNS may lead there."""
    (proposal,) = suggested(refused("new.example", address=address)).proposals
    assert entry_data(proposal.entry) == {"host": "new.example", **data}
    assert proposal.note.startswith(note)
    loads_with(printed(suggested(refused("new.example", address=address))))


def test_names_that_were_only_looked_up() -> None:
    query: dict[str, Any] = {"reason": "denied-query-name", "port": 53, "protocol": "udp"}
    made = suggested(
        refused("ghcr.io", **query),
        refused("new.example", **query),
        refused("new.example.corp.example", **query),
        refused("registry.corp.example.corp.example", **query),
    )
    assert [entry_data(its.entry) for its in made.proposals] == ["ghcr", {"host": "new.example"}]
    assert [its.subject for its in made.withheld] == [
        "new.example.corp.example",
        "registry.corp.example.corp.example",
    ]


def test_min_count_and_order() -> None:
    entries = [refused("a.example", count=2), refused("b.example", count=5), refused("a.example", 80)]
    made = suggested(*entries, min_count=3)
    assert [its.evidence.count for its in made.proposals] == [5, 3]
    assert suggested(*entries, min_count=6) == Suggestions()


def test_more_lists_of_ports_than_a_policy_has() -> None:
    """Whoever tries many ports must not make a policy out of this that does not load."""
    entries = [refused(f"h{number}.example", 1000 + number) for number in range(100)]
    made = suggested(*entries)
    assert len(made.proposals) < 64
    assert {its.why for its in made.withheld} == {"a policy has at most 64 lists of ports"}
    loads_with(printed(made))


def test_comments() -> None:
    made = suggested(
        refused("new.example", process="evil\n- ghcr\x1b[2J", scope="cgroup /a", count=3, first=NOW - 99),
        refused("new.example", scope="cgroup /b", verdict="deny", last=NOW - 60, first=NOW - 60),
        refused("a.banned.example"),
    )
    text = printed(made, indent=4, forgotten=(Forgotten(7, NOW, "cgroup /x"),))
    assert text.splitlines() == [
        "    # ram-ebpf suggest: what was refused, or would have been, "
        "from 2026-09-20T14:13Z to 2026-09-21T14:13Z.",
        "    # Somebody has tried each of these; read before you paste it below `registries:`.",
        "    # 7 more were forgotten for want of room, the last one 2026-09-21T14:13Z in cgroup /x:",
        "    # perhaps somebody makes up names there.",
        "    # refused or would be 4 times, last 2026-09-21T14:13Z, in cgroup /a, cgroup /b by "
        r"'evil\n- ghcr\x1b[2J': new.example:443",
        "    - host: new.example",
        "    #",
        "    # Not proposed:",
        "    # a.banned.example: the policy denies it, by *.banned.example (policy.yaml:15) "
        "(would be refused once, last 2026-09-21T14:13Z, in engine docker by dockerd)",
    ]  # fmt: skip


def test_nothing() -> None:
    assert printed(suggested()).splitlines()[1:] == ["  # Nothing to add to the policy."]


def test_json() -> None:
    found = as_json(suggested(refused("ghcr.io"), refused("a.banned.example")), [], NOW - 60, NOW)
    assert found["registries"] == ["ghcr"]
    evidence = {
        "count": 1,
        "first": "2026-09-21T14:13Z",
        "last": "2026-09-21T14:13Z",
        "scopes": ["engine docker"],
        "process": "dockerd",
        "verdict": "would-deny",
        "reasons": ["denied-unknown-address"],
    }
    assert found["suggestions"] == [
        {
            "kind": "id",
            "entry": "ghcr",
            "origin": None,
            "note": "GitHub Container Registry",
            **evidence,
            "endpoints": [{"host": "ghcr.io", "port": 443}],
        }
    ]
    assert found["withheld"] == [
        {
            "subject": "a.banned.example",
            "why": "the policy denies it, by *.banned.example (policy.yaml:15)",
            **evidence,
            "endpoints": [{"host": "a.banned.example", "port": 443}],
        }
    ]
    assert (found["version"], found["forgotten"]) == (1, 0)


# --- whatever was refused

_LABELS = st.text(
    st.sampled_from("abz019-_*.\n\r :#\"'{}[]\x85\u2028\x1b\u00fc,&!|>%@`"), min_size=1, max_size=12
)
_HOSTS = st.one_of(
    st.text(max_size=30),
    st.lists(_LABELS, min_size=1, max_size=4).map(".".join),
    st.sampled_from(
        [
            *(host.host.text.replace("*", "x") for _, host in CATALOGUE.hosts()),
            *("registry.corp.example", "s3.corp.example", "a.mirrors.corp.example", "full.corp.example"),
            *("public.corp.example", "a.banned.example", "proxy.corp.example", "null", "1.5", "quay"),
        ]
    ),
)
_ENTRIES = st.builds(
    refused,
    host=_HOSTS,
    port=st.sampled_from([0, 22, 53, 80, 443, 5000, 3128, 65535]),
    reason=st.sampled_from(
        [
            "denied-unknown-address",
            "denied-port",
            "name-mismatch",
            "denied-query-name",
            "denied-image",
            "x\ny",
        ]
    ),
    address=st.one_of(
        st.sampled_from(["10.30.0.7", "10.31.9.9", "10.40.0.1", "::1", "fe80::1%x", "::ffff:1.2.3.4", "x"]),
        st.ip_addresses().map(str),
    ),
    protocol=st.sampled_from(["tcp", "tcp", "udp"]),
    process=st.text(max_size=16),
    scope=st.sampled_from(["engine docker", "cgroup /a\nb", ""]),
    count=st.integers(1, 9),
    after=st.one_of(st.just(""), _HOSTS),
    after_count=st.integers(0, 9),
)


@settings(max_examples=150)
@given(st.lists(_ENTRIES, max_size=30), st.sampled_from([0, 2, 4]))
def test_the_policy_with_it_loads(entries: list[Refused], indent: int) -> None:
    policy = re.sub("^  ", " " * indent, POLICY, flags=re.MULTILINE)
    made = suggested(*entries, policy=policy)
    text = printed(made, indent)
    assert text.replace("\n", "").isprintable()
    assert len(text.splitlines()) == text.count("\n")
    assert (yaml.safe_load(text) or []) == [
        entry_data(its.entry) for its in made.proposals if not its.is_change
    ]
    loads_with(text, policy)
