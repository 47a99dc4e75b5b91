"""Which containers a scope means."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from pydantic import TypeAdapter, ValidationError

from ram_ebpf.dataplane.devices import Device
from ram_ebpf.policy.messages import explain
from ram_ebpf.policy.scope import ContainerScope, Scope
from ram_ebpf.scopes import containers as module
from ram_ebpf.scopes.containers import ContainersTarget, Networks, RunningContainer
from ram_ebpf.scopes.device import Cable, Links
from ram_ebpf.scopes.docker import DockerContainers, DockerPorts, bridge_names, is_podman, matches
from ram_ebpf.scopes.target import Places

IDENTIFIER = "0123456789abcdef" * 4
CONTAINER = RunningContainer(IDENTIFIER, "web", (("empty", ""), ("team", "builds"), ("x", "a=b")), 42)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("web", True),
        ("we", False),
        ("webs", False),
        ("Web", False),
        (IDENTIFIER, True),
        (IDENTIFIER[:12], True),
        (IDENTIFIER[:11], False),
        (IDENTIFIER[1:20], False),
        ("label=team", True),
        ("label=team=builds", True),
        ("label=team=build", False),
        ("label=team=", False),
        ("label=empty=", True),
        ("label=x=a=b", True),
        ("label=teams", False),
    ],
)
def test_matches(wanted: str, meant: bool) -> None:
    assert matches(CONTAINER, wanted) is meant


@pytest.mark.parametrize(
    "text", ["web", "a.b_c-d", IDENTIFIER, "label=team", "label=a/b.c=d e".replace(" ", "")]
)
def test_valid(text: str) -> None:
    scope = TypeAdapter(Scope).validate_python({"container": text})
    assert isinstance(scope, ContainerScope)
    assert scope.target == text


@pytest.mark.parametrize("text", ["", "-a", "a b", "label=", "label==x", "a/b", "label=a\nb"])
def test_invalid(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Scope).validate_python({"container": text})
    _, problem, cure = explain(caught.value.errors()[0])
    assert "the name, identifier or label of a container" in problem
    assert cure == "write one, such as buildkit0 or label=team=builds"


# --- where they are


class Fake:
    """A Docker daemon's containers, and what the kernel says of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.containers: tuple[RunningContainer, ...] = ()
        self.bridges = frozenset({"docker0"})
        self.cables: list[Cable] = []
        self.numbers: dict[int, int | None] = {}
        self.asked: list[int] = []
        self.now = 100.0
        self.networks = Networks()
        monkeypatch.setattr(module, "cables", lambda: self.cables)
        monkeypatch.setattr(Links, "now", lambda: Links(self.cables, [BRIDGE, OTHER]))
        monkeypatch.setattr(module, "number_of", self._number_of)
        monkeypatch.setattr(module, "devices_inside", lambda namespace, ends: frozenset())
        monkeypatch.setattr(module, "of_container", lambda pid, identifier, mount: mount / str(pid))
        self.ended: set[int] = set()
        monkeypatch.setattr("ram_ebpf.dataplane.namespaces.identity", self._identity)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def _identity(self, namespace: Path) -> tuple[int, int]:
        if namespace.parts[2].isdigit() and int(namespace.parts[2]) in self.ended:
            raise FileNotFoundError
        return 0, hash(str(namespace))

    def _number_of(self, namespace: Path) -> int | None:
        pid = int(namespace.parts[2])
        self.asked.append(pid)
        return self.numbers.get(pid)

    def run(self, *pids: int) -> None:
        """These containers run, by their processes."""
        self.containers = tuple(RunningContainer(f"{pid:064}", f"c{pid}", (), pid) for pid in pids)

    def target(self) -> ContainersTarget:
        """Of all containers."""
        return ContainersTarget("all", self, Path("/cgroup"), lambda _: True)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    return Fake(monkeypatch)


VETH, OTHER, BRIDGE = Device("veth1", 1), Device("veth2", 2), Device("docker0", 9)


def test_places_of_a_container(fake: Fake) -> None:
    target = fake.target()
    assert not target.find()
    fake.run(42)
    fake.numbers[42] = 7
    fake.cables = [
        Cable(VETH, 7, 2, "docker0"),
        Cable(OTHER, 8, 2, "docker0"),
        Cable(Device("veth3", 3), None, 2, None),
    ]
    assert target.find() == Places(frozenset({Path("/cgroup/42")}), frozenset({VETH}))
    fake.run()
    assert not target.find()


