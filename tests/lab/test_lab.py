"""The lab itself, with nothing enforced: all works by name, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from . import cgroups, cleanup, image, namespaces, owner, programs, topology
from .lab import Lab

ROOT = Path(__file__).parents[2]

# Builds a lab, tells of it and waits to be killed.
OWNER_SCRIPT = """
import json, subprocess, time
from tests.lab.lab import Lab
lab = Lab().__enter__()
background = lab.client.popen(
    ["sh", "-c", "sleep 1000 & echo; wait"], cgroup=lab.client_cgroup, stdout=subprocess.PIPE
)
background.stdout.readline()
print(json.dumps({"label": lab.label, "servers": lab.server_pids, "shell": background.pid}), flush=True)
time.sleep(1000)
"""


def lookup(
    lab: Lab,
    name: str,
    database: str = "ahosts",
    *,
    hosts: Mapping[str, str] | None = None,
    resolver: str | None = None,
) -> set[str]:
    """Return the addresses that the C library's resolver finds."""
    found = lab.client.run(["getent", database, name], hosts=hosts, resolver=resolver)
    return {line.split()[0] for line in found.stdout.splitlines()}


def test_build_time(lab: Lab, record_property: Callable[[str, object], None]) -> None:
    record_property("build_seconds", lab.build_seconds)
    print(f"the lab was built in {lab.build_seconds:.3f} s")
    # The bound is for slow machines; the aim is far below.
    assert lab.build_seconds < 15


@pytest.mark.parametrize(
    "host",
    [
        "allowed.registry.test",
        "cdn.allowed.registry.test",
        "v6only.registry.test",
        "many.registry.test",
        "alias.registry.test",
        "blocked.registry.test",
        "notallowed.registry.test",
        topology.ALLOWED,
        topology.BLOCKED,
    ],
)
def test_pull(lab: Lab, host: str) -> None:
    print(f"{lab.client.pull(f'{host}/{lab.image_name}').check().seconds:.3f} s")


def test_pull_of_an_unknown_name_fails(lab: Lab) -> None:
    assert "no such host" in lab.client.pull(f"unknown.registry.test/{lab.image_name}").stderr


def test_pull_needs_the_lab_authority(lab: Lab) -> None:
    argv = ["skopeo", "--insecure-policy", "inspect", f"docker://allowed.registry.test/{lab.image_name}"]
    lab.client.run(argv).check()
    assert "x509" in lab.client.run(argv, env={"SSL_CERT_FILE": "/dev/null"}).stderr


def test_pushed_layout_equals_the_prepared_storage(lab: Lab, tmp_path: Path) -> None:
    """skopeo and the registry accept the hand-made image, and hold it for the one put into the storage."""
    hello = image.hello()
    image.write_layout(hello, tmp_path / "layout", "pushed")
    name = "docker://allowed.registry.test/lab/hello"
    skopeo = ["skopeo", "--insecure-policy"]
    lab.client.run([*skopeo, "copy", f"oci:{tmp_path}/layout:pushed", f"{name}:pushed"]).check()
    digests = [
        lab.client.run([*skopeo, "inspect", "--format", "{{.Digest}}", f"{name}:{tag}"])
        .check()
        .stdout.strip()
        for tag in ("pushed", "1")
    ]
    assert digests == [image.digest(hello.manifest)] * 2


def test_images_are_added_at_run_time(lab: Lab) -> None:
    lab.blocked.add_image("lab/other", "2", image.build({"other": b"x" * 100_000}, ("/other",)))
    lab.client.pull("blocked.registry.test/lab/other:2").check()


def test_names_resolve_over_both_families(lab: Lab) -> None:
    assert lookup(lab, "allowed.registry.test") == {topology.ALLOWED, topology.ALLOWED_V6}
    assert lookup(lab, "v6only.registry.test") == {topology.V6ONLY}
    assert lookup(lab, "v4only.registry.test") == {topology.ALLOWED}
    assert lookup(lab, "allowed.registry.test", resolver=lab.resolver_v6) == {
        topology.ALLOWED,
        topology.ALLOWED_V6,
    }
    assert lookup(lab, "unknown.registry.test") == set()
    assert lookup(lab, "example.com") == set()


def test_cname_chain_resolves(lab: Lab) -> None:
    found = lab.client.run(["getent", "ahosts", "alias.registry.test"]).check().stdout
    assert topology.ALLOWED in found
    assert "allowed.registry.test" in found.splitlines()[0]


def test_many_addresses_resolve(lab: Lab) -> None:
    assert lookup(lab, "many.registry.test", "ahostsv4") == set(topology.MANY)


