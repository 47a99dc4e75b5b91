"""What is made of the answers of container runtimes: a real gRPC server that says what it is told to."""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from ram_ebpf.scopes import cri
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.containers import RunningContainer
from ram_ebpf.scopes.cri import DEFAULT_SOCKETS, CriContainers, sockets
from ram_ebpf.scopes.cri_messages import MESSAGES, RUNNING, SERVICE, declare

EXITED = 2
PATIENCE = 10.0
OWN = os.getpid()
NOT_CRI = b"\xff\xff\xff\xff"


class Runtime:
    """A container runtime at a socket.

    What it answers may be given: bytes, a status to fail with, or seconds after which it is too late.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages = declare(MESSAGES)
        self.list: bytes | grpc.StatusCode | float | None = None  # instead of what is in `items`
        self.items: list[Any] = []
        self.info: dict[str, Any] = {}  # by identifier: the text in "info", or as above
        self.calls: list[str] = []
        self._server: grpc.Server | None = None

    def add(self, identifier: str, info: Any, name: str = "web", state: int = RUNNING, **more: Any) -> None:
        """Adds a container."""
        self.items.append(
            self.messages["Container"](id=identifier, metadata={"name": name}, state=state, **more)
        )
        self.info[identifier] = info

    def start(self, handler: grpc.GenericRpcHandler | None = None) -> None:
        """Listens."""
        self._server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[handler or _Handler(self)])
        self._server.add_insecure_port(f"unix://{self.path}")
        self._server.start()

    def stop(self) -> None:
        """Ends at once."""
        if self._server is not None:
            self._server.stop(None).wait()

    def answer(self, method: str, request: bytes) -> bytes | grpc.StatusCode:
        """What is to be said."""
        self.calls.append(method)
        said: Any
        if method == f"{SERVICE}/ListContainers":
            wanted = self.messages["ListContainersRequest"].FromString(request)
            assert wanted.filter.state.state == RUNNING
            said = self.list
            if said is None:
                return bytes(
                    self.messages["ListContainersResponse"](containers=self.items).SerializeToString()
                )
        else:
            assert method == f"{SERVICE}/ContainerStatus"
            asked = self.messages["ContainerStatusRequest"].FromString(request)
            assert asked.verbose
            said = self.info[asked.container_id]
            if isinstance(said, str):
                answer = self.messages["ContainerStatusResponse"](info={"info": said})
                return bytes(answer.SerializeToString())
        if isinstance(said, float):
            time.sleep(said)
            return b""
        assert isinstance(said, bytes | grpc.StatusCode)
        return said


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        method = details.method

        def call(request: bytes, context: grpc.ServicerContext) -> bytes:
            said = self._runtime.answer(method, request)
            if isinstance(said, grpc.StatusCode):
                context.abort(said, "as told\n" + "x" * 5000)
                raise AssertionError("unreachable")
            return said

        return grpc.unary_unary_rpc_method_handler(call)


class _Nothing(grpc.GenericRpcHandler):
    """A server of something else, such as a containerd without its CRI plugin."""

    def service(self, details: grpc.HandlerCallDetails) -> None:
        return None


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # The names of pytest's own would be too long for a socket.
    monkeypatch.setattr(cri, "_PERIOD", 0.02)
    with tempfile.TemporaryDirectory(prefix="cri-") as path:
        yield Path(path)


@pytest.fixture
def runtime(directory: Path) -> Iterator[Runtime]:
    result = Runtime(directory / "s")
    yield result
    result.path.unlink(missing_ok=True)  # nobody is to miss it when it ends
    result.stop()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def pid_is(pid: object) -> str:
    return json.dumps({"sandboxID": "s", "pid": pid, "runtimeSpec": {}})


def watching(runtime: Runtime) -> CriContainers:
    result = CriContainers([runtime.path])
    result.start(PATIENCE)
    return result


def eventually(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def names(containers: CriContainers) -> list[str]:
    return [container.identifier for container in containers.containers]


def complaints(caplog: pytest.LogCaptureFixture, runtime: Runtime) -> list[str]:
    start = f"container runtime at {runtime.path}: "
    return [text.removeprefix(start) for text in caplog.messages if text.startswith(start)]


# --- what is as it should be


def test_containers(runtime: Runtime) -> None:
    runtime.add("a" * 64, pid_is(OWN), "buildkitd", labels={"k": "v", "a": "b"}, image={"image": "x/y:1"})
    runtime.add("b" * 64, pid_is(OWN), "gone", EXITED)
    runtime.start()
    containers = watching(runtime)
    labels = (("a", "b"), ("k", "v"))
    assert containers.containers == (RunningContainer("a" * 64, "buildkitd", labels, OWN, "x/y:1"),)


@pytest.mark.parametrize(
    ("fields", "image"),
    [
        ({"image": {"image": "sha256:01", "user_specified_image": "moby/buildkit:v1"}}, "moby/buildkit:v1"),
        (
            {"image": {"image": "docker.io/moby/buildkit:v1"}, "image_ref": "x/y"},
            "docker.io/moby/buildkit:v1",
        ),
        ({"image": {"image": "0123"}, "image_ref": "moby/buildkit@sha256:01"}, "moby/buildkit@sha256:01"),
        ({"image": {"image": "busybox"}, "image_ref": "sha256:01"}, "busybox"),
        ({}, ""),
    ],
)
def test_image(runtime: Runtime, fields: dict[str, Any], image: str) -> None:
    runtime.add("a", pid_is(OWN), **fields)
    runtime.start()
    assert [container.image for container in watching(runtime).containers] == [image]


def test_news_is_of_changes_only(runtime: Runtime) -> None:
    runtime.add("a", pid_is(OWN))
    runtime.start()
    containers = watching(runtime)
    assert containers.has_news()
    before = len(runtime.calls)
    assert eventually(lambda: len(runtime.calls) > before + 3)
    assert not containers.has_news()
    runtime.add("b", pid_is(OWN))
    assert eventually(containers.has_news)
    assert names(containers) == ["a", "b"]
    runtime.items.pop(0)
    assert eventually(containers.has_news)
    assert names(containers) == ["b"]


def test_each_is_asked_for_once(runtime: Runtime) -> None:
    for number in range(50):
        runtime.add(f"{number}", pid_is(OWN))
    runtime.start()
    assert len(watching(runtime).containers) == 50
    assert eventually(lambda: runtime.calls.count(f"{SERVICE}/ListContainers") > 3)
    assert runtime.calls.count(f"{SERVICE}/ContainerStatus") == 50


# --- containers of which it says odd things


@pytest.mark.parametrize(
    "info",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"info": {"pid": 42}}',
        *map(pid_is, [0, 1, -1, True, None, "42", 42.0, [42], (1 << 22) + 1, 1 << 80]),
        '{"pid": ' + "9" * 5000 + "}",
        "[" * 200_000,
        '{"pid": 42, "x": "' + "x" * (4 << 20) + '"}',
        pytest.param(NOT_CRI, id="garbage"),
    ],
)
def test_odd_process(runtime: Runtime, caplog: pytest.LogCaptureFixture, info: str | bytes) -> None:
    """It is told of once, asked for again, and in nobody's way."""
    runtime.add("odd", info)
    runtime.add("usual", pid_is(OWN))
    runtime.start()
    containers = watching(runtime)
    assert eventually(lambda: names(containers) == ["usual"])
    assert eventually(lambda: complaints(caplog, runtime))
    (problem,) = complaints(caplog, runtime)
    if isinstance(info, bytes):
        assert problem.startswith("what it answers to ContainerStatus is not of the CRI; see what ")
    else:
        assert problem.startswith("it does not tell the process of container 'odd'; see what the runtime's ")
    runtime.info["odd"] = pid_is(OWN)
    assert eventually(lambda: names(containers) == ["odd", "usual"])
    assert len(complaints(caplog, runtime)) == 1


