"""Builders in pods of a real containerd, found through its CRI and followed as they come and go."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, eventually, wait_line

from . import cri, docker_image, topology
from .containerd import Containerd, Pod
from .dns import Addresses
from .docker_daemon import HostDaemon, governed
from .lab import Lab

pytestmark = pytest.mark.root

REPOSITORY = "lab/pods"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
NAME, ADDRESS = "pods.allowed.registry.test", topology.MANY[21]
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""
BUILDKITD = ("/bin/buildkitd", "infinity")
_ETH_P_ALL = 3
_PATIENCE = 10.0


@pytest.fixture(scope="module")
def containerd(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    directory = tmp_path_factory.mktemp("pods")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    lab.dns.update({NAME: Addresses((ADDRESS,), 60)})
    with Containerd(lab, directory, directory.name, IMAGE) as result:
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, containerd: Containerd) -> Iterator[HostDaemon]:
    """It is there before the runtime is."""
    with governed(lab, containerd, POLICY, "builders:kubernetes") as result:
        assert result.said() == "ram-ebpf: builders kubernetes: is not there; it is governed as soon as it is"
        containerd.start()
        containerd.call("PullImage", image={"image": IMAGE})
        yield result


def lines_of(daemon: HostDaemon, start: int, event: str, text: str) -> list[dict[str, Any]]:
    return [line for line in daemon.lines()[start:] if line["event"] == event and text in line["explanation"]]


def wait_event(daemon: HostDaemon, start: int, event: str, text: str) -> str:
    """The line's explanation."""
    line = wait_line(
        daemon,
        start,
        lambda line: line["event"] == event and text in line["explanation"],
        f"{event} of {text}",
        _PATIENCE,
    )
    return str(line["explanation"])


def wait_governed(daemon: HostDaemon, start: int, pod: Pod) -> str:
    """Its device, as the log calls it."""
    wait_event(daemon, start, "scope-back", f"{pod.cgroup} is governed")
    return wait_event(daemon, start, "scope-back", "device veth").partition(" is ")[0]


def reach(pod: Pod, name: str) -> str:
    return pod.run(["/bin/musl", str(PORT), name]).stdout


def assert_governed(pod: Pod) -> None:
    assert f"{topology.BLOCKED} {errno.EPERM}\n" in reach(pod, "blocked.registry.test")
    assert reach(pod, NAME) == f"{ADDRESS} 0\n"


def assert_free(pod: Pod) -> None:
    assert f"{topology.BLOCKED} 0\n" in reach(pod, "blocked.registry.test")


def test_builder_of_buildx(containerd: Containerd, daemon: HostDaemon) -> None:
    """Known by the name of its container, before the daemon in it runs."""
    start = len(daemon.lines())
    with containerd.pod("builder0-1", "buildkitd", docker_image.WAIT, {"app": "builder0"}) as pod:
        wait_governed(daemon, start, pod)
        assert_governed(pod)
        denied = {"event": "denied", "host": "blocked.registry.test"}
        line = wait_line(daemon, start, lambda line: denied.items() <= line.items(), "the refusal")
        assert line["scope"] == "builders kubernetes"
    wait_event(daemon, start, "scope-gone", str(pod.cgroup))
    wait_event(daemon, start, "scope-gone", "device veth")


def test_nothing_leaves_a_governed_one(lab: Lab, containerd: Containerd, daemon: HostDaemon) -> None:
    """Once it is governed, as the wire shows; nor from beside its cgroup. Before, a new pod is free."""
    target = "10.77.0.244"
    lab.blocked.node.add_addresses(target)
    start = len(daemon.lines())
    with (
        containerd.pod("first", "buildkitd", docker_image.WAIT) as pod,
        Actor(containerd.node) as watching,
    ):
        item = watching.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        item.bind(("eth0", _ETH_P_ALL))
        wait_governed(daemon, start, pod)
        assert reach(pod, target) == f"{target} {errno.EPERM}\n"
        # From another control group: only the device is in its way.
        connect = f"import socket; socket.create_connection(({target!r}, {PORT}), 2)"
        pid = subprocess.check_output(["pgrep", "--cgroup", _path_of(pod.cgroup)], text=True).split()[0]
        beside = subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "--", sys.executable, "-c", connect],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Connection refused" in beside.stderr
        assert reach(pod, NAME) == f"{ADDRESS} 0\n"
        left = [data for data, _ in item.drain()]
    assert any(socket.inet_aton(ADDRESS) in data for data in left), "the watcher sees nothing"
    assert not any(socket.inet_aton(target) in data for data in left)


