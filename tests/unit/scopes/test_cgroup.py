"""Finding and naming cgroup2 directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from ram_ebpf.scopes import cgroup
from ram_ebpf.scopes.cgroup import (
    CgroupNames,
    ScopeError,
    find_cgroup2_mount,
    of_container,
    of_process,
    resolve,
)

PURE = "25 30 0:23 / /sys/fs/cgroup rw,nosuid,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:10 - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:11 - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:12 - cgroup2 cgroup2 rw
"""
PROC = "22 30 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw\n"


def mount_of(tmp_path: Path, text: str) -> Path:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(text, encoding="utf-8")
    return find_cgroup2_mount(mountinfo)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PURE, "/sys/fs/cgroup"),
        (PROC + PURE, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        ("25 30 0:23 / /cg rw - cgroup2 cgroup2 rw\n", "/cg"),  # no optional field
        ("25 30 0:23 / /cg rw shared:1 master:2 propagate_from:3 - cgroup2 none rw\n", "/cg"),
        (r"25 30 0:23 / /mnt/my\040cgroups rw - cgroup2 none rw", "/mnt/my cgroups"),
        (r"25 30 0:23 / /mnt/a\011b\012c\134d rw - cgroup2 none rw", "/mnt/a\tb\nc\\d"),
        (r"25 30 0:23 / /mnt/-\040cgroup2 rw - cgroup2 none rw", "/mnt/- cgroup2"),
        ("25 30 0:23 / /mnt/zürich rw - cgroup2 none rw", "/mnt/zürich"),
    ],
)
def test_mount(tmp_path: Path, text: str, expected: str) -> None:
    assert mount_of(tmp_path, text) == Path(expected)


def test_of_several_mounts_the_whole_hierarchy_wins(tmp_path: Path) -> None:
    part = "25 30 0:23 /docker/abc /c rw - cgroup2 none rw\n"
    whole = "26 30 0:23 / /var/lib/somewhere/deep rw - cgroup2 none rw\n"
    for text in (part + whole, whole + part):
        assert mount_of(tmp_path, text) == Path("/var/lib/somewhere/deep")


def test_of_equal_mounts_the_shortest_path_wins(tmp_path: Path) -> None:
    text = "25 30 0:23 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n" + PURE
    assert mount_of(tmp_path, text) == Path("/sys/fs/cgroup")


def test_of_partial_mounts_the_larger_part_wins(tmp_path: Path) -> None:
    small = "25 30 0:23 /docker/abc /c rw - cgroup2 none rw\n"
    large = "26 30 0:23 /docker /containers rw - cgroup2 none rw\n"
    assert mount_of(tmp_path, small + large) == Path("/containers")


@pytest.mark.parametrize(
    "text",
    [
        "",
        PROC,
        "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs cgroup2 rw\n",  # a source of that name is no type
    ],
)
def test_no_mount(tmp_path: Path, text: str) -> None:
    with pytest.raises(
        ScopeError, match=r"^cgroup version 2 is not mounted: mount it with `mount -t cgroup2"
    ):
        mount_of(tmp_path, text)


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A directory that looks like a cgroup2 hierarchy."""
    root = tmp_path / "cgroup"
    for name in (".", "docker", "docker/abc", "system.slice", "system.slice/docker.service"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "cgroup.procs").touch()
    (root / "no-cgroup").mkdir()
    return root


@pytest.mark.parametrize(
    "path",
    [
        "docker/abc",
        "/docker/abc",
        "//docker//abc/",
        "docker/./abc",
        "docker/../docker/abc",
        "/docker/x/../abc",
    ],
)
def test_resolve_in_the_hierarchy(mount: Path, path: str) -> None:
    assert resolve(path, mount) == mount / "docker/abc"


def test_resolve_in_the_file_system(mount: Path) -> None:
    assert resolve(str(mount / "docker/abc"), mount) == mount / "docker/abc"
    assert resolve(f"{mount}/docker/../docker", mount) == mount / "docker"


@pytest.mark.parametrize("path", ["..", "/..", "../other", "docker/../../other", "/docker/abc/../../.."])
def test_resolve_refuses_to_leave(mount: Path, path: str) -> None:
    (mount.parent / "other").mkdir()
    (mount.parent / "other" / "cgroup.procs").touch()
    with pytest.raises(ScopeError) as caught:
        resolve(path, mount)
    assert str(caught.value) == f"cgroup {path}: leads out of {mount}"


def test_resolve_refuses_to_leave_from_the_file_system(mount: Path) -> None:
    with pytest.raises(ScopeError, match="leads out of"):
        resolve(f"{mount}/../other", mount)


def test_a_neighbour_with_the_same_beginning_is_not_inside(mount: Path) -> None:
    neighbour = mount.with_name("cgroup2")
    (neighbour / "docker").mkdir(parents=True)
    (neighbour / "docker" / "cgroup.procs").touch()
    with pytest.raises(ScopeError, match="there is no cgroup2 directory"):
        resolve(str(neighbour / "docker"), mount)


@pytest.mark.parametrize("path", ["", "/", ".", "//", "docker/..", "/docker/abc/../.."])
def test_resolve_refuses_the_root(mount: Path, path: str) -> None:
    with pytest.raises(ScopeError, match=r"is the root, which holds this whole host") as caught:
        resolve(path, mount)
    assert str(caught.value).startswith(f"cgroup {path}: ")
    assert "system.slice/docker.service" in str(caught.value)


def test_resolve_refuses_the_root_by_its_path(mount: Path) -> None:
    for path in (str(mount), f"{mount}/", f"{mount}/docker/.."):
        with pytest.raises(ScopeError, match="is the root"):
            resolve(path, mount)


@pytest.mark.parametrize("path", ["missing", "/docker/missing", "no-cgroup", "docker/cgroup.procs"])
def test_resolve_missing(mount: Path, path: str) -> None:
    with pytest.raises(ScopeError) as caught:
        resolve(path, mount)
    directory = mount / path.lstrip("/")
    assert str(caught.value) == (
        f"cgroup {path}: there is no cgroup2 directory {directory}; "
        f"`ls {mount}` shows what there is, and /proc/PID/cgroup where a process is"
    )


def test_resolve_a_name_longer_than_file_names(mount: Path) -> None:
    with pytest.raises(ScopeError, match="there is no cgroup2 directory"):
        resolve("/docker/" + "a" * 300, mount)


def test_resolve_looks_for_the_mount_itself(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "find_cgroup2_mount", lambda: mount)
    assert resolve("docker") == mount / "docker"


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for /proc."""
    directory = tmp_path / "proc"
    directory.mkdir()

    def path(*parts: str) -> Path:
        given = Path(*parts)
        return directory / given.relative_to("/proc") if given.is_relative_to("/proc") else given

    monkeypatch.setattr(cgroup, "Path", path)
    return directory


