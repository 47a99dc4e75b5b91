"""How others on this host ask a running instance: a Unix socket of its own, for root, and for a group where
the policy names one.

A request is one line of JSON, an object with the key `verb`; so is the answer, and then the connection ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ram_ebpf.peer import peer_of
from ram_ebpf.scopes.news import News

# RAM_EBPF_RUN moves it, for hosts whose /run is not ours to write and for tests.
DIRECTORY = Path(os.environ.get("RAM_EBPF_RUN") or "/run/ram-ebpf")
_log = logging.getLogger(__name__)

_PATIENCE = 2.0  # seconds for a client to ask, or to take its answer
_MOMENT = 0.1  # seconds for those who may not
_LONGEST = 65536  # bytes of a request
_LONGEST_ANSWER = 64 << 20
_ANSWER_PATIENCE = 10.0
# Of descriptors or memory (accept(2)): the next one may find some again.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED})
_SHORTAGE_PAUSE = 0.1
_BACKLOG_PAUSE = 0.02
# Of connect(2): nobody listens there, or nothing is there. With any other one an instance may well live, as
# EAGAIN says of one that is too busy to accept.
_DEAD = frozenset({errno.ECONNREFUSED, errno.ENOENT})

_SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h, since Linux 4.13
_GROUPS_ROOM = 1024  # bytes, the most that Python's getsockopt() takes: 256 groups

READING = frozenset({"status", "explain", "last", "refused", "top"})
"""Verbs that change nothing, which the group may use too."""

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class NotRunningError(RuntimeError):
    """No instance answers."""


class ControlSocket(News):
    """Takes requests in a thread, and has them answered by the one that calls answer_with()."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        """Raises OSError where the directory cannot be written, or has a living one of the same number."""
        super().__init__()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in dead_sockets(directory):
            path.unlink(missing_ok=True)
        self._path = directory / f"{os.getpid()}.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(self._path))
        except BaseException:
            self._listener.close()
            raise
        finally:
            os.umask(before)
        self._listener.listen(8)
        self._readers: int | None = None
        self._waiting: queue.SimpleQueue[tuple[dict[str, Any], queue.SimpleQueue[dict[str, Any]]]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._serve, name="control", daemon=True).start()

    def admit(self, group: int | None) -> None:
        """Has the members of a group ask as well; None: root alone. Raises OSError.

        The files are then open to all, as to give them to a group takes a capability that is needed for
        nothing else. Who may ask is decided by who connects.
        """
        self._readers = group
        self._path.chmod(0o600 if group is None else 0o666)
        self._path.parent.chmod(0o700 if group is None else 0o755)

    def answer_with(self, answer: Answer) -> None:
        """Answers all who wait."""
        while True:
            try:
                request, reply = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                reply.put(answer(request))
            except Exception:  # no question may end enforcement
                _log.exception("a request could not be answered")
                reply.put({"error": "the request could not be answered; the daemon's log says why"})

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in _SHORTAGES:  # closed
                    return
                time.sleep(_SHORTAGE_PAUSE)  # whoever asks waits with us
                continue
            with client, contextlib.suppress(OSError):
                client.settimeout(_PATIENCE)
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        peer = peer_of(client)
        is_root = peer.uid in (0, os.geteuid())
        if not is_root and self._readers not in {peer.gid, *_other_groups(client)}:
            _send(client, {"error": "only root may ask"})
            client.settimeout(_MOMENT)
            client.recv(_LONGEST)  # what was asked; the kernel would discard our answer as well
            return
        try:
            request = json.loads(_read_line(client, _LONGEST))
            if not isinstance(request, dict):
                raise ValueError("not an object")
            if not is_root and request.get("verb") not in READING:
                _send(client, {"error": "only root may ask for that"})
                return
        except (ValueError, RecursionError) as error:
            _send(client, {"error": f"the request is no JSON object in one line: {error}"})
            return
        reply: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._waiting.put((request, reply))
        self.tell()
        try:
            _send(client, reply.get(timeout=_ANSWER_PATIENCE))
        except queue.Empty:
            _send(client, {"error": "the daemon is too busy to answer; try again"})

    def close(self) -> None:
        """Removes the socket."""
        self._path.unlink(missing_ok=True)
        self._listener.close()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()  # others' are still in there


def ask_all(
    request: dict[str, Any], directory: Path = DIRECTORY, patience: float = _ANSWER_PATIENCE + _PATIENCE
) -> list[dict[str, Any]]:
    """The answers of all running instances, each with its process id as `instance`.

    `patience`: seconds that each may keep us waiting; then TimeoutError is raised.

    Raises NotRunningError where there are none, PermissionError where they may not be asked.
    """
    answers = []
    try:
        found = list(_sockets(directory))
    except FileNotFoundError:
        found = []
    for path, pid in found:
        with contextlib.suppress(ConnectionRefusedError, FileNotFoundError):
            answers.append({"instance": pid, **_ask(path, request, patience)})
    if not answers:
        raise NotRunningError(f"no instance of ram-ebpf runs here (looked in {directory})")
    return answers


def running(directory: Path = DIRECTORY) -> list[int]:
    """The process ids of the instances that can be asked, also of those too busy to answer."""
    try:
        return [pid for path, pid in _sockets(directory) if _is_alive(path)]
    except FileNotFoundError:
        return []


def _ask(path: Path, request: dict[str, Any], patience: float) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        _connect(client, path, patience)
        client.settimeout(patience)
        _send(client, request)
        answer = json.loads(_read_line(client, _LONGEST_ANSWER))
    return answer if isinstance(answer, dict) else {"error": "the answer is no JSON object"}


def _connect(client: socket.socket, path: Path, patience: float) -> None:
    """Waits for room in the backlog of one that is busy, which a socket with a timeout does not (unix(7))."""
    deadline = time.monotonic() + patience
    client.setblocking(False)
    while True:
        try:
            client.connect(str(path))
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path}: too busy to be asked") from error
            time.sleep(_BACKLOG_PAUSE)


def _sockets(directory: Path) -> Iterator[tuple[Path, int]]:
    for path in sorted(directory.iterdir()):
        if path.suffix == ".sock" and path.stem.isdigit():
            yield path, int(path.stem)


def dead_sockets(directory: Path = DIRECTORY) -> list[Path]:
    """What instances that were killed have left there. Raises OSError where the directory cannot be read."""
    return [path for path, _ in _sockets(directory) if not _is_alive(path)]


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except OSError as error:
            return error.errno not in _DEAD
    return True


def _other_groups(client: socket.socket) -> tuple[int, ...]:
    """Those of who is at the other end, beside the primary one; of more than 256, none."""
    try:
        raw = client.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_ROOM)
    except OSError:
        return ()
    return struct.unpack(f"={len(raw) // 4}I", raw)


def _send(client: socket.socket, message: dict[str, Any]) -> None:
    client.sendall(json.dumps(message).encode() + b"\n")


def _read_line(client: socket.socket, longest: int) -> bytes:
    """Up to the first line feed, or the end. Raises ValueError for too long a line."""
    parts: list[bytes] = []
    size = 0
    while not parts or not parts[-1].endswith(b"\n"):
        part = client.recv(65536)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > longest:
            raise ValueError(f"it has more than {longest} bytes")
    return b"".join(parts)
