"""Where processes `buildkitd` are, whoever has started them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ram_ebpf.dataplane.devices import Device
from ram_ebpf.scopes import buildkit
from ram_ebpf.scopes.buildkit import BuildkitTarget
from ram_ebpf.scopes.target import Places

CONTAINER = "0123456789abcdef" * 4
VETH = Device("veth1", 1)


class Host:
    """A /proc whose processes are in this network namespace, or in one behind a veth."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc, self.mount = directory / "proc", directory / "cgroup"
        self.proc.mkdir()
        self.now = 100.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        monkeypatch.setattr(buildkit, "devices_into", lambda namespace: frozenset({VETH}))

    def run(self, pid: int, cgroup: str, comm: str = "buildkitd", network: str = "own") -> None:
        """A process."""
        folder = self.proc / str(pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "exe").symlink_to(f"/usr/bin/{comm}")
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        other = self.proc / "other"
        other.touch()
        (folder / "ns/net").symlink_to("/proc/self/ns/net" if network == "own" else other)

    def target(self) -> BuildkitTarget:
        return BuildkitTarget(self.mount, self.proc)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_service_of_the_host(host: Host) -> None:
    host.run(42, "/system.slice/buildkit.service")
    host.run(43, "/system.slice/ssh.service", "sshd")
    assert host.target().find() == Places(frozenset({host.mount / "system.slice/buildkit.service"}))


@pytest.mark.parametrize(
    "name", [CONTAINER, f"docker-{CONTAINER}.scope", f"cri-containerd-{CONTAINER}.scope", f"crio-{CONTAINER}"]
)
@pytest.mark.parametrize("below", ["", "/init", "/init/x"])
def test_container_as_a_whole(host: Host, name: str, below: str) -> None:
    """BuildKit goes to a control group of its own in there, and its steps are in others."""
    host.run(42, f"/kubepods/pod1/{name}{below}", network="other")
    assert host.target().find() == Places(frozenset({host.mount / "kubepods/pod1" / name}), frozenset({VETH}))


def test_container_in_a_container(host: Host) -> None:
    """As on a node that is itself a container: the inner one."""
    inner = CONTAINER[::-1]
    host.run(42, f"/docker/{CONTAINER}/kubelet/{inner}/init")
    assert host.target().find().cgroups == {host.mount / f"docker/{CONTAINER}/kubelet/{inner}"}


def test_root_cgroup(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    host.run(42, "/")
    host.run(43, "/", network="other")
    target = host.target()
    for _ in range(2):
        assert target.find() == Places(devices=frozenset({VETH}))
        host.now += 5.0
    assert sorted(caplog.messages) == [
        f"builders any: buildkitd (pid {pid}) runs in the root cgroup, which holds this whole host, and is "
        f"{how}; start it in a cgroup of its own, as a systemd unit does"
        for pid, how in ((42, "not governed"), (43, "governed only where its network leads out"))
    ]


def test_processes_are_looked_through_seldom(host: Host) -> None:
    target = host.target()
    assert not target.find()
    host.run(42, "/a")
    host.now += 2.0
    assert not target.find()
    host.now += 2.0
    assert target.find()


def test_process_that_ends_meanwhile(host: Host) -> None:
    host.run(42, "/a")
    (host.proc / "42/cgroup").unlink()
    (host.proc / "42/ns/net").unlink()
    assert not host.target().find()
