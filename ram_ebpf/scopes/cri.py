"""Containers of a Kubernetes node, by the socket through which the kubelet speaks with their runtime (CRI).

No API server is asked. What is there is listed anew about once a second, so nothing can be missed for good:
events are in newer versions of the CRI only. What comes over the socket is not trusted to be what it should.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.containers import RunningContainer, living
from ram_ebpf.scopes.cri_messages import MESSAGES, RUNNING, SERVICE, declare
from ram_ebpf.scopes.news import News

# As for crictl; its default places, and that of k3s and RKE2.
VARIABLE = "CONTAINER_RUNTIME_ENDPOINT"
DEFAULT_SOCKETS = (
    Path("/run/containerd/containerd.sock"),
    Path("/run/crio/crio.sock"),
    Path("/run/cri-dockerd.sock"),
    Path("/run/k3s/containerd/containerd.sock"),
)
_LONGEST_PATH = 107  # unix(7), sun_path without its zero

_TIMEOUT = 5.0  # seconds for one answer
_PERIOD = 1.0  # seconds between two lists, and between two attempts to reach a runtime
_BUDGET = 1.0  # seconds in which new containers are asked for, before those that have told are made known
_LARGEST_ANSWER = 16 << 20  # bytes, as for the kubelet
_LARGEST_INFO = 4 << 20  # characters; the whole runtime specification is in there
_MOST_CONTAINERS = 10_000  # a node has some hundreds
_LARGEST_PID = 1 << 22  # include/linux/threads.h, PID_MAX_LIMIT

# Without a shared pool a new channel does not wait for the turn of an older one that failed.
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST_ANSWER),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
_CURES = {
    grpc.StatusCode.UNIMPLEMENTED: (
        "it does not speak the CRI (runtime.v1); with containerd it takes version 1.6 or later, and no `cri` "
        "under disabled_plugins in /etc/containerd/config.toml"
    ),
    grpc.StatusCode.UNAVAILABLE: (
        "no container runtime answers there; see whether one runs (`systemctl status containerd crio`), or "
        f"name another socket in {VARIABLE}"
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        f"there is no answer within {_TIMEOUT:.0f} seconds; see whether `crictl ps` gets one"
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        f"its answer is larger than {_LARGEST_ANSWER >> 20} MiB; remove containers that nobody needs"
    ),
}
_OTHER_CURE = f"see what the runtime's log says, or name another socket in {VARIABLE}"
_log = logging.getLogger(__name__)
_messages = declare(MESSAGES)


class RuntimeAnswerError(RuntimeError):
    """What a runtime answers is of no use; the text names its socket and the cure."""

    def __init__(self, socket: Path, problem: str) -> None:
        super().__init__(f"container runtime at {socket}: {problem}")


class UnreachableError(RuntimeAnswerError):
    """A call did not come back with an answer."""


def sockets(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where runtimes are looked for. Raises ScopeError when the environment names what can be no socket."""
    given = environment.get(VARIABLE)
    if not given:
        return DEFAULT_SOCKETS
    path = given.removeprefix("unix://")
    if not path.startswith("/") or not path.isprintable() or len(os.fsencode(path)) > _LONGEST_PATH:
        raise ScopeError(
            f"{VARIABLE}={given[:200]!r}: is not the address of a unix socket with an absolute path of up to "
            f"{_LONGEST_PATH} bytes; write one, such as unix://{DEFAULT_SOCKETS[0]}"
        )
    return (Path(path),)


