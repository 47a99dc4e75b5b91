"""What a running instance says of itself: `ram-ebpf status` and `ram-ebpf explain`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import eventually, governed, tcp_connect

from . import topology
from .daemon import COMMAND, Daemon
from .lab import Lab
from .test_responder import wait_responder
from .test_responder_life import processes_of

pytestmark = pytest.mark.root

_ROOT = Path(__file__).parents[2]
SCHEMA = (_ROOT / "docs" / "json.md").read_text(encoding="utf-8")
AUDIT = (_ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
POLICY = f"""\
version: 1
organization: lab
registries:
  - host: allowed.registry.test
    private: true
denied: [banned.registry.test]
resolvers: [{Lab.resolver}]
recognition:
  unknown: allow
scopes:
  - host: {{}}
  - cgroup: STRICT
    registries:
      - host: "*.extra.registry.test"
        ports: [5000]
"""


@pytest.fixture(scope="module")
def root(lab: Lab) -> Path:
    directory = lab.new_cgroup("status")
    for name in ("session", "strict"):
        (directory / name).mkdir()
    return directory


@pytest.fixture(scope="module")
def daemon(lab: Lab, root: Path) -> Iterator[Daemon]:
    policy = POLICY.replace("STRICT", str(root / "strict"))
    with governed(lab, policy, "--cgroup-root", str(root), scopes=[]) as result:
        yield result


def ask(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    process = lab.client.popen([*COMMAND, *words], cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def explained(lab: Lab, *words: str) -> dict[str, Any]:
    (answer,) = json.loads(ask(lab, "explain", "--json", *words).stdout)
    assert isinstance(answer, dict)
    return answer


def test_status(lab: Lab, daemon: Daemon, root: Path) -> None:
    shown = ask(lab, "status")
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"ram-ebpf 0.1.0 (pid {daemon.pid}): enforce, ")
    assert lines[0].endswith("policy.yaml of lab")
    (host,) = [line for line in lines if line.startswith("  host (registries): ")]
    assert re.fullmatch(r"  host \(registries\): [1-9]\d* rules, 0 learned entries", host)
    assert f"    {root}" in lines
    assert f"  cgroup {root}/strict (strict, 1 more registries): 3 rules, 0 learned entries" in lines
    assert f"    {root}/strict" in lines
    assert lines[1].startswith("  policy version 1, SHA-256 ")
    assert lines[1].endswith(f"; resolvers: {Lab.resolver}:53")


def test_status_as_json(lab: Lab, daemon: Daemon, root: Path) -> None:
    with Actor(lab.client, root / "strict") as actor:
        actor.resolve("allowed.registry.test")
        tcp_connect(actor, lab.allowed.address)
        with contextlib.suppress(PermissionError):  # or it is led to the responder, which may not be ready
            tcp_connect(actor, lab.blocked.address)
    (answer,) = json.loads(ask(lab, "status", "--json", "--addresses").stdout)
    assert answer["instance"] == daemon.pid
    for each in (answer, answer["kernel"], *answer["scopes"], answer["responder"]):
        assert [key for key in each if f"`{key}`" not in SCHEMA] == []
    assert (answer["scopes"][1]["rules"], answer["warnings"]) == ({"names": 3, "addresses": 0}, [])
    assert answer["resolvers"] == [f"{Lab.resolver}:53"]
    (found,) = [item for item in answer["scopes"][1]["addresses"] if item["address"] == lab.allowed.address]
    assert [key for key in found if f"`{key}`" not in SCHEMA] == []
    assert (found["ports"], found["name"]) == ([443], "allowed.registry.test")
    assert found["seconds"] <= 86400
    assert [scope["posture"] for scope in answer["scopes"]] == ["registries", "strict"]
    assert answer["scopes"][1]["learned"] >= 1
    assert answer["counters"]["denied-unknown-address"] >= 1


def section(document: str, heading: str) -> str:
    """What is below a heading, up to the next one of whatever level."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#+ |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def undocumented(value: object, text: str) -> set[str]:
    """Keys of objects in there, however deep, that a section of a document does not mention."""
    if isinstance(value, list):
        return {key for item in value for key in undocumented(item, text)}
    if not isinstance(value, dict):
        return set()
    missing = {key for key in value if f"`{key}`" not in text and f'"{key}":' not in text}
    return missing.union(*(undocumented(item, text) for item in value.values()))


