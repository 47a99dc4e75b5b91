"""What the policy says of requests, and in which words."""

from __future__ import annotations

import json

import pytest

from ram_ebpf.authorization.judge import Refusal, RequestReason, judge, record_of
from ram_ebpf.authorization.messages import ApiRequest
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.rules import compile_rules

POLICY = """\
version: 1
organization: acme
message: Ask platform@acme.example to allow it.
registries:
  - id: docker-hub
    actions: [pull, login]
  - host: "*.corp.example"
  - { host: ports.corp.example, ports: [5000] }
  - { host: plain.corp.example, ports: [80] }
  - { host: mirror.corp.example, actions: [pull] }
  - { address: 10.20.0.0/24, ports: [5000] }
  - { address: 10.20.0.7, ports: [5000], actions: [pull] }
  - { address: "fd00:1::/64", actions: [pull] }
denied: [evil.corp.example]
"""


def policy_of(text: str = POLICY) -> Policy:
    return parse_policy(text.encode(), "/etc/policy.yaml")


def pull(image: str) -> ApiRequest:
    return ApiRequest("POST", f"/v1.41/images/create?fromImage={image}", {"content-length": "0"})


def push(image: str) -> ApiRequest:
    return ApiRequest("POST", f"/v1.41/images/{image}/push")


def run(image: str) -> ApiRequest:
    body = json.dumps({"Image": image}).encode()
    return ApiRequest("POST", "/v1.41/containers/create", {"content-type": "application/json"}, body)


def judged(request: ApiRequest, policy: Policy | None = None) -> Refusal | None:
    policy = policy or policy_of()
    return judge(request, compile_rules(policy, load_catalogue()), policy)


def refused(request: ApiRequest, policy: Policy | None = None) -> Refusal:
    refusal = judged(request, policy)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize(
    "request_",
    [
        pull("nginx"),
        pull("index.docker.io/library/nginx"),
        pull("registry-1.docker.io/library/nginx"),
        pull("a.corp.example/x"),
        pull("A.CORP.example:443/x"),
        push("a.corp.example/x"),
        pull("ports.corp.example:5000/x"),
        pull("plain.corp.example/x"),  # an engine may have it among its insecure registries
        pull("mirror.corp.example/x"),
        pull("10.20.0.1:5000/x"),
        push("10.20.0.7:5000/x"),  # another entry that covers it allows that
        pull("[fd00:1::7]/x"),
        pull("[::ffff:a14:1]:5000/x"),
        run("nginx"),
        run("sha256:" + "a" * 64),
        ApiRequest("GET", "/_ping"),
    ],
)
def test_allowed(request_: ApiRequest) -> None:
    assert judged(request_) is None


CONTACT = "Ask platform@acme.example to allow it."


@pytest.mark.parametrize(
    ("request_", "reason", "message"),
    [
        (
            pull("evil.example/x"),
            RequestReason.IMAGE,
            f"Access to evil.example is blocked by acme's registry policy (rule: none). {CONTACT}",
        ),
        (
            run("evil.corp.example/x"),
            RequestReason.IMAGE,
            "Access to evil.corp.example is blocked by acme's registry policy "
            f"(rule: evil.corp.example (policy.yaml:14)). {CONTACT}",
        ),
        (
            push("evil.example:5000/x"),
            RequestReason.IMAGE,
            f"Access to evil.example:5000 is blocked by acme's registry policy (rule: none). {CONTACT}",
        ),
        (
            pull("ports.corp.example/x"),
            RequestReason.IMAGE,
            "Access to ports.corp.example is blocked by acme's registry policy "
            f"(rule: ports.corp.example (policy.yaml:8)). {CONTACT}",
        ),
        (
            push("nginx"),
            RequestReason.ACTION,
            "Pushing to docker.io is blocked by acme's registry policy "
            f"(rule: registry-1.docker.io (docker-hub), for pull or login alone). {CONTACT}",
        ),
        (
            push("mirror.corp.example/x"),
            RequestReason.ACTION,
            "Pushing to mirror.corp.example is blocked by acme's registry policy "
            f"(rule: mirror.corp.example (policy.yaml:10), for pull alone). {CONTACT}",
        ),
        (
            push("[fd00:1::7]/x"),
            RequestReason.ACTION,
            "Pushing to [fd00:1::7] is blocked by acme's registry policy "
            f"(rule: fd00:1::/64 (policy.yaml:13), for pull alone). {CONTACT}",
        ),
        (
            pull("Evil"),
            RequestReason.REQUEST,
            "This request is blocked by acme's registry policy, as it cannot be judged: "
            f"'Evil' is not the name of an image. {CONTACT}",
        ),
    ],
)
def test_refused(request_: ApiRequest, reason: RequestReason, message: str) -> None:
    refusal = refused(request_)
    assert (refusal.reason, refusal.message) == (reason, message)


@pytest.mark.parametrize(
    "image",
    [
        "DOCKER.IO/library/nginx",  # a host, and not the hub
        "docker.io:443/library/nginx",
        "docker.io.evil.example/x",
        "corp.example/x",
        "a.b.corp.example/x",
        "evila.corp.example.evil/x",
        "a.corp.example:5000/x",
        "10.20.0.1/x",
        "10.20.1.1:5000/x",
        "[fd00:2::1]/x",
        "localhost:5000/x",
        "evil.example/registry-1.docker.io/x",
    ],
)
def test_refused_images(image: str) -> None:
    for request in (pull(image), push(image), run(image)):
        assert refused(request).reason is RequestReason.IMAGE


def test_login() -> None:
    """Where an engine does not say where, the policy allows it as soon as it does so anywhere."""
    request = ApiRequest("POST", "/auth")
    assert judged(request) is None
    policy = policy_of("version: 1\nregistries: [{ id: docker-hub, actions: [pull] }]\n")
    assert refused(request, policy).message == (
        "Logging in to registries is blocked by this host's registry policy (rule: none)."
    )
    shown = ApiRequest("POST", "/auth", {}, b'{"serveraddress": "mirror.corp.example"}')
    assert refused(shown).reason is RequestReason.ACTION


def test_first_that_is_refused() -> None:
    request = ApiRequest("POST", '/build?cachefrom=["nginx","evil.example/x","other.example/y"]')
    assert "evil.example" in refused(request).message


def test_record() -> None:
    policy = policy_of()
    request = ApiRequest("POST", "/v1.41/images/mirror.corp.example/x/push?tag=secret", user="alice")
    assert record_of(request, refused(request), policy, "engine docker") == {
        "event": "denied",
        "verdict": "deny",
        "reason": "denied-action",
        "image": "mirror.corp.example/x",
        "registry": "mirror.corp.example",
        "action": "push",
        "user": "alice",
        "method": "POST",
        "path": "/v1.41/images/mirror.corp.example/x/push",
        "scope": "engine docker",
        "rule": "mirror.corp.example (policy.yaml:10)",
        "explanation": "mirror.corp.example is allowed by mirror.corp.example (policy.yaml:10) "
        "for pull alone",
        "message": CONTACT,
    }


def test_record_in_audit_mode() -> None:
    policy = policy_of("version: 1\nmode: audit\nregistries: [ghcr]\n")
    request = pull("Evil")
    assert record_of(request, refused(request, policy), policy, None) == {
        "event": "would-deny",
        "verdict": "would-deny",
        "reason": "denied-request",
        "method": "POST",
        "path": "/v1.41/images/create",
        "explanation": "'Evil' is not the name of an image",
    }
