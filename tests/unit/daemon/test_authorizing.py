"""Docker Engine's questions, answered by the policy of the scope that the engine is in."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon import authorizing
from ram_ebpf.daemon.authorizing import Authorizing, judged_terms
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.scope_rules import rules_of
from ram_ebpf.policy.terms import Terms

POLICY = """\
version: 1
organization: acme
registries: [{ host: a.example }]
scopes:
  - engine: docker
    registries: [{ host: engine.example }]
  - cgroup: /builds
    registries: [{ host: builds.example }]
  - host: { posture: registries }
"""


def policy_of(text: str = POLICY) -> Policy:
    return parse_policy(text.encode(), "policy.yaml")


def made(policy: Policy, inside: int | None = None, directory: Path = Path("/nowhere")) -> Authorizing:
    """`inside`: the policy's scope that all processes are in."""
    terms = None if inside is None else Terms.of(policy.scopes[inside], inside)
    return Authorizing(
        policy,
        {terms: rules_of(policy, load_catalogue(), terms) for terms in judged_terms(policy)},
        lambda cgroup: None if terms is None else ("a scope", terms),
        Path("/sys/fs/cgroup"),
        directory,
    )


def pull(image: str) -> bytes:
    request = {
        "RequestMethod": "POST",
        "RequestUri": f"/v1.41/images/create?fromImage={image}",
        "RequestHeaders": {"Content-Length": "0"},
    }
    return json.dumps(request).encode()


def allows(plugin: Authorizing, image: str, pid: int) -> bool:
    answer: dict[str, Any] = json.loads(plugin.answer(pull(image), pid))
    assert answer["Allow"] is True or answer["Msg"]
    return bool(answer["Allow"])


@pytest.mark.parametrize(
    ("inside", "allowed"),
    [(0, {"a.example", "engine.example"}), (1, {"a.example", "builds.example"}), (2, {"a.example"})],
)
def test_scope_of_the_engine(inside: int, allowed: set[str]) -> None:
    plugin = made(policy_of(), inside)
    names = ("a.example", "engine.example", "builds.example", "ghcr.io")
    assert {name for name in names if allows(plugin, f"{name}/x", os.getpid())} == allowed
    assert {record["scope"] for record in plugin.records()} == {"a scope"}


@pytest.mark.parametrize("pid", [0, os.getpid()], ids=["unknown", "known"])
def test_engine_that_no_scope_has(pid: int) -> None:
    """As one that is only governed at its device: what the policy says of Docker holds."""
    plugin = made(policy_of())
    assert allows(plugin, "engine.example/x", pid)
    assert not allows(plugin, "builds.example/x", pid)
    assert "scope" not in plugin.records()[0]


def test_without_scope_of_an_engine() -> None:
    plugin = made(policy_of("version: 1\nregistries: [ghcr]\nscopes: [{ host: {} }]\n"))
    assert allows(plugin, "ghcr.io/x", 0)
    assert not allows(plugin, "quay.io/x", 0)


def test_audit() -> None:
    plugin = made(policy_of("version: 1\nmode: audit\nregistries: [ghcr]\n"))
    assert allows(plugin, "quay.io/x", 0)
    (record,) = plugin.records()
    assert (record["event"], record["reason"]) == ("would-deny", "denied-image")


def test_records_and_counters() -> None:
    plugin = made(policy_of())
    assert not plugin.has_news()
    for image in ("quay.io/x", "Evil", "ghcr.io/x"):
        assert not allows(plugin, image, 0)
    assert plugin.has_news()
    assert [record["reason"] for record in plugin.records()] == [
        "denied-image",
        "denied-request",
        "denied-image",
    ]
    assert plugin.records() == []
    assert plugin.counters() == {"denied-image": 2, "denied-request": 1}


def test_more_than_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizing, "_MOST_WAITING", 3)
    plugin = made(policy_of())
    for _ in range(5):
        allows(plugin, "quay.io/x", 0)
    assert len(plugin.records()) == 3
    assert (plugin.lost(), plugin.lost()) == (2, 0)
    assert plugin.counters() == {"denied-image": 5}


@pytest.mark.parametrize("message", [b"", b"{}", b"\xff", b"[]"])
def test_what_no_engine_asks(message: bytes) -> None:
    answer = json.loads(made(policy_of()).answer(message, 0))
    assert answer["Allow"] is False


def test_surprise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours refuses, and ends nothing."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(authorizing, "judge", fail)
    assert json.loads(made(policy_of()).answer(pull("a.example/x"), 0))["Allow"] is False
    auditing = made(policy_of("version: 1\nmode: audit\nregistries: [ghcr]\n"))
    assert json.loads(auditing.answer(pull("a.example/x"), 0))["Allow"] is True


def test_served(tmp_path: Path) -> None:
    plugin = made(policy_of(), directory=tmp_path)
    assert plugin.place is None
    plugin.begin()
    assert plugin.place == tmp_path / "ram-ebpf.sock"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(plugin.place))
        body = pull("quay.io/x")
        head = f"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        said = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"Access to quay.io is blocked by acme's registry policy" in said
    plugin.close()
    assert plugin.place is None
    assert list(tmp_path.iterdir()) == []
