"""Lines with their fields in a real journal."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ram_ebpf.daemon.journal import MESSAGE_IDS
from tests.adversarial.actor import Actor
from tests.adversarial.field import DAEMON_PATIENCE, eventually, tcp_connect
from tests.unit.daemon.receivers import Syslog

from . import topology
from .daemon import COMMAND
from .journald import Journald
from .lab import Lab

ROOT = Path(__file__).parents[2]
POLICY = f"""\
version: 1
registries: [{{ host: allowed.registry.test, private: true }}]
refusals: {{ responder: off }}
resolvers: [{Lab.resolver}]
"""
FORGED = "x\nPRIORITY=0\nRAM_HOST=y"  # 15 bytes at most are a process's name


@pytest.fixture
def journald() -> Iterator[Journald]:
    with Journald() as started:
        yield started


def test_refusal(lab: Lab, scope: Path, journald: Journald, tmp_path: Path) -> None:
    """By a process whose name tries to be other fields as well."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY, encoding="utf-8")
    argv = [*journald.command, *COMMAND, "run", "--policy", str(file), "--scope", f"cgroup:{scope}"]
    daemon = lab.client.popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        ready = journald.wait(lambda entry: entry.get("RAM_EVENT") == "ready", DAEMON_PATIENCE)
        assert ready["RAM_SCOPES"] == str(scope)
        with Actor(lab.client, scope) as actor:
            actor.call("rename", FORGED)
            with pytest.raises(PermissionError):
                tcp_connect(actor, topology.BLOCKED)
            entry = journald.wait(lambda entry: entry.get("RAM_EVENT") == "denied")
            # From a reload on they go elsewhere as well.
            with closing(Syslog("unix", tmp_path)) as syslog:
                file.write_text(f"{POLICY}export: {{ syslog: {syslog.options} }}\n", encoding="utf-8")
                daemon.send_signal(signal.SIGHUP)
                journald.wait(lambda entry: entry.get("RAM_EVENT") == "reloaded", DAEMON_PATIENCE)
                with pytest.raises(PermissionError):
                    tcp_connect(actor, topology.BLOCKED, 444)
                assert eventually(lambda: any(message.event == "denied" for message in syslog.received))
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(10) == 0
        assert daemon.stdout is not None
        assert daemon.stdout.read() == ""  # each line is in one place
        stopped = journald.wait(lambda entry: entry.get("RAM_EVENT") == "stopped")
    finally:
        lab.client.stop(daemon)
    assert entry["RAM_PROCESS"] == "x\N{REPLACEMENT CHARACTER}PRIORITY=0\N{REPLACEMENT CHARACTER}RA"
    wanted = {
        "_TRANSPORT": "journal",
        "SYSLOG_IDENTIFIER": "ram-ebpf",
        "PRIORITY": "4",
        "MESSAGE_ID": MESSAGE_IDS["denied"],
        "RAM_VERDICT": "deny",
        "RAM_REASON": "denied-unknown-address",
        "RAM_ADDRESS": topology.BLOCKED,
        "RAM_PORT": "443",
        "RAM_PROTOCOL": "tcp",
        "RAM_SCOPE": f"cgroup {scope}",
    }
    assert {key: entry.get(key) for key in wanted} == wanted
    assert "RAM_HOST" not in entry
    assert entry["MESSAGE"].startswith(f"DENIED {topology.BLOCKED}:443 tcp by x")
    assert json.loads(stopped["RAM_COUNTERS"])["denied-unknown-address"] == 2
    exported = [(message.event, message.fields.get("port")) for message in syslog.received]
    assert exported == [("reloaded", None), ("denied", ["444"])]
