"""Docker's resolver at 127.0.0.11, by a real dockerd: containers resolve names through it, and are governed.

It listens in each container's network namespace, on a port of its own; NAT leads what is sent to port 53
there, and makes replies come from port 53. The hooks of a control group see a packet behind that:

    container, egress     127.0.0.1:CLIENT  > 127.0.0.11:ITS OWN
    dockerd,   ingress    127.0.0.1:CLIENT  > 127.0.0.11:ITS OWN
    dockerd,   egress     127.0.0.11:53     > 127.0.0.1:CLIENT
    container, ingress    127.0.0.11:53     > 127.0.0.1:CLIENT
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import PORT, eventually, tcp_connect, wait_denied, wait_line
from tests.adversarial.packets import ipv4, labels_of, query, reply, udp, wire_name

from . import cgroups, docker_image, topology
from .dns import Addresses
from .docker import RESOLVER, Container, Docker
from .docker_daemon import HostDaemon, governed
from .lab import Lab
from .node import Node
from .pace import PACE

REPOSITORY = "lab/tools"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
SERVER = (RESOLVER, 53)
AT_ONCE = 2.0 * PACE  # seconds; the aim is 0.2

# A wildcard, so that ram-ebpf looks no name up before somebody asks.
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}, {RESOLVER}]
"""

# Every test has names with addresses of their own, at which a registry listens; what one has learned must not
# help another.
LABELS = ("musl", "glibc", "pull", "bound", "held", "tcp-1", "tcp-2", "tcp-3", "engine-tcp")
FORGED = ("socket", "raw", "packet", "beside", "nested")
ADDRESSES = dict(
    zip(
        [f"{label}.allowed.registry.test" for label in (*LABELS, *FORGED)]
        + [f"{label}.blocked.registry.test" for label in LABELS],
        topology.MANY,
        strict=False,
    )
)
# The attacker's: where the names above lead by a forged reply.
TARGETS = {label: f"10.77.0.{200 + number}" for number, label in enumerate(FORGED)}


@pytest.fixture(scope="module")
def records(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the lab's resolver and registries know."""
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("tools")))
    lab.dns.update({name: Addresses((address,), 60) for name, address in ADDRESSES.items()})
    lab.blocked.node.add_addresses(*TARGETS.values())


@contextlib.contextmanager
def dockerd(lab: Lab, directory: Path, nested: bool = False) -> Iterator[Docker]:
    """A dockerd with the image."""
    with Docker(lab, directory, directory.name, nested) as result:
        result.pull(IMAGE).check()
        yield result