def test_records_change_at_run_time(lab: Lab) -> None:
    name = "changing.registry.test"
    lab.dns.set_records(name, [topology.ALLOWED], ttl=1)
    assert lookup(lab, name) == {topology.ALLOWED}
    lab.dns.set_records(name, [topology.BLOCKED, topology.BLOCKED_V6])
    assert lookup(lab, name) == {topology.BLOCKED, topology.BLOCKED_V6}
    lab.dns.set_cname(name, "v6only.registry.test", ttl=3)
    assert lookup(lab, name) == {topology.V6ONLY}
    lab.dns.remove(name)
    assert lookup(lab, name) == set()
    assert ("A", name) in lab.dns.queries()


def test_hosts_lines_and_control_group_are_the_clients_own(lab: Lab) -> None:
    before = Path("/etc/hosts").read_bytes()
    hosts = {"blocked.registry.test": topology.ALLOWED}
    assert lookup(lab, "blocked.registry.test", "ahostsv4") == {topology.BLOCKED}
    assert lookup(lab, "blocked.registry.test", "ahostsv4", hosts=hosts) == {topology.ALLOWED}
    assert Path("/etc/hosts").read_bytes() == before
    expected = f"0::/{lab.client_cgroup.relative_to(cgroups.mount_point())}"
    assert expected in lab.client.run(["cat", "/proc/self/cgroup"]).stdout.splitlines()


def test_a_daemon_sees_the_control_groups_from_outside_the_clients(lab: Lab) -> None:
    daemon = lab.client.popen(["sh", "-c", f"cat /proc/self/cgroup; ls -d {lab.client_cgroup}"], stdout=-1)
    with daemon:
        output = daemon.communicate()[0].splitlines()
    assert output[-1] == str(lab.client_cgroup)
    assert f"0::/{lab.client_cgroup.relative_to(cgroups.mount_point())}" not in output


def test_the_rest_of_the_world_is_the_blocked_namespace(lab: Lab) -> None:
    lab.blocked.node.add_addresses("203.0.113.9")
    before = lab.blocked.counters()["Tcp.PassiveOpens"]
    # The certificate has no such address, so the pull gets as far as the handshake.
    assert "x509" in lab.client.pull(f"203.0.113.9/{lab.image_name}").stderr
    assert lab.blocked.counters()["Tcp.PassiveOpens"] > before


def test_timeout_kills_the_whole_program(lab: Lab) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        lab.client.run(["sh", "-c", "sleep 1000 & wait"], timeout=0.2)
    # The kernel takes a moment to end a killed grandchild, for which nobody waits.
    deadline = time.monotonic() + 5
    while cgroups.members(lab.client_cgroup) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cgroups.members(lab.client_cgroup) == []


def test_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SEARCH_PATH", "/nowhere")
    programs.find.cache_clear()
    with pytest.raises(programs.MissingProgramError, match=r"dnsmasq.*dnsmasq-base"):
        programs.find("dnsmasq")
    programs.find.cache_clear()


def test_second_lab_of_one_process_leaves_nothing(lab: Lab) -> None:
    with Lab(registry_ports=(443, 5000)) as second:
        label, servers, directory = second.label, second.server_pids, second.directory
        assert label != lab.label
        second.client.pull(f"allowed.registry.test:5000/{second.image_name}").check()
    assert remains(label) == []
    assert not directory.exists()
    assert not [pid for pid in servers if owner.start_time(pid)]
    lab.client.pull(f"allowed.registry.test/{lab.image_name}").check()


def test_killed_owner_leaves_no_server_and_the_next_run_cleans_up(lab: Lab) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER_SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        pids = [*told["servers"], told["shell"]]
        assert all(owner.start_time(pid) for pid in pids)
        assert cleanup.remove_stale() == []  # its owner lives
        os.kill(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(owner.start_time(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in pids if owner.start_time(pid)]
    label = told["label"]
    # The shell's child got no signal of its own: it is what the control group is for.
    cgroup = cgroups.mount_point() / f"{owner.PREFIX}{label}" / "client"
    orphans = cgroups.members(cgroup)
    assert len(orphans) == 1
    assert remains(label)

    script = "from tests.lab.lab import Lab\nwith Lab(): pass"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=30)
    assert remains(label) == []
    assert not owner.start_time(orphans[0])
    lab.client.pull(f"allowed.registry.test/{lab.image_name}").check()  # a live lab stays


def test_label_of_a_reused_pid_is_not_live(lab: Lab) -> None:
    """A process of the owner's number that started at another time is another one."""
    label = f"{os.getppid()}"
    path = owner.STATE_ROOT / f"{label}-1"
    path.mkdir()
    assert not owner.is_live(label)
    assert owner.is_live(lab.label)
    cleanup.remove_stale()
    assert not path.exists()


def remains(label: str) -> list[str]:
    """Return what there is that carries a label."""
    return [
        kind
        for kind, labels in {
            "namespaces": namespaces.labels(),
            "control groups": cgroups.labels(),
            "state": owner.claimed(),
        }.items()
        if label in labels
    ]