def test_container_that_is_connected_later(fake: Fake) -> None:
    """No number yet is no reason not to ask again; a number is asked for once."""
    target = fake.target()
    fake.run(42)
    assert not target.find().devices
    fake.numbers[42] = 7
    fake.cables = [Cable(VETH, 7, 2, "docker0")]
    assert target.find().devices == {VETH}
    fake.cables.append(Cable(OTHER, 7, 2, "br-0123"))
    assert target.find().devices == {VETH, OTHER}
    assert fake.asked == [42, 42]


def test_it_is_looked_at_often_while_it_is_new(fake: Fake) -> None:
    target = fake.target()
    assert target.period > 1.0
    fake.run(42)
    target.find()
    assert target.period < 1.0
    fake.now += 10.0
    target.find()
    assert target.period > 1.0
    fake.run(42, 43)
    target.find()
    assert target.period < 1.0


def test_process_of_the_same_number_is_another_one(fake: Fake) -> None:
    target = fake.target()
    for number in (7, 8):
        fake.run(42)
        fake.numbers[42] = number
        fake.cables = [Cable(VETH, number, 2, "docker0")]
        assert target.find().devices == {VETH}
        fake.run()
        target.find()


def test_number_that_another_namespace_has_got(fake: Fake) -> None:
    """A container that has ended, which its engine does not know yet, has not the next one's device."""
    target = fake.target()
    fake.run(42)
    fake.numbers[42] = 7
    fake.cables = [Cable(VETH, 7, 2, "docker0")]
    assert target.find().devices == {VETH}
    fake.ended.add(42)
    fake.cables = [Cable(OTHER, 7, 2, "docker0")]
    assert not target.find().devices


def test_ports(fake: Fake) -> None:
    ports = DockerPorts(cast(DockerContainers, fake))
    fake.cables = [
        Cable(VETH, 7, 2, "docker0"),
        Cable(OTHER, None, 2, "docker0"),
        Cable(Device("veth3", 3), 9, 2, "br"),
    ]
    ports.look()
    assert (ports.bridges, ports.known, ports.others) == ({BRIDGE}, set(), {VETH, OTHER})
    fake.run(42)
    fake.numbers[42] = 7
    ports.look()
    assert (ports.bridges, ports.known, ports.others) == ({BRIDGE}, {VETH}, {OTHER})


# --- bridges of networks, by what real daemons have answered

PODMAN = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9"
BUILDS = "42a885058511a0a4c0cbbc5288f4d9c60e91033123736dc676a4aaec6a78f9c4"


def engine(name: str) -> dict[str, Any]:
    return {"ApiVersion": "1.41", "Components": [{"Name": name}, {"Name": "OCI Runtime (runc)"}]}


def networks(options: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"Name": "builds", "Id": BUILDS, "Driver": "bridge", "Options": {}},
        {"Name": "bridge", "Id": PODMAN, "Driver": "bridge", "Options": options},
    ]


PODMAN_ANSWERS = {"/v1.41/version": engine("Podman Engine"), "/v1.41/networks": networks({})}
LIBPOD = [
    {"name": "builds", "id": BUILDS, "driver": "bridge", "network_interface": "podman1"},
    {"name": "podman", "id": PODMAN, "driver": "bridge", "network_interface": "podman0"},
]


@contextmanager
def answering(directory: Path, answers: Mapping[str, Any]) -> Iterator[docker.DockerClient]:
    """A client of somebody who gives these answers, by path, and for all others 404 as podman does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            body = json.dumps(answer or {"message": "Not Found"}).encode()
            self.send_response(200 if answer else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    path = directory / "docker.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            with closing(docker.DockerClient(base_url=f"unix://{path}", version="1.41")) as client:
                yield client
        finally:
            server.shutdown()


def names_by(client: docker.DockerClient) -> set[str]:
    return set(bridge_names(client, is_podman(client)))


def test_bridges_of_docker(tmp_path: Path) -> None:
    option = {"com.docker.network.bridge.name": "docker0"}
    answers = {"/v1.41/version": engine("Engine"), "/v1.41/networks": networks(option)}
    with answering(tmp_path, answers) as client:
        assert names_by(client) == {"docker0", "br-42a885058511"}


def test_bridges_of_podman(tmp_path: Path) -> None:
    """podman 5.4.2; Docker's API does not tell how they are called."""
    with answering(tmp_path, {**PODMAN_ANSWERS, "/v4.0.0/libpod/networks/json": LIBPOD}) as client:
        assert names_by(client) == {"podman0", "podman1"}


def test_bridges_of_a_podman_without_its_own_api(tmp_path: Path) -> None:
    with answering(tmp_path, PODMAN_ANSWERS) as client:
        assert names_by(client) == {"br-2f259bab93aa", "br-42a885058511"}