@pytest.fixture(scope="module")
def docker(lab: Lab, records: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    with dockerd(lab, tmp_path_factory.mktemp("docker")) as result:
        yield result


@pytest.fixture(scope="module")
def container(docker: Docker) -> Container:
    return docker.run(IMAGE, docker_image.WAIT)


@pytest.fixture(scope="module")
def seized(lab: Lab, docker: Docker) -> Container:
    """A container whose resolver's address somebody has taken over."""
    result = docker.run(IMAGE, docker_image.WAIT)
    seize(result.node(lab.directory / "seized"))
    return result


def seize(node: Node) -> None:
    """Takes dockerd's place in a container, which its root may do with CAP_NET_ADMIN."""
    node.run(["iptables", "-t", "nat", "-F", "OUTPUT"]).check()
    # Else the kernel drops what a packet socket makes from an address of the loopback network.
    node.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet"]).check()


@pytest.fixture(scope="module")
def daemon(
    request: pytest.FixtureRequest, lab: Lab, docker: Docker, container: Container, seized: Container
) -> Iterator[HostDaemon]:
    """ram-ebpf on the containers' control groups, the engine's, or all of them."""
    containers = [container.cgroup, seized.cgroup]
    scopes = {
        "containers": containers,
        "engine": [docker.cgroup],
        "both": [docker.cgroup, *containers],
    }
    with governed(lab, docker, POLICY, *scopes[request.param]) as result:
        yield result


# Tests of the first kind stand before those of the second, so that ram-ebpf starts only once for each scope.
containers = pytest.mark.parametrize("daemon", ["containers", "both"], indirect=True)
engine = pytest.mark.parametrize("daemon", ["engine", "both"], indirect=True)


@pytest.fixture
def inside(container: Container, tmp_path: Path) -> Iterator[Actor]:
    with Actor(container.node(tmp_path / "inside")) as result:
        yield result


def wire(name: str) -> bytes:
    return wire_name(*labels_of(name))


def denied(daemon: HostDaemon, start: int) -> list[dict[str, Any]]:
    """What was refused since, leaving out the connections that an earlier test has left behind."""

    def is_left_behind(line: dict[str, Any]) -> bool:
        return (line["address"], line["protocol"]) == ("127.0.0.1", "tcp")

    lines = daemon.lines()[start:]
    return [line for line in lines if line["event"] == "denied" and not is_left_behind(line)]


def ask_by_tcp(actor: Actor, name: str, patience: float) -> RemoteSocket:
    """Sends a query for a name to Docker's resolver."""
    stream = actor.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.settimeout(patience)
    stream.connect(SERVER)
    message = query(wire(name))
    stream.send(len(message).to_bytes(2, "big") + message)
    return stream


@containers
@pytest.mark.parametrize("library", ["musl", "glibc"])
def test_listed_name(daemon: HostDaemon, container: Container, library: str) -> None:
    name = f"{library}.allowed.registry.test"
    start = len(daemon.lines())
    reached = container.run([f"/bin/{library}", str(PORT), name])
    assert reached.stdout == f"{ADDRESSES[name]} 0\n", reached.stderr

    def is_learned(line: dict[str, Any]) -> bool:
        return (line["event"], line.get("resolver")) == ("learned", f"{RESOLVER}#53")

    line = wait_line(daemon, start, is_learned, f"what {RESOLVER} replied")
    assert (line["host"], line["addresses"]) == (name, [ADDRESSES[name]])
    assert line["cgroup"].endswith(f"/{container.identifier}")
    allowed = {"event": "allowed", "host": name, "address": ADDRESSES[name], "process": library}
    wait_line(daemon, start, lambda line: allowed.items() <= line.items(), "what was allowed")
    assert not denied(daemon, start)


@containers
@pytest.mark.parametrize("library", ["musl", "glibc"])
def test_name_that_is_not_listed(daemon: HostDaemon, container: Container, library: str) -> None:
    name = f"{library}.blocked.registry.test"
    start = len(daemon.lines())
    reached = container.run([f"/bin/{library}", str(PORT), name])
    assert reached.stdout == f"{ADDRESSES[name]} {errno.EPERM}\n", reached.stderr
    assert reached.seconds < AT_ONCE
    line = wait_denied(daemon, start, ADDRESSES[name])
    assert (line["host"], line["reason"]) == (name, "denied-unknown-address")
    assert line["cgroup"].endswith(f"/{container.identifier}")


@containers
def test_replies_over_tcp_wait(daemon: HostDaemon, container: Container, inside: Actor) -> None:
    """As from any resolver: the client has them only when ram-ebpf has asked for the name itself."""
    name = "held.allowed.registry.test"
    with daemon.paused():
        stream = ask_by_tcp(inside, name, 0.3)
        with pytest.raises(TimeoutError):
            stream.recv()
    stream.settimeout(3)
    assert socket.inet_aton(ADDRESSES[name]) in stream.recv()
    tcp_connect(inside, ADDRESSES[name])
    for label in ("tcp-1", "tcp-2", "tcp-3"):
        name = f"{label}.allowed.registry.test"
        reached = container.run(["/bin/glibc", str(PORT), name], {"RES_OPTIONS": "use-vc"})
        assert reached.stdout == f"{ADDRESSES[name]} 0\n", reached.stderr


@containers
def test_other_ports_of_the_resolver(daemon: HostDaemon, container: Container, inside: Actor) -> None:
    """Neither those that nobody serves nor those behind NAT, where dockerd really listens."""
    hidden = {kind: own_port(container, kind) for kind in ("udp", "tcp")}
    for port in (54, hidden["tcp"], hidden["udp"]):
        start = len(daemon.lines())
        with pytest.raises(PermissionError):
            tcp_connect(inside, RESOLVER, port)
        with pytest.raises(PermissionError):
            inside.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (RESOLVER, port))
        with pytest.raises(PermissionError):
            inside.socket(socket.AF_INET, socket.SOCK_DGRAM).connect((RESOLVER, port))
        line = wait_denied(daemon, start, RESOLVER, port)
        assert line["reason"] == "denied-unknown-address"


