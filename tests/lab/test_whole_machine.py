"""The root of the control groups as a scope, which governs the whole machine: in guests only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ram_ebpf.dataplane.matching import sockets_match
from ram_ebpf.scopes.cgroup import find_cgroup2_mount
from tests.adversarial.field import governed, wait_line

from . import distribution
from .daemon import Daemon
from .distribution import Distribution
from .dns import Addresses
from .lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.guest, pytest.mark.alone, pytest.mark.timeout(600)]

KNOWN = "203.0.116.1"
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
"""


@pytest.fixture(scope="module")
def pair(lab: Lab) -> tuple[Distribution, Distribution]:
    parent = lab.new_cgroup("machine")
    lab.blocked.node.add_addresses(KNOWN)
    lab.dns.update({"ghcr.io": Addresses((KNOWN,), 60)})
    return distribution.create(lab, "debian", parent), distribution.create(lab, "ubuntu", parent)


def assert_governed_as_one(lab: Lab, daemon: Daemon, pair: tuple[Distribution, Distribution]) -> None:
    (ready,) = [line for line in daemon.lines() if line["event"] == "ready"]
    assert ready["scopes"] == [str(find_cgroup2_mount())]
    for inside in pair:
        inside.pull(f"allowed.registry.test/{lab.image_name}").check()
        start = len(daemon.lines())
        pull = inside.pull(f"ghcr.io/{lab.image_name}")
        assert "operation not permitted" in pull.stderr
        line = wait_line(
            daemon,
            start,
            lambda line: line["event"] == "denied" and line.get("host") == "ghcr.io",
            "ghcr.io refused",
            patience=10.0,
        )
        assert (line["scope"], line["reason"]) == ("host", "denied-registry")


def test_host(lab: Lab, pair: tuple[Distribution, Distribution]) -> None:
    assert sockets_match(find_cgroup2_mount())
    with governed(lab, POLICY, scopes=["host"]) as daemon:
        assert_governed_as_one(lab, daemon, pair)


def test_net_cls(lab: Lab, pair: tuple[Distribution, Distribution], tmp_path: Path) -> None:
    """The last one: on old kernels nothing undoes it."""
    debian, _ = pair
    hierarchy = tmp_path / "net_cls"
    hierarchy.mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "net_cls", "none", str(hierarchy)], check=True)
    try:
        group = hierarchy / "group"
        group.mkdir()
        (group / "net_cls.classid").write_text("65537", encoding="ascii")
        matching = sockets_match(find_cgroup2_mount())
        print(f"sockets are told apart by their cgroup: {matching}")
        with governed(lab, POLICY, scopes=[debian.cgroup]) as daemon:
            if not matching:
                assert "net_cls or net_prio (cgroup version 1) is in use" in daemon.said()
                assert_governed_as_one(lab, daemon, pair)
            else:
                (ready,) = [line for line in daemon.lines() if line["event"] == "ready"]
                assert ready["scopes"] == [str(debian.cgroup)]
                debian.pull(f"allowed.registry.test/{lab.image_name}").check()
                assert not debian.pull(f"blocked.registry.test/{lab.image_name}").ok
    finally:
        subprocess.run(["umount", "--lazy", str(hierarchy)], check=True)