def test_status_that_fails(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    runtime.add("broken", grpc.StatusCode.INTERNAL)
    runtime.add("usual", pid_is(OWN))
    runtime.start()
    containers = watching(runtime)
    assert eventually(lambda: names(containers) == ["usual"])
    assert eventually(lambda: complaints(caplog, runtime))
    problem = complaints(caplog, runtime)[0]
    assert problem.startswith("INTERNAL 'as told\\nxxx")
    assert problem.endswith("name another socket in CONTAINER_RUNTIME_ENDPOINT")
    assert len(problem) < 400


def test_container_that_has_gone_meanwhile(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    runtime.add("gone", grpc.StatusCode.NOT_FOUND)
    runtime.add("usual", pid_is(OWN))
    runtime.start()
    assert names(watching(runtime)) == ["usual"]
    assert not complaints(caplog, runtime)


def test_slow_one_holds_up_none_that_is_known(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.add("usual", pid_is(OWN))
    runtime.start()
    containers = watching(runtime)
    monkeypatch.setattr(cri, "_TIMEOUT", 0.5)
    runtime.add("slow", 1.0)
    runtime.add("later", pid_is(OWN))
    assert eventually(lambda: names(containers) == ["later", "usual"])


def test_names_that_are_odd(runtime: Runtime) -> None:
    """What they are is for nobody to print unasked, and to compare with."""
    runtime.add("", pid_is(OWN))
    runtime.add("../../x", pid_is(OWN), "\x1b[31m\n", labels={"": "\0"})
    runtime.add("twice", pid_is(OWN))
    runtime.add("twice", pid_is(OWN))
    runtime.start()
    assert names(watching(runtime)) == ["../../x", "twice"]


def test_process_that_has_ended(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    """It is asked for again, as the runtime says that the container runs."""
    runtime.add("a", pid_is(sleeper.pid))
    runtime.start()
    containers = watching(runtime)
    sleeper.kill()
    sleeper.wait()
    runtime.info["a"] = pid_is(OWN)
    assert eventually(lambda: [container.pid for container in containers.containers] == [OWN])


# --- runtimes of which nothing is to be had


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (NOT_CRI, "what it answers to ListContainers is not of the CRI; see what the runtime's log says, or"),
        (b"x" * (17 << 20), "its answer is larger than 16 MiB; remove containers that nobody needs"),
        (grpc.StatusCode.UNKNOWN, "UNKNOWN 'as told\\nxxx"),
        (grpc.StatusCode.UNAVAILABLE, "no container runtime answers there; see whether one runs"),
        (1.0, "there is no answer within 5 seconds; see whether `crictl ps` gets one"),
    ],
    ids=["garbage", "huge", "failing", "unavailable", "slow"],
)
def test_list_that_is_none(
    runtime: Runtime,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    problem: str,
) -> None:
    """What was known before stays known; the problem is told of once."""
    runtime.add("a", pid_is(OWN))
    runtime.start()
    containers = watching(runtime)
    if isinstance(answer, float):
        monkeypatch.setattr(cri, "_TIMEOUT", answer / 2)
    runtime.list = answer
    assert eventually(lambda: complaints(caplog, runtime))
    before = len(runtime.calls)
    assert eventually(lambda: len(runtime.calls) > before)
    (said,) = complaints(caplog, runtime)
    assert said.startswith(problem)
    assert names(containers) == ["a"]
    runtime.add("b", pid_is(OWN))
    runtime.list = None
    assert eventually(lambda: names(containers) == ["a", "b"])


def test_more_containers_than_can_be(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(10_001):
        runtime.add(f"{number:064}", pid_is(OWN))
    runtime.start()
    assert not watching(runtime).containers
    (said,) = complaints(caplog, runtime)
    assert said == "it lists 10001 running containers; 10000 can be followed"


def test_server_of_something_else(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    runtime.start(_Nothing())
    assert not watching(runtime).containers
    (said,) = complaints(caplog, runtime)
    assert said.startswith("it does not speak the CRI (runtime.v1); with containerd it takes version 1.6 or ")
    assert "disabled_plugins" in said


def test_server_that_does_not_speak_grpc(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(runtime.path))
    listener.listen()

    def serve() -> None:
        for number in itertools.count():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(
                    b"HTTP/1.1 400 Bad Request\r\n\r\n" if number % 2 else bytes(range(256)) * 100
                )

    threading.Thread(target=serve, daemon=True).start()
    try:
        watching(runtime)
        assert eventually(lambda: complaints(caplog, runtime))
        assert complaints(caplog, runtime)[0].startswith("no container runtime answers there; see whether")
    finally:
        runtime.path.unlink()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_no_socket_is_no_problem(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    started = time.monotonic()
    containers = watching(runtime)
    assert time.monotonic() - started < 1.0
    assert (containers.containers, complaints(caplog, runtime)) == ((), [])
    runtime.add("a", pid_is(OWN))
    runtime.start()
    assert eventually(lambda: names(containers) == ["a"])


def test_start_does_not_wait_for_a_slow_one(runtime: Runtime) -> None:
    runtime.list = 2.0
    runtime.start()
    started = time.monotonic()
    CriContainers([runtime.path]).start(patience=0.2)
    assert time.monotonic() - started < 0.9


def test_runtime_that_comes_back(
    runtime: Runtime, sleeper: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Meanwhile what lives is kept, and what has ended is not."""
    runtime.add("a", pid_is(OWN))
    runtime.add("b", pid_is(sleeper.pid))
    runtime.start()
    containers = watching(runtime)
    assert names(containers) == ["a", "b"]
    runtime.stop()
    if not runtime.path.exists():  # a runtime that was killed leaves it behind
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(runtime.path))
    assert eventually(lambda: complaints(caplog, runtime))
    assert names(containers) == ["a", "b"]
    sleeper.kill()
    sleeper.wait()
    assert eventually(lambda: names(containers) == ["a"])
    runtime.path.unlink()
    del runtime.items[1]
    runtime.add("c", pid_is(OWN))
    runtime.start()
    assert eventually(lambda: names(containers) == ["a", "c"])


def test_several_runtimes(runtime: Runtime, directory: Path) -> None:
    other = Runtime(directory / "t")
    runtime.add("a", pid_is(OWN))
    other.add("b", pid_is(OWN))
    runtime.start()
    other.start()
    try:
        containers = CriContainers([runtime.path, directory / "none", other.path])
        containers.start(PATIENCE)
        assert names(containers) == ["a", "b"]
    finally:
        other.path.unlink()
        other.stop()


def test_nothing_of_grpc_is_logged(runtime: Runtime, caplog: pytest.LogCaptureFixture) -> None:
    """It would be a traceback for each answer that is none."""
    runtime.list = NOT_CRI
    runtime.start()
    watching(runtime)
    own = [record for record in caplog.records if str(runtime.path) in record.getMessage()]
    assert [(record.name, record.levelno, record.exc_info) for record in own] == [
        ("ram_ebpf.scopes.cri", logging.WARNING, None)
    ]


# --- where they are


def test_sockets() -> None:
    assert sockets({}) == DEFAULT_SOCKETS
    assert sockets({cri.VARIABLE: ""}) == DEFAULT_SOCKETS
    assert sockets({cri.VARIABLE: "unix:///run/x.sock"}) == (Path("/run/x.sock"),)
    assert sockets({cri.VARIABLE: "/run/x.sock"}) == (Path("/run/x.sock"),)


@pytest.mark.parametrize(
    "given", ["tcp://127.0.0.1:1", "unix://run/x", "npipe:////./x", "run/x", "unix:///a\nb", "/" + "x" * 107]
)
def test_what_is_no_socket(given: str) -> None:
    with pytest.raises(ScopeError) as caught:
        sockets({cri.VARIABLE: given})
    assert str(caught.value).startswith(
        f"CONTAINER_RUNTIME_ENDPOINT={given!r}: is not the address of a unix "
    )
    assert str(caught.value).endswith("write one, such as unix:///run/containerd/containerd.sock")