def own_port(container: Container, kind: str) -> int:
    """The port at which dockerd listens at 127.0.0.11, from /proc/PID/net/udp or tcp."""
    address = f"{int.from_bytes(socket.inet_aton(RESOLVER), sys.byteorder):08X}"
    lines = Path(f"/proc/{container.pid}/net/{kind}").read_text(encoding="ascii").splitlines()[1:]
    (port,) = {
        int(local.partition(":")[2], 16)
        for _, local, remote, *_ in map(str.split, lines)
        if local.startswith(address) and remote == "00000000:0000"
    }
    return port


@containers
def test_somebody_binds_the_address(daemon: HostDaemon, container: Container, inside: Actor) -> None:
    """Port 53 is free there, but NAT leads around whoever takes it."""
    name = "bound.allowed.registry.test"
    item = inside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    item.bind(SERVER)
    reached = container.run(["/bin/musl", str(PORT), name])
    assert reached.stdout == f"{ADDRESSES[name]} 0\n", reached.stderr
    item.settimeout(0.05)
    with pytest.raises(TimeoutError):
        item.recv()


Forge = Callable[[Actor, int, bytes], None]


def by_socket(attacker: Actor, port: int, message: bytes) -> None:
    item = attacker.socket(socket.AF_INET, socket.SOCK_DGRAM)
    item.bind(SERVER)
    item.sendto(message, ("127.0.0.1", port))


def _packet(port: int, message: bytes) -> bytes:
    datagram = udp(RESOLVER, "127.0.0.1", port, message, source_port=53)
    return ipv4(RESOLVER, "127.0.0.1", socket.IPPROTO_UDP, datagram)


def by_raw_socket(attacker: Actor, port: int, message: bytes) -> None:
    item = attacker.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    item.sendto(_packet(port, message), ("127.0.0.1", 0))


def by_packet_socket(attacker: Actor, port: int, message: bytes) -> None:
    item = attacker.socket(socket.AF_PACKET, socket.SOCK_RAW)
    item.sendto(bytes(12) + b"\x08\x00" + _packet(port, message), ("lo", 0x0800))


@contextlib.contextmanager
def forged(
    docker: Docker, attacked: Container, directory: Path, label: str, how: Forge, beside: bool = False
) -> Iterator[tuple[Actor, bool]]:
    """A client in a seized container asks for a name, and the attacker replies with an address of its own.

    Yields the client, and whether it got the reply: a governed attacker may find that it cannot send it. With
    `beside`, it is in the container's network alone.
    """
    target, name = TARGETS[label], wire(f"{label}.allowed.registry.test")
    node = attacked.node(directory / "attacked")
    with Actor(docker.node) as outside:
        tcp_connect(outside, target)
    with Actor(node) as client, Actor(node, docker.node.services if beside else None) as attacker:
        with pytest.raises(PermissionError):
            tcp_connect(client, target)
        item = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        item.sendto(query(name), SERVER)
        message = reply(name, target)
        try:
            how(attacker, item.port(), message)
        except PermissionError:
            assert not beside
            yield client, False
        else:
            assert item.recv() == message
            yield client, True


def is_open(actor: Actor, address: str) -> bool:
    try:
        tcp_connect(actor, address)
    except PermissionError:
        return False
    finally:
        actor.reset()
    return True


@containers
@pytest.mark.parametrize(
    ("label", "how", "beside"),
    [
        pytest.param("socket", by_socket, False, id="bound to its address"),
        pytest.param("raw", by_raw_socket, False, id="by a raw socket"),
        pytest.param("packet", by_packet_socket, False, id="by a packet socket"),
        pytest.param("beside", by_socket, True, id="from beside the scope"),
    ],
)
def test_forged_reply(
    daemon: HostDaemon,
    docker: Docker,
    seized: Container,
    tmp_path: Path,
    label: str,
    how: Forge,
    beside: bool,
) -> None:
    """To a query that dockerd does not see."""
    name = f"{label}.allowed.registry.test"
    start = len(daemon.lines())
    with forged(docker, seized, tmp_path, label, how, beside) as (client, delivered):
        with pytest.raises(PermissionError):
            tcp_connect(client, TARGETS[label])
        if delivered:
            line = wait_line(daemon, start, lambda line: line["event"] == "ignored-reply", "what is ignored")
            assert (line["reason"], line["host"]) == ("dns-untrusted-sender", name)
            assert line["addresses"] == [TARGETS[label]]
            # The name is asked again, and the true answer is open soon.
            assert eventually(lambda: is_open(client, ADDRESSES[name]))