def put_cgroup(proc: Path, pid: int, content: bytes) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cgroup").write_bytes(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"0::/docker/abc\n", "docker/abc"),
        (
            b"12:pids:/elsewhere\n1:name=systemd:/x\n0::/system.slice/docker.service\n",
            "system.slice/docker.service",
        ),
        (b"0::/\n", "."),
        (b"0::/a:b c\n", "a:b c"),
    ],
)
def test_of_process(proc: Path, mount: Path, content: bytes, expected: str) -> None:
    put_cgroup(proc, 7, content)
    assert of_process(7, mount) == mount / expected


@pytest.mark.parametrize("content", [b"", b"4:memory:/docker\n", b"0::/../../system.slice\n", b"0::/..\n"])
def test_of_process_that_we_cannot_see(proc: Path, mount: Path, content: bytes) -> None:
    put_cgroup(proc, 7, content)
    assert of_process(7, mount) is None


def test_of_process_that_is_gone(proc: Path, mount: Path) -> None:
    assert of_process(7, mount) is None


def test_of_process_in_a_cgroup_whose_name_is_not_utf8(proc: Path, mount: Path) -> None:
    """Whoever has a delegated cgroup may name one below it so."""
    put_cgroup(proc, 7, b"0::/user.slice/\xff\n")
    found = of_process(7, mount)  # what it gives matters less than that it does not raise
    assert found is None or found.is_relative_to(mount)


def test_names(mount: Path) -> None:
    names = CgroupNames(mount)
    for name in ("docker", "docker/abc", "system.slice/docker.service"):
        assert names.path((mount / name).stat().st_ino) == f"/{name}"
    assert names.path(mount.stat().st_ino) == "/"


def test_names_of_ids_with_a_generation(mount: Path) -> None:
    inode = (mount / "docker/abc").stat().st_ino
    if inode >> 32:
        pytest.skip("this file system has inode numbers of more than 32 bits")
    for first in (True, False):  # before and after it is known
        names = CgroupNames(mount)
        if not first:
            names.path(inode)
        assert names.path(7 << 32 | inode) == "/docker/abc"


def test_names_follow_changes(mount: Path) -> None:
    names = CgroupNames(mount)
    assert names.path((mount / "docker").stat().st_ino) == "/docker"
    late = mount / "docker" / "late"
    late.mkdir()
    inode = late.stat().st_ino
    assert names.path(inode) == "/docker/late"


def test_names_of_what_is_not_there(mount: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    assert CgroupNames(mount).path(outside.stat().st_ino) is None
    assert CgroupNames(tmp_path / "no-mount").path(1) is None


def test_names_with_a_leading_dot(mount: Path) -> None:
    hidden = mount / ".hidden"
    hidden.mkdir()
    assert CgroupNames(mount).path(hidden.stat().st_ino) == "/.hidden"


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("docker/0123456789ab", "docker/0123456789ab"),
        ("docker/0123456789ab/init", "docker/0123456789ab"),
        ("a.slice/cri-0123456789ab.scope/init/x", "a.slice/cri-0123456789ab.scope"),
        ("docker/0123456789ab/0123456789ab", "docker/0123456789ab"),
        ("elsewhere/init", "elsewhere/init"),
    ],
)
def test_of_container(proc: Path, mount: Path, cgroup: str, expected: str) -> None:
    put_cgroup(proc, 7, f"0::/{cgroup}\n".encode())
    assert of_container(7, "0123456789ab", mount) == mount / expected


def test_of_container_without_an_identifier_to_go_by(proc: Path, mount: Path) -> None:
    put_cgroup(proc, 7, b"0::/web/a\n")
    assert of_container(7, "w", mount) == mount / "web/a"
    assert of_container(8, "0123456789ab", mount) is None
