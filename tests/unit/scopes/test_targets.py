"""Scopes that come and go: units, devices and network namespaces."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.dataplane import namespaces
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.scopes import netns
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.cgroup_watch import CgroupWatch
from ram_ebpf.scopes.device import DeviceTarget, describe_link, leads_out
from ram_ebpf.scopes.netns import NetnsTarget, resolve
from ram_ebpf.scopes.selection import Selection
from ram_ebpf.scopes.target import CgroupTarget, Places
from ram_ebpf.scopes.unit import UnitTarget, directories

ETHER, NONE, LOOPBACK = 1, 0xFFFE, 772


class Link(dict[str, Any]):
    """An RTM_NEWLINK message, as pyroute2 gives it."""

    def get_attr(self, name: str) -> Any:
        return self.get(name)


def link(name: str, kind: str | None, index: int = 7, hardware: int = ETHER, **more: Any) -> Link:
    info = Link({"IFLA_INFO_KIND": kind}) if kind is not None else None
    return Link(index=index, ifi_type=hardware, IFLA_IFNAME=name, IFLA_LINKINFO=info, **more)


# --- cgroups


def test_cgroup(tmp_path: Path) -> None:
    target = CgroupTarget(tmp_path / "a")
    assert not target.find()
    (tmp_path / "a").mkdir()
    assert target.find() == Places(cgroups=frozenset({tmp_path / "a"}))
    assert target.label == f"cgroup {tmp_path}/a"


def is_told(watch: CgroupWatch) -> bool:
    return bool(select.select([watch], [], [], 0)[0]) and watch.has_news()


def test_cgroup_that_is_watched(tmp_path: Path) -> None:
    """It is looked at rarely only as long as whoever removes it, or makes it again, is told of."""
    home = tmp_path / "parent" / "a"
    target = CgroupTarget(home)
    watch = Selection([target], cgroup_root=tmp_path).watches()[0]
    assert isinstance(watch, CgroupWatch)
    for _ in range(2):  # the second time what it is in is another directory
        assert not target.find()
        assert target.period == 0
        home.mkdir(parents=True)
        assert target.find()
        assert target.period > 1
        is_told(watch)
        home.rmdir()
        assert is_told(watch)
        assert not target.find()
        assert target.period == 0
        home.mkdir()
        assert is_told(watch)
        assert target.find()
        home.rmdir()
        home.parent.rmdir()
        assert is_told(watch)


def test_cgroup_for_which_there_is_no_watch(tmp_path: Path) -> None:
    """Of those that the kernel gives to a user: none are left in this user namespace."""
    script = (
        "import pathlib, sys\n"
        "from ram_ebpf.scopes.selection import Selection, CgroupTarget\n"
        "pathlib.Path('/proc/sys/user/max_inotify_watches').write_text('0')\n"
        "target = CgroupTarget(pathlib.Path(sys.argv[1]))\n"
        "Selection([target]).watches()\n"
        "print(bool(target.find()), target.period)\n"
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.startswith("unshare: "):
        pytest.skip(f"no user namespace can be made here: {done.stderr}")
    assert done.stdout == "True 0.0\n", done.stderr


# --- units


def test_unit_comes_and_goes(tmp_path: Path) -> None:
    target = UnitTarget("docker.service", tmp_path)
    assert target.label == "unit docker.service"
    assert not target.find()
    home = tmp_path / "system.slice" / "docker.service"
    home.mkdir(parents=True)
    assert target.find().cgroups == {home}
    home.rmdir()
    assert not target.find()


def test_unit_of_each_user(tmp_path: Path) -> None:
    homes = [
        tmp_path / f"user.slice/user-{n}.slice/user@{n}.service/app.slice/podman.service" for n in (1, 2)
    ]
    for home in homes:
        home.mkdir(parents=True)
    assert set(directories("podman.service", tmp_path)) == set(homes)


def test_unit_whose_name_is_escaped(tmp_path: Path) -> None:
    """systemd: src/basic/cgroup-util.c, cg_escape."""
    (tmp_path / "_cgroup.service").mkdir()
    assert list(directories("cgroup.service", tmp_path)) == [tmp_path / "_cgroup.service"]


def test_unit_is_not_looked_for_in_the_depths(tmp_path: Path) -> None:
    (tmp_path / "a/b/c/d/e/f/g/docker.service").mkdir(parents=True)
    assert list(directories("docker.service", tmp_path)) == []


# --- devices


@pytest.mark.parametrize(
    ("kind", "hardware", "flags"),
    [
        ("veth", ETHER, 0),
        ("bridge", ETHER, 0),
        ("tun", ETHER, 0),
        ("tun", NONE, PlaceFlag.NO_LINK_HEADER),
        (None, ETHER, PlaceFlag.OWN_TRAFFIC),
        ("vlan", ETHER, PlaceFlag.OWN_TRAFFIC),
        ("macvlan", ETHER, PlaceFlag.OWN_TRAFFIC),
        ("wireguard", NONE, PlaceFlag.OWN_TRAFFIC | PlaceFlag.NO_LINK_HEADER),
    ],
)
def test_what_is_governed_at_a_device(kind: str | None, hardware: int, flags: int) -> None:
    found = describe_link(link("x0", kind, hardware=hardware))
    assert (found.name, found.index, found.flags, found.namespace) == ("x0", 7, flags, None)


@pytest.mark.parametrize(
    ("kind", "more", "leads"),
    [
        (None, {}, True),
        ("macvlan", {"IFLA_LINK": 2, "IFLA_LINK_NETNSID": 0}, True),
        ("vlan", {"IFLA_LINK": 2, "IFLA_LINK_NETNSID": 0}, True),
        ("vlan", {"IFLA_LINK": 2}, False),
        ("bridge", {}, False),
        ("bond", {}, False),
        ("veth", {"IFLA_LINK": 2, "IFLA_LINK_NETNSID": 1}, False),
    ],
)
def test_what_leads_out_of_a_namespace(kind: str | None, more: dict[str, int], leads: bool) -> None:
    """Beside a veth that does, and has its other end here: a VLAN does where its device is elsewhere."""
    assert leads_out(link("x0", kind, **more), True) is leads


def test_loopback_is_refused() -> None:
    with pytest.raises(ScopeError, match=r"^device lo: is the loopback interface"):
        DeviceTarget("lo")


def test_device_that_is_not_there() -> None:
    target = DeviceTarget("no-such-device")
    assert target.label == "device no-such-device"
    assert not target.find()


def test_device_of_the_same_name_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there: dict[str, int] = {"veth0": 7}

    def index(name: str) -> int:
        if name not in there:
            raise OSError(name)
        return there[name]

    target = DeviceTarget("veth0")
    monkeypatch.setattr("ram_ebpf.scopes.device.socket.if_nametoindex", index)
    monkeypatch.setattr(target, "_look_up", lambda: describe_link(link("veth0", "veth", there["veth0"])))
    (first,) = target.find().devices
    assert target.find().devices == {first}
    there["veth0"] = 8
    (second,) = target.find().devices
    assert (first.index, second.index) == (7, 8)
    del there["veth0"]
    assert not target.find()


# --- network namespaces


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("build", "/run/netns/build"),
        ("/run/docker/netns/1-abc", "/run/docker/netns/1-abc"),
        ("pid:42", "/proc/42/ns/net"),
        ("pid", "/run/netns/pid"),
    ],
)
def test_namespace(text: str, path: str) -> None:
    assert resolve(text) == Path(path)


@pytest.mark.parametrize("text", ["../x", "a/b", ".", "..", "pid:", "pid:x", "pid:-1", "pid:99999999999"])
def test_no_namespace(text: str) -> None:
    with pytest.raises(ScopeError) as caught:
        resolve(text)
    assert str(caught.value) == (
        f"netns {text}: is no network namespace; write a name that `ip netns` shows, an absolute path "
        "such as /run/netns/build, or pid:N"
    )


@pytest.mark.parametrize("text", [str(namespaces.OWN)])
def test_own_namespace_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "resolve", lambda _: namespaces.OWN)
    with pytest.raises(ScopeError, match="the network namespace of this host itself"):
        NetnsTarget(text)


def test_namespace_that_is_not_there() -> None:
    target = NetnsTarget("no-such-namespace")
    assert target.label == "netns no-such-namespace"
    assert not target.find()


def test_file_that_is_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not NetnsTarget(str(tmp_path / "file")).find()