def test_others_as_json(lab: Lab, daemon: Daemon, root: Path) -> None:
    """What each prints is what docs/json.md, or docs/audit.md for it, says of it."""
    with Actor(lab.client, root / "strict") as actor:
        actor.resolve("allowed.registry.test")
        with contextlib.suppress(PermissionError):
            tcp_connect(actor, lab.blocked.address)
        assert eventually(lambda: '"denied"' in ask(lab, "events", "--json").stdout)
        text = section(SCHEMA, "`ram-ebpf explain --json`")
        answer = explained(lab, "--pid", str(actor.pid), "quay.io")
        assert undocumented(answer, text) == set()
        assert set(answer) == {"instance", "host", "port", "pid", "process", "cgroup", "scopes"}
    text = section(SCHEMA, "`ram-ebpf events --json`")
    records = [json.loads(line) for line in ask(lab, "events", "--json").stdout.splitlines()]
    assert records
    assert undocumented(records, text) == set()
    assert undocumented(explained(lab, "--last", "5")["refusals"], text) == set()
    text = section(AUDIT, "As JSON")
    suggested = json.loads(ask(lab, "suggest", "--json").stdout)
    assert suggested["suggestions"] or suggested["withheld"]
    assert undocumented(suggested, text) == set()
    shown = json.loads(ask(lab, "top", "--once", "--json").stdout)
    text = section(AUDIT, "`ram-ebpf top`")
    for counted in (shown.pop("verdicts"), shown.pop("reasons")):  # by verdict, and by reason
        assert undocumented(list(counted.values()), text) == set()
    assert shown["refused"]
    assert undocumented(shown, text) == set()


def responder_line(lab: Lab, daemon: Daemon) -> str:
    its = ask(lab, "status").stdout.partition(f"(pid {daemon.pid}): ")[2].partition("\nram-ebpf ")[0]
    (line,) = [line for line in its.splitlines() if line.startswith("  responder: ")]
    return line.removeprefix("  responder: ")


def test_where_refusals_are_answered(lab: Lab, daemon: Daemon, root: Path) -> None:
    wait_responder(daemon)
    with Actor(lab.client, root / "strict") as actor:
        item = actor.socket(socket.AF_INET, socket.SOCK_STREAM)
        item.connect((lab.blocked.address, 443))
        address, port = item.peer()
    assert responder_line(lab, daemon) == f"on, listens at {address}:{port} and [::1]:{port}"
    (answer,) = json.loads(ask(lab, "status", "--json").stdout)
    assert answer["responder"] == {
        "state": "on",
        "listens": [f"{address}:{port}", f"[::1]:{port}"],
        "namespaces": 0,
        "without": 0,
        "why": None,
    }
    with Actor(lab.dns.node, root / "strict"):
        assert eventually(lambda: responder_line(lab, daemon).endswith(", in 1 more network namespace too"))


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ("refusals: { responder: off }", "off, as the policy says, so refusals are EPERM"),
        ("mode: audit", "off, as nothing is refused in mode audit"),
    ],
)
def test_where_refusals_are_not_answered(lab: Lab, tmp_path: Path, more: str, line: str) -> None:
    policy = f"version: 1\nregistries: [{{host: allowed.registry.test}}]\n{more}\n"
    with governed(lab, policy, scopes=[lab.new_cgroup(tmp_path.name)]) as daemon:
        assert responder_line(lab, daemon) == line


def test_no_control_group_to_answer_in(lab: Lab) -> None:
    """At a device there is no responder, so its process is not started."""
    policy = "version: 1\nregistries: [{host: allowed.registry.test}]\n"
    with governed(lab, policy, scopes=["device:eth0"]) as daemon:
        assert (
            responder_line(lab, daemon)
            == "waits for a control group to be governed; at devices refusals are resets"
        )
        assert not processes_of(daemon)


@pytest.mark.parametrize(
    ("group", "host", "allowed", "reason"),
    [
        ("strict", "allowed.registry.test", True, "allowed-learned"),
        ("strict", "allowed.registry.test:5000", False, "denied-port"),
        ("strict", "a.extra.registry.test:5000", True, "allowed-learned"),
        ("strict", "elsewhere.test", False, "denied-unknown-address"),
        ("strict", "198.51.100.1", False, "denied-unknown-address"),
        ("session", "allowed.registry.test", True, "allowed-learned"),
        ("session", "a.extra.registry.test:5000", False, "denied-registry-port"),
        ("session", "elsewhere.test", True, "allowed-other"),
        ("session", "quay.io", False, "denied-registry"),
        ("session", "banned.registry.test", False, "denied-registry"),
        ("session", "[2001:db8::1]:5000", False, "denied-registry-port"),
        ("session", "198.51.100.1:22", True, "allowed-other"),
    ],
)
def test_explain_for_a_process(
    lab: Lab, daemon: Daemon, root: Path, group: str, host: str, allowed: bool, reason: str
) -> None:
    with Actor(lab.client, root / group) as actor:
        answer = explained(lab, "--pid", str(actor.pid), host)
    assert answer["cgroup"] == str(root / group)
    (verdict,) = answer["scopes"]
    assert (verdict["allowed"], verdict["reason"]) == (allowed, reason)
    assert verdict["scope"] == ("host" if group == "session" else f"cgroup {root}/strict")
    assert verdict["place"] == str(root if group == "session" else root / "strict")


