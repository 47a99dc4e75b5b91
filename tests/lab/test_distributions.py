"""Several distributions in one network namespace, as under WSL2: one scope for all, or one for each."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.adversarial.field import governed, wait_line

from . import distribution
from .daemon import Daemon
from .distribution import Distribution
from .dns import Addresses
from .lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.core]

KNOWN = "203.0.115.1"  # a registry of the catalogue
POLICY = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
recognition:
  unknown: allow
scopes:
"""
_numbers = itertools.count()


@pytest.fixture
def pair(lab: Lab) -> tuple[Distribution, Distribution]:
    number = next(_numbers)
    parent = lab.new_cgroup(f"machine-{number}")
    if lab.dns.records.get("ghcr.io") is None:
        lab.blocked.node.add_addresses(KNOWN)
        lab.dns.update({"ghcr.io": Addresses((KNOWN,), 60)})
    debian, ubuntu = (distribution.create(lab, f"{name}-{number}", parent) for name in ("debian", "ubuntu"))
    return debian, ubuntu


def refused(daemon: Daemon, inside: Distribution, host: str, scope: str) -> dict[str, Any]:
    start = len(daemon.lines())
    pull = inside.pull(f"{host}/{inside.lab.image_name}")
    assert not pull.ok
    assert "operation not permitted" in pull.stderr
    return wait_line(
        daemon,
        start,
        # A client may try again, and on old kernels each line is one more: another scope's may come late.
        lambda line: (line["event"], line.get("host"), line.get("scope")) == ("denied", host, scope),
        f"{host} refused",
        patience=10.0,
    )


def test_they_are_distributions(pair: tuple[Distribution, Distribution]) -> None:
    for inside in pair:
        assert inside.run("cat", "/etc/os-release").check().stdout == f"ID={inside.name}\n"
        assert inside.run("cat", "/proc/self/cgroup").check().stdout.strip().endswith(inside.name)


def test_each_has_a_scope_of_its_own(lab: Lab, pair: tuple[Distribution, Distribution]) -> None:
    """One may reach allowed registries only, the other one has a registry more, and all that is none."""
    debian, ubuntu = pair
    policy = (
        POLICY
        + f"""\
  - cgroup: {debian.cgroup}
  - cgroup: {ubuntu.cgroup}
    posture: registries
    registries: [{{host: blocked.registry.test, private: true}}]
"""
    )
    with governed(lab, policy, scopes=[]) as daemon:
        for inside in pair:
            inside.pull(f"allowed.registry.test/{lab.image_name}").check()
        ubuntu.pull(f"blocked.registry.test/{lab.image_name}").check()
        ubuntu.pull(f"notallowed.registry.test/{lab.image_name}").check()  # nobody knows that it is one
        for host in ("blocked.registry.test", "notallowed.registry.test", "ghcr.io"):
            line = refused(daemon, debian, host, f"cgroup {debian.cgroup}")
            assert line["reason"] == "denied-unknown-address"
        line = refused(daemon, ubuntu, "ghcr.io", f"cgroup {ubuntu.cgroup}")
        assert line["reason"] == "denied-registry"


def test_the_whole_machine_is_one_scope(lab: Lab, pair: tuple[Distribution, Distribution]) -> None:
    root = pair[0].cgroup.parent
    with governed(lab, POLICY + "  - host: {}\n", "--cgroup-root", str(root), scopes=[]) as daemon:
        for inside in pair:
            inside.pull(f"allowed.registry.test/{lab.image_name}").check()
            assert refused(daemon, inside, "ghcr.io", "host")["reason"] == "denied-registry"
