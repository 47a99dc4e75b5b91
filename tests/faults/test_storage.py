"""Disks that are full or read-only, and no BPF file system."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.daemon import last_good
from tests.adversarial.field import eventually
from tests.lab.bpffs import VARIABLE
from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances, policy, take, wait_for
from .memory import measure
from .traffic import FarEnds, Traffic
from .volumes import fill, remount, tmpfs

_COMMAND = (sys.executable, "-m", "ram_ebpf")


@pytest.fixture
def volume(lab: Lab) -> Iterator[Path]:
    """A disk that is small."""
    with tmpfs(lab.directory / "volume") as found:
        yield found
    (lab.directory / "volume").rmdir()


@pytest.mark.long
def test_full(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, volume: Path) -> None:
    """No room for the policy and for compiled programs: it is said, and enforced all the same."""
    ballast = fill(volume)
    command = ["env", f"RAM_EBPF_STATE={volume / 'state'}", *_COMMAND]
    options = ["--cache", str(volume / "cache")]
    daemon = instances.start(options=options, command=command)
    with Traffic(lab, ends, scope) as traffic:
        wait_for(daemon, "policy-not-kept")
        assert "bytecode is not kept" in daemon.said()
        assert take(daemon, policy(others=True))["event"] == "reloaded"
        ballast.unlink()
        assert take(daemon, policy())["event"] == "reloaded"
        kept = last_good.place_of(str(daemon.policy_file), volume / "state")
        assert eventually(lambda: kept.exists() and kept.read_text(encoding="utf-8") == policy())
        fill(volume)
        start = len(daemon.lines())
        assert take(daemon, policy(others=True))["event"] == "reloaded"
        wait_for(daemon, "policy-not-kept", start)
        # What is kept is whole, whichever it is, and no pieces are left beside it.
        assert kept.read_text(encoding="utf-8") == policy()
        assert list((volume / "state").glob("tmp*")) == []
        instances.kill()
        instances.start(options=options, command=command)
        traffic.finish().assert_right()


@pytest.mark.long
def test_full_log(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances, volume: Path, extent: Extent
) -> None:
    """Its lines are lost, and nothing else; when there is room again, whole lines are written."""
    log = volume / "log"
    # Appended to by the instance itself; what the test waits for comes by its socket.
    inner = f'exec >>{shlex.quote(str(log))}; exec {shlex.join(_COMMAND)} "$@"'
    daemon = instances.begin(command=["sh", "-c", inner, "sh"])
    instances.wait_asked(daemon, Path(lab.client.env["RAM_EBPF_RUN"]))
    with Traffic(lab, ends, scope) as traffic:
        ballast = fill(volume)
        before = measure(daemon.pid)
        time.sleep(extent.of(3.0, 30.0))
        full = log.stat().st_size
        ballast.unlink()
        time.sleep(3.0)
        after = measure(daemon.pid)
        traffic.finish().assert_right()
    assert after.resident < before.resident + (4 << 20)
    assert log.stat().st_size > full
    whole = [line for line in log.read_bytes()[full:].split(b"\n")[1:] if line]
    assert whole
    for line in whole:
        json.loads(line)


@pytest.mark.long
def test_read_only(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, volume: Path) -> None:
    """State, cache and the place of the socket by which it is asked."""
    remount(volume, "ro")
    command = [
        *("env", f"RAM_EBPF_STATE={volume / 'state'}", f"RAM_EBPF_RUN={volume / 'run'}"),
        *_COMMAND,
    ]
    options = ["--cache", str(volume / "cache")]
    daemon = instances.start(options=options, command=command)
    wait_for(daemon, "policy-not-kept")
    wait_for(daemon, "no-control")
    with Traffic(lab, ends, scope) as traffic:
        assert take(daemon, policy(others=True))["event"] == "reloaded"
        instances.kill()
        instances.start(options=options, command=command)
        traffic.finish().assert_right()


@contextlib.contextmanager
def _read_only(directory: Path) -> Iterator[None]:
    remount(directory, "ro")
    try:
        yield
    finally:
        remount(directory, "rw")


@pytest.mark.long
def test_no_bpf_file_system(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """Nothing outlives a kill but the refusal of everything; it is said, and the next start sets it right."""
    command = ["env", f"{VARIABLE}=/proc/nowhere", *_COMMAND]
    daemon = instances.start(command=command)
    assert "unpinned" in {line["event"] for line in daemon.lines()}
    with Traffic(lab, ends, scope) as traffic:
        time.sleep(0.5)
        traffic.so_far().assert_right(1)
        instances.kill()
        time.sleep(1.0)
        instances.start(command=command)
        report = traffic.finish()
    report.assert_enforced(10)
    assert report.failures > 0  # as it says
    with Traffic(lab, ends, scope) as traffic:
        time.sleep(1.0)
        traffic.finish().assert_right(5)


@pytest.mark.long
def test_bpf_file_system_that_becomes_read_only(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances
) -> None:
    """A reload cannot pin what it loads. What an instance before has pinned is taken over all the same."""
    bpf = Path(lab.client.env[VARIABLE])
    daemon = instances.start()
    with Traffic(lab, ends, scope) as traffic, _read_only(bpf):
        start = len(daemon.lines())
        assert take(daemon, policy(others=True))["event"] == "reloaded"
        time.sleep(0.5)
        assert [line for line in daemon.lines()[start:] if line["event"] == "unpinned"]
        traffic.so_far().assert_right()
        instances.kill()
        time.sleep(0.3)
        second = instances.start()
        assert "unpinned" in {line["event"] for line in second.lines()}
        traffic.finish().assert_enforced()
    with Traffic(lab, ends, scope) as traffic:
        time.sleep(1.0)
        traffic.finish().assert_right(5)