@containers
def test_somebody_sends_from_the_address(daemon: HostDaemon, inside: Actor) -> None:
    """A strict scope reaches nothing on its host, and port 53 makes no difference."""
    receiver, sender = (inside.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    sender.bind(SERVER)
    with pytest.raises(PermissionError):
        sender.sendto(b"x", ("127.0.0.1", receiver.port()))


@engine
def test_allowed_pull(daemon: HostDaemon, docker: Docker) -> None:
    start = len(daemon.lines())
    docker.pull("pull.allowed.registry.test/lab/hello:1").check()
    host = "pull.allowed.registry.test"
    allowed = {"event": "allowed", "host": host, "process": "dockerd"}  # not what an earlier test left behind
    wait_line(daemon, start, lambda line: allowed.items() <= line.items(), f"that {host} was allowed")


@engine
def test_refused_pull(daemon: HostDaemon, docker: Docker) -> None:
    name = "pull.blocked.registry.test"
    start = len(daemon.lines())
    pull = docker.pull(f"{name}/lab/hello:1")
    assert "operation not permitted" in pull.stderr
    assert pull.seconds < AT_ONCE
    line = wait_denied(daemon, start, ADDRESSES[name])
    assert (line["process"], line["host"]) == ("dockerd", name)


@engine
@pytest.mark.parametrize("library", ["musl", "glibc"])
def test_names_of_containers(daemon: HostDaemon, container: Container, library: str) -> None:
    """dockerd answers its containers, which its scope knows nothing of."""
    start = len(daemon.lines())
    name = f"{library}.allowed.registry.test"
    reached = container.run([f"/bin/{library}", str(PORT), name])
    assert reached.stdout == f"{ADDRESSES[name]} 0\n", reached.stderr
    assert not denied(daemon, start)


@engine
def test_names_of_containers_over_tcp(daemon: HostDaemon, inside: Actor) -> None:
    name = "engine-tcp.allowed.registry.test"
    stream = ask_by_tcp(inside, name, 1.0)
    stream.settimeout(3)
    assert socket.inet_aton(ADDRESSES[name]) in stream.recv()


@engine
def test_why_replies_passed(daemon: HostDaemon) -> None:
    """The last test with this daemon, whose counters are told at its end."""
    assert daemon.terminate() == 0
    assert daemon.lines()[-1]["counters"]["allowed-resolver-reply"] > 0


def test_engine_above_its_containers(
    lab: Lab, records: None, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """So it is where somebody starts dockerd by hand, or in a container."""
    with dockerd(lab, tmp_path_factory.mktemp("nested"), nested=True) as docker:
        attacked = docker.run(IMAGE, docker_image.WAIT)
        with governed(lab, docker, POLICY, attacked.cgroup):
            name = "musl.allowed.registry.test"
            reached = attacked.run(["/bin/musl", str(PORT), name])
            assert reached.stdout == f"{ADDRESSES[name]} 0\n", reached.stderr
            seize(attacked.node(tmp_path / "seized"))
            with forged(docker, attacked, tmp_path, "nested", by_socket) as (client, _):
                with pytest.raises(PermissionError):
                    tcp_connect(client, TARGETS["nested"])


def test_nothing_is_left(lab: Lab, records: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nor is anything of the machine's touched while it runs."""
    directory = tmp_path_factory.mktemp("short")
    links = set(Path("/sys/class/net").iterdir())
    with dockerd(lab, directory) as docker:
        container = docker.run(IMAGE, docker_image.WAIT)
        assert set(Path("/sys/class/net").iterdir()) == links
        assert str(directory) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        places = [top for top, _, _ in os.walk("/sys/fs/cgroup") if top.endswith(container.identifier)]
        assert places == [str(container.cgroup)]
        namespace = docker.node.namespace
    assert cgroups.members(docker.cgroup) == cgroups.members(container.cgroup) == []
    assert not namespace.path.exists()
    assert not directory.exists()