def test_explain_in_words(lab: Lab, daemon: Daemon, root: Path) -> None:
    with Actor(lab.client, root / "session") as actor:
        shown = ask(lab, "explain", "--pid", str(actor.pid), "quay.io")
    assert shown.returncode == 1
    first, second = shown.stdout.splitlines()
    assert first.endswith(f"[{actor.pid}] in {root}/session")
    assert second == f"REFUSED in host (registries) at {root}: quay.io is a registry and not in the policy"


def test_explain_in_each_scope(lab: Lab, daemon: Daemon) -> None:
    shown = ask(lab, "explain", "elsewhere.test")
    assert shown.returncode == 1
    assert [line.split(" in ")[0] for line in shown.stdout.splitlines()] == ["allowed", "REFUSED"]


def test_explain_what_was_refused_last(lab: Lab, daemon: Daemon, root: Path) -> None:
    with Actor(lab.client, root / "strict") as actor:
        for port in (7001, 7002):
            with pytest.raises(PermissionError):
                tcp_connect(actor, topology.BLOCKED, port)
    assert eventually(lambda: "7002" in ask(lab, "explain", "--last").stdout)
    shown = ask(lab, "explain", "--last")
    assert shown.returncode == 0
    first, *more = shown.stdout.splitlines()
    assert f"DENIED {topology.BLOCKED}:7002 tcp by " in first or f"({topology.BLOCKED}:7002) tcp by " in first
    assert f"  scope: cgroup {root / 'strict'}" in more
    assert "  reason: denied-unknown-address, see docs/reasons.md" in more
    (answer,) = json.loads(ask(lab, "explain", "--json", "--last", "2").stdout)
    assert [record["port"] for record in answer["refusals"]] == [7002, 7001]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--last", "0"), "count: write a number from 1 to 100"),
        (("--last", "101"), "count: write a number from 1 to 100"),
        (("--last", "2", "--pid", "1"), "--pid goes with HOST, not with --last"),
    ],
)
def test_explain_last_what_is_no_question(
    lab: Lab, daemon: Daemon, words: tuple[str, ...], text: str
) -> None:
    shown = ask(lab, "explain", *words)
    assert shown.returncode == 64
    assert text in shown.stdout + shown.stderr


def test_explain_for_a_process_that_nothing_governs(lab: Lab, daemon: Daemon) -> None:
    with Actor(lab.client, lab.client_cgroup) as actor:
        shown = ask(lab, "explain", "--pid", str(actor.pid), "quay.io")
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[1] == "nothing governs it: it may connect to anything"


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("--pid", "999999999", "quay.io"), 64, "there is no process 999999999"),
        (("quay.io:0",), 64, "'0' is not a port: write a number from 1 to 65535"),
        (("quay.io:99999",), 64, "'99999' is not a port: write a number from 1 to 65535"),
        (("[::1",), 64, "'[::1' has no closing bracket, or something else than :PORT behind it"),
        ((":443",), 64, "the host is missing"),
    ],
)
def test_explain_what_is_no_question(
    lab: Lab, daemon: Daemon, words: tuple[str, ...], status: int, text: str
) -> None:
    shown = ask(lab, "explain", *words)
    assert shown.returncode == status
    assert text in shown.stdout + shown.stderr


def test_nobody_but_root_may_ask(lab: Lab, daemon: Daemon) -> None:
    (path,) = (lab.directory / "run").glob("*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "sent",
    [
        b"\n",
        b"[]\n",
        b"{\n",
        b"null\n",
        b"\xff\xfe\n",
        b"[" * 60000 + b"\n",
        b"x" * 70000,
        b'{"verb": "stop"}\n',
        b'{"verb": 7}\n',
        b'{"verb": "explain"}\n',
        b'{"verb": "explain", "host": "", "port": 1}\n',
        b'{"verb": "explain", "host": "a", "port": -1}\n',
        b'{"verb": "explain", "host": "a", "pid": "1"}\n',
        b'{"verb": "explain", "host": "' + b"a" * 300 + b'"}\n',
    ],
)
def test_request_that_is_none(lab: Lab, daemon: Daemon, sent: bytes) -> None:
    (path,) = (lab.directory / "run").glob("*.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        answer = json.loads(client.makefile("rb").readline())
    assert list(answer) == ["error"]
    assert ask(lab, "status").returncode == 0


def test_client_that_says_nothing_keeps_nobody_waiting(lab: Lab, daemon: Daemon) -> None:
    (path,) = (lab.directory / "run").glob("*.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        assert ask(lab, "status").returncode == 0


def test_no_instance(tmp_path: Path) -> None:
    env = {**os.environ, "RAM_EBPF_RUN": str(tmp_path / "none")}
    shown = subprocess.run(
        [*COMMAND, "status"], cwd=_ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 69
    assert shown.stderr == f"ram-ebpf: no instance of ram-ebpf runs here (looked in {tmp_path / 'none'})\n"
