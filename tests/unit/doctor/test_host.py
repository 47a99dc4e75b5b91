"""Rights, Python, control groups, directories and the clock."""

from __future__ import annotations

import datetime
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ram_ebpf.doctor import clock, control_groups, file_systems, python, rights
from ram_ebpf.doctor.finding import Status
from ram_ebpf.policy.catalogue import load_catalogue

_ALL = (1 << 41) - 1
_NET_ADMIN, _SYS_ADMIN = 1 << 12, 1 << 21


# --- rights


def test_capabilities() -> None:
    assert rights.of_capabilities(_ALL).status is Status.OK
    without = rights.of_capabilities(_ALL & ~_NET_ADMIN & ~_SYS_ADMIN)
    assert without.status is Status.FAILURE
    assert "CAP_NET_ADMIN" in without.title
    assert "CAP_SYS_ADMIN" in without.title
    assert "CAP_SYS_PTRACE" not in without.title


def test_effective_capabilities(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001fffeffffff\n")
    assert rights.effective_capabilities(status) == 0x1FFFEFFFFFF
    status.write_text("Name:\tx\n")
    assert rights.effective_capabilities(status) == 0
    assert rights.effective_capabilities() >= 0


def test_namespaces() -> None:
    first = {"cgroup": 0xEFFFFFFB, "pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}
    assert rights.of_namespaces(first).status is Status.OK
    found = rights.of_namespaces({**first, "pid": 4026532000, "cgroup": 4026532001})
    assert found.status is Status.WARNING
    assert "2 namespaces of its own (control groups, processes)" in found.title
    assert rights.namespaces().keys() == first.keys()


# --- Python


def test_requirements() -> None:
    """Against what is installed."""
    assert python.problem_with("pyyaml>=1.0") == ""
    assert python.problem_with("PyYAML") == ""
    version = metadata.version("pyyaml")
    assert python.problem_with("pyyaml>=99.1") == f"pyyaml {version} is older than 99.1"
    assert python.problem_with("ram-ebpf-no-such-thing>=1") == "ram-ebpf-no-such-thing is missing"
    assert python.problem_with("ram-ebpf-no-such-thing>=1; extra == 'dev'") == ""


@pytest.mark.parametrize(
    ("version", "oldest", "older"),
    [
        ("6.0", "6.0", False),
        ("6", "6.0.0", False),
        ("5.4.1", "6.0", True),
        ("10.0", "9.9", False),
        ("7.1.0+dfsg1", "7.1", False),
        ("2.6.1rc1", "2.6.1", False),
        ("unknown", "1.0", True),
    ],
)
def test_order_of_versions(version: str, oldest: str, older: bool) -> None:
    assert python.is_older(version, oldest) is older


# --- control groups

_HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/net_cls,net_prio rw,relatime - cgroup cgroup rw,net_cls,net_prio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
_UNIFIED = "41 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"


def layout(tmp_path: Path, text: str, mount: Path | None) -> control_groups.Layout:
    (tmp_path / "mountinfo").write_text(text)
    return control_groups.layout(mount, tmp_path / "mountinfo")


def test_layouts(tmp_path: Path) -> None:
    hybrid = layout(tmp_path, _HYBRID, Path("/sys/fs/cgroup/unified"))
    place = Path("/sys/fs/cgroup/net_cls,net_prio")
    assert hybrid.net == {"net_cls": place, "net_prio": place}
    assert "at /sys/fs/cgroup/unified, beside version 1 (hybrid)" in control_groups.of_layout(hybrid).title
    unified = layout(tmp_path, _UNIFIED, Path("/sys/fs/cgroup"))
    assert unified.net == {}
    assert "alone (unified)" in control_groups.of_layout(unified).title
    none = control_groups.of_layout(layout(tmp_path, "", None))
    assert none.status is Status.FAILURE
    assert "mount -t cgroup2" in none.cure


@pytest.mark.parametrize(
    ("matches", "net", "release", "status"),
    [
        (True, False, "5.4.0", Status.OK),
        (True, True, "5.15.0", Status.OK),
        (True, True, "5.14.9", Status.WARNING),  # it can be switched off for good by whoever uses it
        (False, True, "5.4.0", Status.WARNING),
        (None, False, "6.1.0", Status.WARNING),
    ],
)
def test_sockets_of_control_groups(matches: bool | None, net: bool, release: str, status: Status) -> None:
    mounted = {"net_cls": Path("/sys/fs/cgroup/net_cls")} if net else {}
    found = control_groups.of_sockets(matches, mounted, release)
    assert found.status is status
    assert (found.cure == "") == (status is Status.OK)


# --- directories


def test_directories(tmp_path: Path) -> None:
    missing = tmp_path / "not" / "yet"
    open_ = tmp_path / "open"
    open_.mkdir()
    open_.chmod(0o777)
    found = file_systems.of_directory(open_, "nothing works")
    assert found is not None
    assert (found.status, found.subject) == (Status.FAILURE, str(open_))
    assert f"chmod go-w {open_}" in found.cure
    assert file_systems.of_directory(missing, "nothing works") is None
    below_a_file = tmp_path / "file" / "x"
    below_a_file.parent.write_text("")
    found = file_systems.of_directory(below_a_file, "nothing works")
    assert found is not None
    assert "nothing works" in found.title


# --- the clock


def seconds(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    return datetime.datetime(year, month, day, hour, minute, tzinfo=datetime.timezone.utc).timestamp()


@pytest.mark.parametrize(
    ("now", "status"),
    [
        (seconds(1970, 1, 1, 0, 5), Status.FAILURE),
        (seconds(2026, 11, 20), Status.FAILURE),
        (seconds(2026, 11, 23, 23, 59), Status.OK),  # the day before: where it was written it was a day later
        (seconds(2027, 3, 1), Status.OK),
        (seconds(2033, 1, 1), Status.WARNING),
    ],
)
def test_clock(now: float, status: Status) -> None:
    assert clock.of_clock(now, True, datetime.date(2026, 11, 24)).status is status


def test_who_keeps_the_clock() -> None:
    known = datetime.date(2026, 1, 1)
    assert "kept right by somebody" in clock.of_clock(seconds(2026, 6, 1), True, known).title
    assert "kept right by nobody" in clock.of_clock(seconds(2026, 6, 1), False, known).title
    assert clock.is_synchronised() in (True, False)


def test_date_of_the_catalogue() -> None:
    latest = clock.latest_date(load_catalogue())
    assert datetime.date(2025, 1, 1) < latest
    assert any(host.date == latest for _, host in load_catalogue().hosts())


def test_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    from .cases import POLICY, case_of

    (found,) = python.examine(case_of(POLICY))
    assert found.title.startswith("Python ")
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    (found,) = python.examine(case_of(POLICY))
    assert found.status is Status.FAILURE
    assert os.sep not in found.title
