"""From scopes to cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ram_ebpf.policy.scope import CgroupScope, Engine, EngineScope, Posture, Scope
from ram_ebpf.scopes import cgroup, selection
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.engines import FoundEngine
from ram_ebpf.scopes.selection import parse_scope, select


@pytest.mark.parametrize("path", ["docker/abc", "/docker", "/sys/fs/cgroup/docker", "a:b", "..", " "])
def test_parse_a_cgroup(path: str) -> None:
    scope = parse_scope(f"cgroup:{path}")
    assert isinstance(scope, CgroupScope)
    assert (scope.cgroup, scope.target, scope.kind, scope.posture) == (path, path, "cgroup", Posture.STRICT)


@pytest.mark.parametrize("engine", list(Engine))
def test_parse_an_engine(engine: Engine) -> None:
    assert parse_scope(f"engine:{engine.value}") == EngineScope(engine=engine)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "cgroup",
        "cgroup:",
        "engine:",
        "engine",
        "docker",
        "unit:docker.service",
        "Engine:docker",
        ":x",
    ],
)
def test_parse_no_scope(text: str) -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope(text)
    assert str(caught.value) == (
        f"--scope {text}: is no scope of this version; write cgroup:PATH, or engine:docker, "
        "engine:containerd, engine:podman, engine:crio or engine:all"
    )


@pytest.mark.parametrize("name", ["Docker", "dockerd", "docker ", "lxc", "docker:x"])
def test_parse_no_engine(name: str) -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope(f"engine:{name}")
    assert str(caught.value) == (
        f"--scope engine:{name}: there is no engine {name!r}; "
        "write one of docker, containerd, podman, crio, all"
    )


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (".", "docker", "crio"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.procs").touch()
    monkeypatch.setattr(cgroup, "find_cgroup2_mount", lambda: tmp_path)
    monkeypatch.setattr(selection, "find_cgroup2_mount", lambda: tmp_path)
    return tmp_path


def running(monkeypatch: pytest.MonkeyPatch, *found: FoundEngine) -> None:
    def find_engines(wanted: Engine) -> list[FoundEngine]:
        return [item for item in found if wanted in (Engine.ALL, item.engine)]

    monkeypatch.setattr(selection, "find_engines", find_engines)


def test_select_nothing() -> None:
    chosen = select([])
    assert (chosen.cgroups, chosen.notes) == ([], [])


def test_select_a_cgroup(mount: Path) -> None:
    chosen = select([CgroupScope(cgroup="/docker")])
    assert (chosen.cgroups, chosen.notes) == ([mount / "docker"], [f"cgroup {mount / 'docker'}"])


def test_select_a_relative_cgroup_of_the_command_line(mount: Path) -> None:
    assert select([parse_scope("cgroup:docker")]).cgroups == [mount / "docker"]


def test_select_a_missing_cgroup(mount: Path) -> None:
    with pytest.raises(ScopeError, match=r"^cgroup /missing: there is no cgroup2 directory"):
        select([CgroupScope(cgroup="/docker"), CgroupScope(cgroup="/missing")])


def test_select_engines(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(
        monkeypatch,
        FoundEngine(Engine.DOCKER, 7, mount / "docker"),
        FoundEngine(Engine.CRIO, 8, mount / "crio"),
    )
    chosen = select([EngineScope(engine=Engine.ALL)])
    assert chosen.cgroups == [mount / "docker", mount / "crio"]
    assert chosen.notes == [f"docker (pid 7) in {mount}/docker", f"crio (pid 8) in {mount}/crio"]
    assert select([EngineScope(engine=Engine.CRIO)]).cgroups == [mount / "crio"]


def test_select_a_cgroup_once(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(
        monkeypatch,
        FoundEngine(Engine.DOCKER, 7, mount / "docker"),
        FoundEngine(Engine.CONTAINERD, 8, mount / "docker"),
    )
    chosen = select([EngineScope(engine=Engine.ALL), CgroupScope(cgroup="/docker")])
    assert chosen.cgroups == [mount / "docker"]
    assert len(chosen.notes) == 3


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        (Engine.ALL, "no container engine is running here"),
        (Engine.DOCKER, "no docker is running here"),
        (Engine.PODMAN, "no podman is running here"),
    ],
)
def test_no_engine_is_a_note(mount: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, text: str) -> None:
    running(monkeypatch)
    chosen = select([EngineScope(engine=engine)])
    assert chosen.cgroups == []
    assert chosen.notes == [f"{text} (looked for dockerd, containerd, crio and podman's API service)"]


def test_an_engine_in_the_root_cgroup(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, FoundEngine(Engine.DOCKER, 7, mount))
    with pytest.raises(ScopeError) as caught:
        select([EngineScope(engine=Engine.ALL)])
    assert str(caught.value) == (
        "docker (pid 7) runs in the root cgroup, which holds this whole host; "
        "start it in a cgroup of its own, as its systemd unit does"
    )


@pytest.mark.parametrize(
    ("scope", "kind"),
    [
        ({"builders": "buildx"}, "builders"),
        ({"host": {}}, "host"),
        ({"host": {"posture": "registries"}}, "host"),
        ({"unit": "docker.service"}, "unit"),
        ({"netns": "lab", "posture": "registries"}, "netns"),
        ({"device": "eth0"}, "device"),
        ({"container": "buildkit0"}, "container"),
    ],
)
def test_kinds_of_later_versions(scope: object, kind: str) -> None:
    adapter: TypeAdapter[Scope] = TypeAdapter(Scope)
    with pytest.raises(ScopeError) as caught:
        select([adapter.validate_python(scope)])
    assert str(caught.value) == (
        f"scope {kind}: scopes of this kind are not in this version; write cgroup: PATH or engine: NAME"
    )


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (CgroupScope(cgroup="/docker", posture=Posture.REGISTRIES), "cgroup: /docker"),
        (EngineScope(engine=Engine.ALL, posture=Posture.REGISTRIES), "engine: all"),
    ],
)
def test_postures_of_later_versions(scope: CgroupScope | EngineScope, shown: str) -> None:
    with pytest.raises(ScopeError) as caught:
        select([scope])
    assert str(caught.value) == (
        f"scope {shown}: posture registries is not in this version; write strict, or leave posture out"
    )
