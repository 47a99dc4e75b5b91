"""What `make demo` runs: with ram-ebpf itself, and with stand-ins, one that works and one that does not."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from ram_ebpf.policy.loader import parse_policy

from . import demo
from .lab import Lab

# Refuses by means of routes, and logs what the demo is to find. The arguments are those of `ram-ebpf run`.
STAND_IN = """
import json, signal, subprocess, sys, threading
def tell(**line):
    print(json.dumps(line), flush=True)
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
for address in ADDRESSES:
    subprocess.run(["ip", "route", "add", "prohibit", address], check=True)
assert sys.argv[1:3] == ["run", "--policy"]
tell(event="ready")
while not ended.wait(0.05):
    tell(time="2026-01-02T03:04:05.678901Z", event="decision", verdict="deny", reason="not-learned",
         host="blocked.registry.test", address="10.77.0.30", port=443, process="skopeo", pid=7,
         rule=None, explanation="no trusted answer for an allowed name has this address")
"""


def run(directory: Path, addresses: list[str]) -> int:
    script = directory / "stand_in.py"
    script.write_text(STAND_IN.replace("ADDRESSES", repr(addresses)), encoding="utf-8")
    return demo.main(["--command", shlex.join([sys.executable, str(script)])])


@pytest.mark.usefixtures("lab")
def test_the_demo_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([]) == 0
    output = capsys.readouterr().out
    assert "All as expected" in output
    assert "blocked.registry.test is not in the policy" in output
    named = "certificate is valid for blocked-by-registry-access-policy.ask-platform.registry.test, not "
    assert named + "blocked.registry.test" in " ".join(output.split())


@pytest.mark.usefixtures("lab")
def test_refusals_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, ["10.77.0.30", "10.77.0.31", "fd77::30", "fd77::31"]) == 0
    output = capsys.readouterr().out
    assert "All as expected" in output
    assert "03:04:05.678" in output
    assert "no trusted answer" in output


@pytest.mark.usefixtures("lab")
def test_pulls_that_should_fail_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, []) == 1
    output = capsys.readouterr().out
    assert "Not as expected" in output
    assert "the connection reached the registry" in output


@pytest.mark.usefixtures("lab")
def test_daemon_that_does_not_start_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--command", f"{sys.executable} -m no_such_module"]) == 1
    assert "No module named no_such_module" in capsys.readouterr().out


@pytest.mark.usefixtures("lab")
def test_policy_is_valid() -> None:
    text = demo.POLICY.format(allowed=demo.ALLOWED, resolver=Lab.resolver)
    assert parse_policy(text.encode(), "policy.yaml")