def _path_of(cgroup: Path) -> str:
    return "/" + "/".join(cgroup.parts[-3:])


def test_builder_by_what_runs_in_it(containerd: Containerd, daemon: HostDaemon) -> None:
    start = len(daemon.lines())
    with containerd.pod("harmless", "web", BUILDKITD, {"app": "web"}) as pod:
        wait_governed(daemon, start, pod)
        assert_governed(pod)


def test_builder_in_the_hosts_network(containerd: Containerd, daemon: HostDaemon) -> None:
    """It has no device of its own; its control group is governed."""
    start = len(daemon.lines())
    with containerd.pod("hosts", "buildkitd", BUILDKITD, network=cri.NODE) as pod:
        wait_event(daemon, start, "scope-back", f"{pod.cgroup} is governed")
        assert_governed(pod)
        assert not lines_of(daemon, start, "scope-back", "device")


def test_other_pods_are_free(containerd: Containerd, daemon: HostDaemon) -> None:
    """Whatever labels they have; and beside a builder that is governed."""
    start = len(daemon.lines())
    with (
        containerd.pod("web", "web", docker_image.WAIT, {"app": "builder0"}) as web,
        containerd.pod("builder", "buildkitd", BUILDKITD, {"app": "builder0"}) as builder,
    ):
        wait_governed(daemon, start, builder)
        assert_free(web)
        assert not lines_of(daemon, start, "scope-back", str(web.cgroup))


def test_container_that_is_started_again(containerd: Containerd, daemon: HostDaemon) -> None:
    """In the same pod, as the kubelet does with one that has crashed, and then as a pod of the same name."""
    start = len(daemon.lines())
    with containerd.pod("again", "buildkitd", BUILDKITD) as pod:
        wait_governed(daemon, start, pod)
        first = pod.cgroup
        pod.stop()
        pod.start("buildkitd", BUILDKITD, attempt=1)
        wait_event(daemon, start, "scope-back", f"{pod.cgroup} is governed")
        wait_event(daemon, start, "scope-gone", str(first))
        assert_governed(pod)
    start = len(daemon.lines())
    with containerd.pod("again", "buildkitd", BUILDKITD) as pod:
        wait_governed(daemon, start, pod)
        assert_governed(pod)


def test_containerd_that_is_started_again(containerd: Containerd, daemon: HostDaemon) -> None:
    """Enforcement goes on without it, and what comes afterwards is found."""
    start = len(daemon.lines())
    with containerd.pod("lasting", "buildkitd", BUILDKITD) as pod:
        device = wait_governed(daemon, start, pod)
        # Where it has the right to, BuildKit makes control groups in its own.
        own = pod.cgroup / "init"
        own.mkdir()
        (own / "cgroup.procs").write_text(str(pod.pid), encoding="ascii")
        with containerd.halted():
            problem = f"container runtime at {containerd.socket}: no container runtime answers there"
            assert eventually(lambda: problem in daemon.said(), _PATIENCE), daemon.said()
            time.sleep(1.1)  # another attempt that fails
        assert_governed(pod)
        with containerd.pod("later", "buildkitd", BUILDKITD) as later:
            wait_event(daemon, start, "scope-back", f"{later.cgroup} is governed")
            assert_governed(later)
            assert_governed(pod)
        for place in (str(pod.cgroup), device):
            assert not lines_of(daemon, start, "scope-gone", place)


def test_whatever_runs_buildkitd(lab: Lab, containerd: Containerd, daemon: HostDaemon) -> None:
    """No engine is asked for `builders: any`. It is another ram-ebpf, after the one of the other tests."""
    assert daemon.terminate() == 0
    with containerd.pod("free", "web", docker_image.WAIT) as web:
        with governed(lab, containerd, POLICY, "builders:any") as other:
            with containerd.pod("any", "harmless", BUILDKITD) as pod:
                wait_governed(other, 0, pod)
                assert_governed(pod)
                assert_free(web)
            wait_event(other, 0, "scope-gone", str(pod.cgroup))
