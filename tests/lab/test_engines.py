"""A real container engine, found by its process and governed: what `make run` does on a host.

Engine and daemon share a PID namespace of their own, so that no engine of the machine is ever found.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.responder import listening

from . import programs
from .daemon import Daemon
from .lab import Lab
from .processes import Finished

_ROOT = Path(__file__).parents[2]
_CONNECT = "import socket,sys; print(socket.create_connection((sys.argv[1], 443), 2).getpeername()[0])"

# Starts containerd in the engine's cgroup, then ram-ebpf without a scope, as pid 1's children.
_SCRIPT = """\
sh -c 'echo $$ > "$1/cgroup.procs"; exec containerd --root "$2/root" --state "$2/state" \
    --address "$2/containerd.sock" >"$2/log" 2>&1' sh "$1" "$2" &
until [ -S "$2/containerd.sock" ]; do
    kill -0 $! || { { cat "$2/log"; echo "exit: no containerd"; } >"$2/daemon"; exit 1; }
    sleep 0.05
done
[ "$3" = engine ] || { kill -KILL $!; wait; rm "$2/containerd.sock"; }
"$4" -m ram_ebpf run --log-format json >"$2/daemon" 2>&1 &
daemon=$!
if [ "$3" = later ]; then
    until grep -q '"ready"' "$2/daemon"; do sleep 0.05; done
    sh -c 'echo $$ > "$1/cgroup.procs"; exec containerd --root "$2/root" --state "$2/state" \
        --address "$2/containerd.sock" >"$2/log" 2>&1' sh "$1" "$2" &
fi
trap 'kill -TERM $daemon' TERM
wait $daemon
wait $daemon
echo "exit $?" >>"$2/daemon"
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    programs.find("containerd")
    return tmp_path


@contextlib.contextmanager
def _started(lab: Lab, cgroup: Path, state: Path, what: str) -> Iterator[None]:
    script = ["sh", "-c", _SCRIPT, "sh", str(cgroup), str(state), what, sys.executable]
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *script]
    process = lab.client.popen(command, cwd=_ROOT)
    try:
        yield
    finally:
        lab.client.stop(process)


@pytest.fixture
def engine_cgroup(lab: Lab, tmp_path: Path) -> Path:
    return lab.new_cgroup(tmp_path.name)


def _said(state: Path, wanted: str) -> list[str]:
    """What the daemon has said, up to the line with that, or all when it has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = (state / "daemon").read_text().splitlines() if (state / "daemon").exists() else []
        for number, line in enumerate(lines, start=1):
            if (wanted in line and line.endswith("}")) or line.startswith("exit"):
                return lines[:number]
        time.sleep(0.05)
    raise TimeoutError(f"nothing of {wanted}")


def _is_refused(result: Finished) -> bool:
    """By EPERM, as before the responder is ready, or by the responder."""
    return "Operation not permitted" in result.stderr or result.stdout.strip() == str(listening.IPV4)


def test_containerd_is_found_and_governed(lab: Lab, engine_cgroup: Path, state: Path) -> None:
    with _started(lab, engine_cgroup, state, "engine"):
        said = _said(state, '"ready"')
        assert any("containerd (pid" in line and str(engine_cgroup) in line for line in said)
        ready = json.loads(said[-1])
        assert ready["scopes"] == [str(engine_cgroup)]
        # Whatever runs in the engine's cgroup is governed as the engine is.
        result = lab.client.run([sys.executable, "-c", _CONNECT, lab.blocked.address], cgroup=engine_cgroup)
        assert _is_refused(result)
        assert lab.client.run(
            [sys.executable, "-c", _CONNECT, lab.blocked.address], cgroup=lab.client_cgroup
        ).ok
    deadline = time.monotonic() + 5
    while (engine_cgroup / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_an_engine_that_starts_later_is_governed(lab: Lab, engine_cgroup: Path, state: Path) -> None:
    with _started(lab, engine_cgroup, state, "later"):
        said = _said(state, '"scope-back"')
        assert any(
            "no container engine is running here; it is governed as soon as it is" in line for line in said
        )
        (ready,) = [json.loads(line) for line in said if '"ready"' in line]
        assert ready["scopes"] == []
        assert f"{engine_cgroup} is governed" in said[-1]
        result = lab.client.run([sys.executable, "-c", _CONNECT, lab.blocked.address], cgroup=engine_cgroup)
        assert _is_refused(result)


def test_a_service_that_restarts_is_governed_again(lab: Lab, tmp_path: Path) -> None:
    cgroup = lab.new_cgroup(tmp_path.name)
    connect = [sys.executable, "-c", _CONNECT, lab.blocked.address]
    policy = "version: 1\nregistries: [{host: allowed.registry.test, private: true}]\n"
    with Daemon(lab, policy, ("--scope", f"cgroup:{cgroup}")) as daemon:
        assert _is_refused(lab.client.run(connect, cgroup=cgroup))
        cgroup.rmdir()
        daemon.wait(lambda lines: any(line["event"] == "scope-gone" for line in lines))
        cgroup.mkdir()
        daemon.wait(lambda lines: any(line["event"] == "scope-back" for line in lines))
        assert _is_refused(lab.client.run(connect, cgroup=cgroup))
        assert daemon.terminate() == 0
