"""The responder's authority, running instances, and what dead ones have left."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf import __version__
from ram_ebpf.daemon import control
from ram_ebpf.daemon.kept_files import DIRECTORY
from ram_ebpf.dataplane.pins import Pinned
from ram_ebpf.doctor import instances, leftovers, responder
from ram_ebpf.doctor.finding import Status
from ram_ebpf.responder import authority

from .cases import POLICY, case_of

NOW = datetime.datetime(2027, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("days", "installed", "status", "cure"),
    [
        (None, False, Status.OK, ""),
        (400, True, Status.OK, ""),
        (400, False, Status.WARNING, "ram-ebpf ca install"),
        (20, True, Status.WARNING, "make a new one"),
        (-1, True, Status.WARNING, "make a new one"),
    ],
)
def test_authority(days: int | None, installed: bool, status: Status, cure: str) -> None:
    end = None if days is None else NOW + datetime.timedelta(days=days)
    found = responder.of_authority(end, NOW, [Path("/ram-ebpf.crt")] if installed else [])
    assert found.status is status
    assert cure in found.cure


def test_no_responder() -> None:
    (found,) = responder.examine(case_of(f"{POLICY}refusals: {{ responder: off }}\n"))
    assert found.title == "the policy wants no refusal responder"


def test_authority_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(f"{POLICY}refusals: {{ responder: on }}\n")
    monkeypatch.setattr(authority.load, "__defaults__", (tmp_path / "ca",))
    (found,) = responder.examine(case)
    assert found.title.startswith("there is no authority")
    authority.create(tmp_path / "ca", "acme", ["registry.corp.example"], 400)
    (found,) = responder.examine(case)
    assert "valid until" in found.title or "not installed" in found.title
    (tmp_path / "ca" / "ca.key").chmod(0o644)
    (found,) = responder.examine(case)
    assert found.status is Status.WARNING
    assert "can be read by others" in found.title


def test_running_responder() -> None:
    answers: list[dict[str, Any]] = [
        {"instance": 7, "responder": {"state": "failed", "why": "there is no port left"}},
        {"instance": 8, "responder": {"state": "on", "why": None}},
        {"instance": 9, "error": "busy"},
    ]
    (found,) = responder.of_running(answers)
    assert (found.status, found.subject) == (Status.WARNING, "7")
    assert found.title.endswith("there is no port left")


# --- instances


def status_of(**more: Any) -> dict[str, Any]:
    scope = {"scope": "engine all", "posture": "strict", "cgroups": ["/sys/fs/cgroup/a"], "devices": []}
    return {
        "instance": 812,
        "version": __version__,
        "mode": "enforce",
        "policy": "/etc/ram-ebpf/policy.yaml",
        "scopes": [scope],
        **more,
    }


@pytest.mark.parametrize(
    ("answer", "file", "status", "text"),
    [
        (status_of(), "/etc/ram-ebpf/policy.yaml", Status.OK, "at 1 place"),
        (status_of(), None, Status.OK, "enforces /etc/ram-ebpf/policy.yaml (enforce)"),
        (status_of(policy="policy.yaml"), "/etc/ram-ebpf/policy.yaml", Status.OK, "at 1 place"),
        (status_of(), "/srv/other.yaml", Status.WARNING, "and not /srv/other.yaml"),
        (status_of(version="0.0.9"), None, Status.WARNING, f"and {__version__} is what is installed"),
        (status_of(scopes=[]), None, Status.WARNING, "governs nothing"),
        (
            status_of(policy=f"{DIRECTORY}/policy-0.yaml"),
            None,
            Status.WARNING,
            "the last good one",
        ),
        (status_of(digest="b"), "/etc/ram-ebpf/policy.yaml", Status.WARNING, "before its last change"),
        (status_of(digest="a"), "/etc/ram-ebpf/policy.yaml", Status.OK, "at 1 place"),
        ({"instance": 812, "error": "busy"}, None, Status.WARNING, "pid 812 answers: busy"),
    ],
)
def test_instance(answer: dict[str, Any], file: str | None, status: Status, text: str) -> None:
    (found,) = instances.of_instances([answer], file, "a")
    assert (found.status, found.subject) == (status, "812")
    assert text in found.title


def test_no_instance() -> None:
    (found,) = instances.of_instances([], None)
    assert found.status is Status.OK
    (found,) = instances.of_instances([], "/etc/ram-ebpf/policy.yaml")
    assert found.status is Status.WARNING
    assert found.cure == "start it: ram-ebpf run --policy /etc/ram-ebpf/policy.yaml"


# --- leftovers


@pytest.mark.parametrize(
    ("pinned", "sockets", "status", "text"),
    [
        ([], 0, Status.OK, "no pins of dead instances"),
        ([(True, True)], 0, Status.OK, "pins of 1 running instance"),
        ([(False, True), (False, False)], 0, Status.WARNING, "/bpf/0 keeps programs of a killed instance"),
        ([(True, True), (False, False)], 1, Status.WARNING, "/bpf/1, /run/0.sock was left"),
        ([], 1, Status.WARNING, "/run/0.sock was left"),
    ],
)
def test_pins(pinned: list[tuple[bool, bool]], sockets: int, status: Status, text: str) -> None:
    found = leftovers.of_pins(
        [Pinned(Path(f"/bpf/{n}"), alive, needed) for n, (alive, needed) in enumerate(pinned)],
        [Path(f"/run/{n}.sock") for n in range(sockets)],
    )
    assert found.status is status
    assert text in found.title


@pytest.mark.parametrize("needed", [True, False])
def test_whose_pins(needed: bool) -> None:
    """By their version, where it is one that says so."""
    names = ("812-0a1b2c3d-0_9_0rc1", "813-0a1b2c3d")
    title = leftovers.of_pins([Pinned(Path("/bpf") / name, False, needed) for name in names], []).title
    assert title.startswith("/bpf/812-0a1b2c3d-0_9_0rc1 (of 0.9.0rc1), /bpf/813-0a1b2c3d ")


def test_attached() -> None:
    assert leftovers.of_attached([]).status is Status.OK
    found = leftovers.of_attached([f"/sys/fs/cgroup/{n}" for n in range(8)])
    assert found.status is Status.WARNING
    assert found.title.endswith("/sys/fs/cgroup/4 and 3 more")


def test_sockets_of_the_dead(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "7.sock"))
        living.bind(str(tmp_path / "8.sock"))
        living.listen()
        (tmp_path / "other").touch()
        dead.close()
        assert control.dead_sockets(tmp_path) == [tmp_path / "7.sock"]
