"""A privileged container against the scope that it is in. What governs it from outside is at its device."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import NetNS

from ram_ebpf.dataplane import cgroups, namespaces, syscall
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, eventually, tcp_connect, wait_denied, wait_line
from tests.lab import docker_image, topology
from tests.lab.docker import RESOLVER, Container, Docker
from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab

pytestmark = pytest.mark.root

REPOSITORY = "lab/attacker"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
SCOPE = "container label=team=builds"
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}, {RESOLVER}]
"""
_IFA_F_NODAD = 2  # include/uapi/linux/if_addr.h: usable at once
# Each attempt has one of its own: of a device's refusals that are alike within a second one is told.
_PORTS = itertools.count(20000)
# What a refusal at a device looks like to who has escaped the cgroup.
_BY_DEVICE = frozenset({errno.ECONNREFUSED, errno.EACCES, errno.EHOSTUNREACH})


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("attacker")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    with Docker(lab, directory, directory.name) as result:
        result.pull(IMAGE).check()
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, docker: Docker) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, SCOPE.replace(" ", ":", 1)) as result:
        yield result


@pytest.fixture
def container(docker: Docker, daemon: HostDaemon) -> Iterator[Container]:
    start = len(daemon.lines())
    result = docker.run(IMAGE, docker_image.WAIT, "attacker", {"team": "builds"})
    try:
        wait_governed(daemon, start, result)
        yield result
    finally:
        docker.remove(result)


def wait_governed(daemon: HostDaemon, start: int, container: Container) -> None:
    for text in (f"{container.cgroup} is governed", "device veth"):
        wait_line(
            daemon,
            start,
            lambda line, text=text: line["event"] == "scope-back" and text in line["explanation"],  # type: ignore[misc]
            text,
            patience=10.0,
        )


def assert_refused(actor: Actor, daemon: HostDaemon, address: str, *errors: int) -> None:
    start, port = len(daemon.lines()), next(_PORTS)
    with pytest.raises((PermissionError, ConnectionRefusedError, OSError)) as caught:
        tcp_connect(actor, address, port)
    assert caught.value.errno in (errors or _BY_DEVICE), caught.value
    line = wait_denied(daemon, start, address, port)
    assert line["scope"] == SCOPE


def test_moves_itself_to_another_cgroup(
    lab: Lab, docker: Docker, daemon: HostDaemon, container: Container, tmp_path: Path
) -> None:
    """As one with the host's cgroups mounted may."""
    elsewhere = lab.new_cgroup("escaped")
    with Actor(container.node(tmp_path / "moved"), elsewhere) as moved:
        assert_refused(moved, daemon, topology.BLOCKED)


def test_takes_the_programs_off_its_cgroup(
    docker: Docker, daemon: HostDaemon, container: Container, tmp_path: Path
) -> None:
    """As one with CAP_SYS_ADMIN and the host's cgroups mounted may."""
    found = cgroups.ours_attached(container.cgroup, CGROUP_HOOKS)
    assert len(found) == len(CGROUP_HOOKS)
    assert cgroups.detach_leftovers(found, container.cgroup) == len(CGROUP_HOOKS)
    with Actor(container.node(tmp_path / "stripped")) as stripped:
        assert_refused(stripped, daemon, topology.BLOCKED)


def test_takes_off_all_filters_that_it_sees(
    docker: Docker, daemon: HostDaemon, container: Container, tmp_path: Path
) -> None:
    """Those that count are at the other end of its cable, where it is not."""
    inside = ["nsenter", f"--net=/proc/{container.pid}/ns/net", "--"]
    for words in (
        ["tc", "qdisc", "add", "dev", "eth0", "clsact"],
        ["tc", "filter", "del", "dev", "eth0", "ingress"],
        ["tc", "filter", "del", "dev", "eth0", "egress"],
        ["tc", "qdisc", "del", "dev", "eth0", "clsact"],
    ):
        subprocess.run([*inside, *words], check=False, capture_output=True)
    with NetNS(f"/proc/{container.pid}/ns/net") as netlink:
        (eth0,) = netlink.link_lookup(ifname="eth0")
        for way in (syscall.AttachType.TCX_INGRESS, syscall.AttachType.TCX_EGRESS):
            with contextlib.suppress(OSError):
                assert syscall.program_query(eth0, way) == []
    with Actor(container.node(tmp_path / "filters")) as actor:
        assert_refused(actor, daemon, topology.BLOCKED, errno.EPERM)


