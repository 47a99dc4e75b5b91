"""A start that has to compile: what reads names in connections comes a moment after enforcement has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ram_ebpf.dataplane import cache, features
from ram_ebpf.dataplane.programs import BEGINNING_PROGRAMS, CGROUP_PROGRAMS
from tests.adversarial.field import wait_line

from . import topology
from .daemon import COMMAND, Daemon
from .lab import Lab
from .pace import PACE
from .test_shared_address import ALLOWED, ATTEMPT, OTHER, POLICY

BLOCKED = "blocked.registry.test"
_OF_NAMES = ("name-mismatch", "denied-segment")
_SLOW = """\
import sys, time
from ram_ebpf.cli.main import main
from ram_ebpf.dataplane.compiler import CompileError
from ram_ebpf.dataplane.groundwork import Groundwork

finish = Groundwork.finish


def slowly(self):
    {}
    return finish(self)


Groundwork.finish = slowly
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _nothing_is_left(lab: Lab) -> None:
    """Of instances that were killed in other tests, whose place must be taken by what is whole."""
    root = str(lab.client_cgroup)
    lab.client.run([*COMMAND, "down", "--cgroup-root", root], cwd=Path(__file__).parents[2]).check()


@contextmanager
def begun(lab: Lab, folder: Path, before: str, policy: str = POLICY) -> Iterator[Daemon]:
    """A daemon that is ready, with all in the cache but what reads names. `before`: it does that first."""
    kept = folder / "cache"
    cache.load_or_compile(CGROUP_PROGRAMS.source, features.compiler_flags(), kept)
    command = (sys.executable, "-c", _SLOW.format(before))
    with Daemon(lab, policy, ("--cache", str(kept)), command) as daemon:
        yield daemon
        if not daemon.has_ended():
            assert daemon.terminate() == 0, daemon.said()


def told_of_names(daemon: Daemon) -> list[str]:
    return [line["reason"] for line in daemon.lines() if line.get("reason") in _OF_NAMES]


@contextmanager
def attempt(lab: Lab, name: str, script: str = ATTEMPT) -> Iterator[Callable[[], float]]:
    """Begins at once; the seconds until it is ended, 9 for one that is not."""
    command = ["python3", "-c", script, topology.ALLOWED, name]
    process = lab.client.popen(command, cgroup=lab.client_cgroup, stdout=subprocess.PIPE)

    def result() -> float:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return float(out)

    try:
        yield result
    finally:
        process.kill()
        process.wait()
        lab.client.children.remove(process)


def test_connections_wait_for_it(lab: Lab, tmp_path: Path) -> None:
    """None is let through unread, none is refused, and nothing is told of those that wait."""
    with begun(lab, tmp_path, "time.sleep(0.5)") as daemon:
        lab.client.run(["getent", "ahosts", ALLOWED]).check()
        with attempt(lab, OTHER) as refused, attempt(lab, ALLOWED) as allowed:
            time.sleep(0.4)
            assert told_of_names(daemon) == []
            assert 0.4 < refused() < 9.0
            wait_line(daemon, 0, lambda line: line.get("name") == OTHER, "name-mismatch")
            assert allowed() == 9.0
        assert [line["event"] for line in daemon.lines()].count("complete") == 1
        assert told_of_names(daemon) == ["name-mismatch"]
        lab.client.pull(f"{ALLOWED}/{lab.image_name}").check()
    assert cache.is_kept(BEGINNING_PROGRAMS.source, features.compiler_flags(), tmp_path / "cache")


def test_addresses_are_judged_at_once(lab: Lab, tmp_path: Path) -> None:
    """And who asks it to end does not wait for a compiler."""
    with begun(lab, tmp_path, "time.sleep(3600)") as daemon:
        assert lab.client.pull(f"{BLOCKED}/{lab.image_name}").returncode != 0
        wait_line(daemon, 0, lambda line: line.get("verdict") == "deny", "a refusal")
        begun_at = time.monotonic()
        assert daemon.terminate() == 0
        assert time.monotonic() - begun_at < 5 * PACE
    lab.client.pull(f"{BLOCKED}/{lab.image_name}").check()


def test_it_cannot_be_compiled(lab: Lab, tmp_path: Path) -> None:
    """Then the start has failed, and leaves nothing behind."""
    with begun(lab, tmp_path, "raise CompileError('no such thing')") as daemon:
        assert daemon.wait_end() == os.EX_SOFTWARE
        assert "no such thing" in daemon.said()
    lab.client.pull(f"{BLOCKED}/{lab.image_name}").check()


def test_a_policy_that_comes_meanwhile(lab: Lab, tmp_path: Path) -> None:
    """It waits for what is compiled, and reads names too."""
    with begun(lab, tmp_path, "time.sleep(1.5)") as daemon:
        text = daemon.policy_file.read_text(encoding="utf-8")
        daemon.policy_file.write_text(f"{text}message: another\n", encoding="utf-8")
        daemon.wait(lambda lines: any(line["event"] == "reloaded" for line in lines), 30.0)
        lab.client.pull(f"{ALLOWED}/{lab.image_name}").check()
        assert lab.client.pull(f"{OTHER}/{lab.image_name}").returncode != 0
        wait_line(daemon, 0, lambda line: line.get("name") == OTHER, "name-mismatch")


# As ATTEMPT, and says more when the programs are there.
TALK = (
    ATTEMPT.replace("    context.wrap", "    item = context.wrap")
    + """
time.sleep(4)
item.sendall(b"GET /v2/ HTTP/1.1\\r\\nHost: " + sys.argv[2].encode() + b"\\r\\n\\r\\n")
assert item.recv(9).startswith(b"HTTP/1.1 "), "no answer"
"""
)


def test_audit_mode_keeps_nobody_waiting(lab: Lab, tmp_path: Path) -> None:
    """And says nothing of a connection that it has not read from its beginning."""
    with begun(lab, tmp_path, "time.sleep(0.5)", f"{POLICY}mode: audit\n") as daemon:
        lab.client.run(["getent", "ahosts", ALLOWED]).check()
        begun_at = time.monotonic()
        with attempt(lab, OTHER, TALK) as result:
            assert result() == 9.0
        assert time.monotonic() - begun_at < 4 + 2 * PACE
        assert told_of_names(daemon) == []
        assert lab.client.run(["python3", "-c", ATTEMPT, topology.ALLOWED, OTHER]).stdout.strip() == "9"
        line = wait_line(daemon, 0, lambda line: line.get("name") == OTHER, "name-mismatch")
        assert line["verdict"] == "would-deny"


def test_killed_meanwhile(lab: Lab, tmp_path: Path) -> None:
    """Connections wait for the next instance, which is whole from the beginning."""
    whole = tmp_path / "whole"
    for programs in (CGROUP_PROGRAMS, BEGINNING_PROGRAMS):
        cache.load_or_compile(programs.source, features.compiler_flags(), whole)
    with begun(lab, tmp_path, "time.sleep(3600)") as daemon:
        lab.client.run(["getent", "ahosts", ALLOWED]).check()
        with attempt(lab, OTHER) as refused, attempt(lab, ALLOWED) as allowed:
            time.sleep(0.3)
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait_end()
            with Daemon(lab, POLICY, ("--cache", str(whole))) as other:
                assert refused() < 9.0
                assert allowed() == 9.0
                assert "complete" not in {line["event"] for line in other.lines()}
                assert told_of_names(other) == ["name-mismatch"]
                assert other.terminate() == 0
