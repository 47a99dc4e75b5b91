"""The verb `check`: exit status, output, errors."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from ram_ebpf.cli import check

POLICY = """version: 1
registries:
  - ghcr
  - host: registry.corp.example
    ports: [443, 5000]
    also: [storage.googleapis.com]
    private: true
  - address: 10.20.0.0/24
    ports: [5000]
"""


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_parser(parser.add_subparsers())
    args = parser.parse_args(["check", *arguments])
    status = args.run(args)
    assert isinstance(status, int)
    return status


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_ok(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(policy)) == 0
    assert capsys.readouterr().out == (f"{policy}: ok: 4 name rules, 1 address rule, 1 scope, mode enforce\n")


def test_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out == (
        "default policy: ok: 8 name rules, 0 address rules, 1 scope, mode enforce\n"
    )


def test_print(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--print", str(policy)) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "PATTERN                               PORTS     ORIGIN         NOTES",
        "pkg-containers.githubusercontent.com  443       ghcr           blobs",
        "storage.googleapis.com                443,5000  policy.yaml:6  shared, private",
        "registry.corp.example                 443,5000  policy.yaml:4  private",
        "ghcr.io                               443       ghcr           api",
        "10.20.0.0/24                          5000      policy.yaml:8  address",
    ]


DENYING = """version: 1
registries:
  - jfrog
  - host: "**.corp.example"
    private: [fd00:1::/64, 10.20.0.0/16]
  - host: storage.googleapis.com
    private: [10.1.2.3]
denied:
  - "*.corp.example"
  - "*.cloudfront.net"
"""


@pytest.fixture
def denying(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(DENYING)
    return path


def test_print_denied_and_private(denying: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--print", str(denying)) == 0
    lines = capsys.readouterr().out.splitlines()
    # No suggestion to allow *.cloudfront.net, which jfrog has as optional and the policy denies.
    assert lines == [
        f"{denying}: ok: 5 name rules, 0 address rules, 1 scope, mode enforce",
        "",
        "PATTERN                 PORTS  ORIGIN          NOTES",
        "storage.googleapis.com  443    policy.yaml:6   shared, private 10.1.2.3/32",
        "*.corp.example          -      policy.yaml:9   denied",
        "**.corp.example         443    policy.yaml:4   private 10.20.0.0/16 fd00:1::/64",
        "*.jfrog.io              443    jfrog           api",
        "*.cloudfront.net        -      policy.yaml:10  denied",
    ]


def test_json_denied_and_private(denying: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "json", "--print", str(denying)) == 0
    names = {rule["pattern"]: rule for rule in json.loads(capsys.readouterr().out)["names"]}
    assert names["*.corp.example"] == {
        "pattern": "*.corp.example",
        "kind": "one",
        "ports": [],
        "origin": "policy.yaml:9",
        "roles": [],
        "shared": False,
        "private": False,
        "private_networks": [],
        "deny": True,
        "rank": 3,
        "actions": [],
        "proxy": False,
    }
    allowed = names["**.corp.example"]
    assert (allowed["deny"], allowed["private"]) == (False, False)
    assert allowed["private_networks"] == ["10.20.0.0/16", "fd00:1::/64"]


def test_actions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nregistries:\n"
        "  - { host: a.example, actions: [push, pull] }\n  - { address: 10.0.0.1, actions: [pull] }\n"
    )
    assert run("--print", str(path)) == 0
    notes = [line.split("  ")[-1] for line in capsys.readouterr().out.splitlines()[-2:]]
    assert notes == ["pull and push only", "address, pull only"]


def test_too_many_port_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nregistries:\n"
        + "".join(f"  - {{ host: r{n}.example, ports: [{n}] }}\n" for n in range(1, 66))
    )
    assert run(str(path)) == os.EX_CONFIG
    assert capsys.readouterr().err == (
        f"{path}:67: registries[64]: ports [65] of host r65.example are the 65th different list, "
        "give some hosts the same ports, as a policy has at most 64 lists\n"
    )


def test_print_says_what_is_optional(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--print") == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "Not allowed by a catalogue id alone; add host: for those that you want:",
        "  hub.docker.com  (docker-hub)",
        "  login.docker.com  (docker-hub)",
    ]


def test_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "json", "--print", str(policy)) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ok"], report["name_rules"], report["address_rules"]) == (True, 4, 1)
    assert report["addresses"] == [
        {
            "network": "10.20.0.0/24",
            "ports": [5000],
            "origin": "policy.yaml:8",
            "actions": ["pull", "push", "login"],
            "proxy": False,
        }
    ]
    assert [rule["rank"] for rule in report["names"]] == [1, 2, 3, 4]
    assert {rule["pattern"] for rule in report["names"] if rule["shared"]} == {"storage.googleapis.com"}


def test_json_without_rules(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--format", "json", str(policy)) == 0
    assert "names" not in json.loads(capsys.readouterr().out)


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nregistries:\n  - dockerhub\nmode: on\n")
    assert run(str(path)) == os.EX_CONFIG == 78
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == (
        f"{path}:3: registries[0]: 'dockerhub' is not in the catalogue, did you mean docker-hub?\n"
        f"{path}:4: mode: 'on' is not one of the choices, write enforce or audit\n"
    )


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none")) == os.EX_CONFIG
    assert capsys.readouterr().err == f"{tmp_path}/none: there is no such file, check the path\n"


def test_automaton_too_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nregistries:\n" + "".join(f"  - host: '*{c}*.com'\n" for c in "abcdefghijklmnop")
    )
    assert run(str(path)) == os.EX_CONFIG
    assert capsys.readouterr().err == (
        f"{path}: registries: the patterns with wildcards inside need more than 4096 states, "
        "use fewer * inside labels or write those hosts exactly\n"
    )


IN_A_SCOPE = """version: 1
registries: [ghcr]
scopes:
  - engine: docker
  - host:
      registries:
        - quay
        - { host: ghcr.io, ports: [1, 2, 3, 4, 5, 6, 7, 8] }
"""


def test_rules_of_a_scope_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(IN_A_SCOPE)
    assert run(str(path)) == os.EX_CONFIG
    assert capsys.readouterr().err == (
        f"{path}:8: scopes[1].host.registries[1]: host ghcr.io has 9 ports together with ghcr, "
        "a host has at most 8\n"
    )


def test_patterns_of_a_scope_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "policy.yaml"
    hosts = "".join(f"      - {{ host: 'a*b{n}*c*d*.x.example' }}\n" for n in range(40))
    path.write_text(f"version: 1\nregistries: [ghcr]\nscopes:\n  - cgroup: /a\n    registries:\n{hosts}")
    assert run(str(path)) == os.EX_CONFIG
    assert "states" in capsys.readouterr().err