@pytest.mark.parametrize("translated", [True, False], ids=["with NAT", "with an address of its own"])
def test_namespace_of_its_own_behind_its_network(
    docker: Docker, daemon: HostDaemon, container: Container, tmp_path: Path, translated: bool
) -> None:
    """A further network namespace inside, by a veth of its own: what comes out of it passes the device."""
    inside = ["nsenter", f"--net=/proc/{container.pid}/ns/net", "--"]
    holder = subprocess.Popen([*inside, "unshare", "--net", "sleep", "infinity"])
    try:
        assert eventually(lambda: _is_elsewhere(holder.pid, container.pid))
        with NetNS(f"/proc/{container.pid}/ns/net") as outer:
            outer.link("add", ifname="nest", kind="veth", peer={"ifname": "up", "net_ns_pid": holder.pid})
            (nest,) = outer.link_lookup(ifname="nest")
            outer.link("set", index=nest, state="up")
            outer.addr("add", index=nest, address="10.99.0.1", prefixlen=24)
        with NetNS(f"/proc/{holder.pid}/ns/net") as inner:
            (up,) = inner.link_lookup(ifname="up")
            inner.link("set", index=up, state="up")
            inner.addr("add", index=up, address="10.99.0.2", prefixlen=24)
            inner.route("add", dst="default", gateway="10.99.0.1")
        _set(_network(container), "net/ipv4/ip_forward", "1")
        if translated:
            rule = ["-t", "nat", "-A", "POSTROUTING", "-s", "10.99.0.0/24", "-j", "MASQUERADE"]
            subprocess.run([*inside, "iptables", *rule], check=True, capture_output=True)
        start, port = len(daemon.lines()), next(_PORTS)
        script = f"import socket; socket.create_connection(('{topology.BLOCKED}', {port}), 3)"
        tried = subprocess.run(
            ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--", "python3", "-c", script],
            check=False,
            capture_output=True,
            text=True,
        )
        assert tried.returncode != 0
        line = wait_denied(daemon, start, topology.BLOCKED, port)
        assert line["scope"] == SCOPE
        if translated:
            assert "ConnectionRefusedError" in tried.stderr
    finally:
        holder.kill()
        holder.wait()


def _is_elsewhere(pid: int, other: int) -> bool:
    with contextlib.suppress(OSError):
        known = {namespaces.identity(Path(f"/proc/{where}/ns/net")) for where in (other, "self")}
        return namespaces.identity(Path(f"/proc/{pid}/ns/net")) not in known
    return False


def _network(container: Container) -> Path:
    return Path(f"/proc/{container.pid}/ns/net")


def _set(namespace: Path, name: str, value: str) -> None:
    """A setting of a network namespace."""
    script = f"echo {value} > /proc/sys/{name}"
    subprocess.run(["nsenter", f"--net={namespace}", "--", "sh", "-c", script], check=True)


def test_second_address_family(
    lab: Lab, docker: Docker, daemon: HostDaemon, container: Container, tmp_path: Path
) -> None:
    """IPv6, which nobody has set up for it, by addresses that it gives itself."""
    gateway, own = "fd99::1", "fd99::2"
    with NetNS(docker.node.namespace.name) as host:
        names = {link.get_attr("IFLA_IFNAME"): link["index"] for link in host.get_links()}
        (name,) = (name for name in names if name.startswith("br-"))
        bridge = names[name]
        _set(docker.node.namespace.path, f"net/ipv6/conf/{name}/disable_ipv6", "0")
        host.addr("add", index=bridge, address=gateway, prefixlen=64, flags=_IFA_F_NODAD)
        try:
            with NetNS(f"/proc/{container.pid}/ns/net") as netlink:
                _set(_network(container), "net/ipv6/conf/all/disable_ipv6", "0")
                _set(_network(container), "net/ipv6/conf/eth0/disable_ipv6", "0")
                (eth0,) = netlink.link_lookup(ifname="eth0")
                netlink.addr("add", index=eth0, address=own, prefixlen=64, flags=_IFA_F_NODAD)
                netlink.route("add", family=socket.AF_INET6, dst="default", gateway=gateway)
            elsewhere = lab.new_cgroup("second-family")
            with Actor(container.node(tmp_path / "six"), elsewhere) as actor:
                assert_refused(actor, daemon, topology.BLOCKED_V6)
            with Actor(container.node(tmp_path / "mapped")) as actor:
                item = actor.socket(socket.AF_INET6, socket.SOCK_STREAM)
                with pytest.raises(PermissionError):
                    item.connect((f"::ffff:{topology.BLOCKED}", PORT))
        finally:
            host.addr("delete", index=bridge, address=gateway, prefixlen=64)
