"""The policy file, and what it allows that it should not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ram_ebpf.doctor import case, policy
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Status

from .cases import POLICY, case_of


def test_right_policy() -> None:
    (found,) = policy.examine(case_of(POLICY))
    assert found.status is Status.OK
    assert found.title == "policy.yaml: 5 rules, 1 scope"


def test_audit() -> None:
    (found,) = policy.examine(case_of(f"{POLICY}mode: audit\n"))
    assert found.status is Status.WARNING
    assert "mode: enforce" in found.cure


def test_wrong_policy(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("version: 1\nregistries: [dockerhub]\nmode: on\n")
    wrong = Case.of(str(file))
    assert wrong.policy is None
    (found,) = policy.examine(wrong)
    assert found.status is Status.FAILURE
    assert found.title.startswith(
        f"{file}:2: registries[0]: 'dockerhub' is not in the catalogue, and 1 more error"
    )
    assert f"ram-ebpf check {file} shows all" in found.cure


def test_policy_that_is_not_there(tmp_path: Path) -> None:
    (found,) = policy.examine(Case.of(str(tmp_path / "none.yaml")))
    assert found.status is Status.FAILURE
    assert str(tmp_path / "none.yaml") in found.title


def test_patterns_that_are_too_many(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    hosts = "".join(f'  - host: "*a*{n}*b*{n}*c*.corp.example"\n' for n in range(40))
    file.write_text(f"version: 1\nregistries:\n{hosts}")
    (found,) = policy.examine(Case.of(str(file)))
    assert found.status is Status.FAILURE


def test_usual_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "USUAL_POLICY", tmp_path / "policy.yaml")
    assert Case.of(None).file is None
    (found,) = policy.examine(Case.of(None))
    assert found.title.startswith("the built-in policy")
    assert list(policy.examine_file(Case.of(None))) == []
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert Case.of(None).file == str(tmp_path / "policy.yaml")


def test_who_may_change_it(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    file.chmod(0o666)
    found = policy.of_file(file)
    assert found.status is Status.WARNING
    assert f"chmod go-w {file}" in found.cure
    assert policy.of_file(Path("/usr/bin/env")).status is (
        Status.OK if Path("/usr/bin/env").stat().st_uid == 0 else Status.WARNING
    )
    assert os.access(file, os.R_OK)


@pytest.mark.parametrize(
    ("registry", "named"),
    [
        ('host: "*.google"', "dns.google"),
        ("host: cloudflare-dns.com", "cloudflare-dns.com"),
        ("address: 1.1.1.0/24", "1.1.1.1"),
    ],
)
def test_encrypted_resolvers(registry: str, named: str) -> None:
    (found,) = policy.examine_encrypted(case_of(f"version: 1\nregistries:\n  - {registry}\n"))
    assert found.status is Status.WARNING
    assert named in found.title


@pytest.mark.parametrize(
    "text", [POLICY, "version: 1\nregistries: [{ host: '*.google' }]\ndenied: [dns.google, 8888.google]\n"]
)
def test_no_encrypted_resolvers(text: str) -> None:
    (found,) = policy.examine_encrypted(case_of(text))
    assert found.status is Status.OK