class _Client:
    """One connection to a runtime."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix://{socket}", _OPTIONS)

    def close(self) -> None:
        """Ends it."""
        self._channel.close()

    def running(self) -> dict[str, Any]:
        """The running containers by their identifiers, as messages. Raises RuntimeAnswerError."""
        request = _messages["ListContainersRequest"]()
        request.filter.state.state = RUNNING
        containers = self._call("ListContainers", request).containers
        if len(containers) > _MOST_CONTAINERS:
            raise RuntimeAnswerError(
                self._socket,
                f"it lists {len(containers)} running containers; {_MOST_CONTAINERS} can be followed",
            )
        return {item.id: item for item in containers if item.state == RUNNING and item.id}

    def pid(self, identifier: str) -> int:
        """The first process of a container, 0 when it is gone. Raises RuntimeAnswerError."""
        request = _messages["ContainerStatusRequest"](container_id=identifier, verbose=True)
        try:
            info = self._call("ContainerStatus", request).info.get("info", "")
        except UnreachableError as error:
            if _code(error.__cause__) is grpc.StatusCode.NOT_FOUND:
                return 0
            raise
        pid = _pid_in(info)
        if pid is None:
            raise RuntimeAnswerError(
                self._socket, f"it does not tell the process of container {identifier[:12]!r}; {_OTHER_CURE}"
            )
        return pid

    def _call(self, method: str, request: Any) -> Any:
        # Without a deserializer: grpc's own error for an answer that is none is a traceback in the log.
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(f"{SERVICE}/{method}")
        try:
            answer = call(request.SerializeToString(), timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise UnreachableError(self._socket, _explain(error)) from error
        try:
            return _messages[f"{method}Response"].FromString(answer)
        except DecodeError as error:
            raise RuntimeAnswerError(
                self._socket, f"what it answers to {method} is not of the CRI; {_OTHER_CURE}"
            ) from error


def _code(error: object) -> object:
    return error.code() if isinstance(error, grpc.Call) else None


def _explain(error: grpc.RpcError) -> str:
    code = _code(error)
    cure = _CURES.get(code) if isinstance(code, grpc.StatusCode) else None
    if cure is not None:
        return cure
    details = str(error.details() if isinstance(error, grpc.Call) else error)[:200]
    return f"{getattr(code, 'name', 'error')} {details!r}; {_OTHER_CURE}"


def _pid_in(info: str) -> int | None:
    """What containerd and CRI-O both put into the verbose information: an object with the process."""
    if len(info) > _LARGEST_INFO:
        return None
    try:
        value = json.loads(info)
    except (ValueError, RecursionError):
        return None
    pid = value.get("pid") if isinstance(value, dict) else None
    # Process 1 is the host's own, and no container's.
    return pid if type(pid) is int and 1 < pid <= _LARGEST_PID else None


def _image_of(item: Any) -> str:
    """Its name where the runtime knows it; the kubelet asks for an image by its digest."""
    candidates: Iterable[str] = (item.image.user_specified_image, item.image.image, item.image_ref)
    return next((text for text in candidates if "/" in text), item.image.image)


class _Runtime:
    """One runtime, which may come, go and come back; followed by a thread that ends with the process."""

    def __init__(self, socket: Path, news: News) -> None:
        self.containers: tuple[RunningContainer, ...] = ()
        self.asked = threading.Event()
        self._socket = socket
        self._news = news
        self._pids: dict[str, int] = {}  # by identifier, which no other container ever gets
        self._tried: dict[str, float] = {}  # when those were asked for that have not told
        self._problem = ""
        self._thread = threading.Thread(target=self._watch, name=f"cri {socket}", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                if self._socket.exists():  # else it is not there yet, which is no problem to tell of
                    with contextlib.closing(_Client(self._socket)) as client:
                        self._follow(client)
            except (RuntimeAnswerError, OSError) as error:
                self._complain(str(error))
            except Exception as error:  # whatever comes over the socket, this thread goes on
                self._complain(str(RuntimeAnswerError(self._socket, f"{error!r:.200}; {_OTHER_CURE}")))
            # A runtime that is away says nothing of its containers, which live on.
            self._change(living(self.containers))
            self.asked.set()
            time.sleep(_PERIOD)

    def _follow(self, client: _Client) -> None:
        while True:
            listed = client.running()
            self._pids = {key: pid for key, pid in self._pids.items() if key in listed and _is_there(pid)}
            self._tried = {key: tried for key, tried in self._tried.items() if key in listed}
            try:
                problem = self._ask(client, listed.keys() - self._pids.keys())
            finally:
                self._publish(listed)
            self._complain(problem)
            self.asked.set()
            time.sleep(_PERIOD)

    def _ask(self, client: _Client, new: Iterable[str]) -> str:
        """Asks for the processes of new containers, as far as the time goes; says what was wrong."""
        problem = ""
        deadline = time.monotonic() + _BUDGET
        # Last those that did not tell before: one that never does is in nobody's way.
        for identifier in sorted(new, key=lambda key: self._tried.get(key, 0.0)):
            self._tried[identifier] = time.monotonic()
            try:
                pid = client.pid(identifier)
            except UnreachableError:
                raise
            except RuntimeAnswerError as error:
                problem = problem or str(error)
            else:
                if pid:
                    self._pids[identifier] = pid
                    del self._tried[identifier]
            if time.monotonic() > deadline:
                break
        return problem

    def _publish(self, listed: Mapping[str, Any]) -> None:
        self._change(
            tuple(
                RunningContainer(
                    identifier,
                    listed[identifier].metadata.name,
                    tuple(sorted(listed[identifier].labels.items())),
                    pid,
                    _image_of(listed[identifier]),
                )
                for identifier, pid in sorted(self._pids.items())
            )
        )

    def _change(self, containers: tuple[RunningContainer, ...]) -> None:
        if containers != self.containers:
            self.containers = containers
            self._news.tell()

    def _complain(self, problem: str) -> None:
        """Once, until there is another problem or none."""
        if problem and problem != self._problem:
            _log.warning("%s", problem)
        self._problem = problem


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class CriContainers(News):
    """The running containers of all runtimes of this node."""

    def __init__(self, paths: Iterable[Path] | None = None) -> None:
        """`paths`: of their sockets. Raises ScopeError as sockets() does."""
        super().__init__()
        self._runtimes = [_Runtime(path, self) for path in (sockets() if paths is None else paths)]

    def start(self, patience: float = _TIMEOUT) -> None:
        """Begins to watch, and waits until each runtime was asked once."""
        deadline = time.monotonic() + patience
        for runtime in self._runtimes:
            runtime.start()
        for runtime in self._runtimes:
            runtime.asked.wait(max(0.0, deadline - time.monotonic()))

    @property
    def containers(self) -> tuple[RunningContainer, ...]:
        """Those that run now; while a runtime is away, those of its that live on."""
        return tuple(container for runtime in self._runtimes for container in runtime.containers)
