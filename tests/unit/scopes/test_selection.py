"""From scopes to cgroups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ram_ebpf.policy.scope import (
    CgroupScope,
    DeviceScope,
    Engine,
    EngineScope,
    NetnsScope,
    Posture,
    Scope,
    ScopeModel,
    UnitScope,
)
from ram_ebpf.scopes import cgroup, selection
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.engines import FoundEngine
from ram_ebpf.scopes.selection import Selection, parse_scope, select
from ram_ebpf.scopes.target import CgroupTarget


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
        "unit:",
        "host:x",
        "Engine:docker",
        ":x",
    ],
)
def test_parse_no_scope(text: str) -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope(text)
    assert str(caught.value) == (
        f"--scope {text}: is no scope of this version; write cgroup:PATH, unit:NAME, device:NAME, "
        "netns:NAME, netns:PATH or netns:pid:N, container:NAME, container:ID or container:label=KEY=VALUE, "
        "builders:buildx, builders:kubernetes or builders:any, or engine:docker, engine:containerd, "
        "engine:podman, engine:crio or engine:all"
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


def cgroups(chosen: Selection) -> list[Path]:
    """The directories of what was chosen, which are all there is."""
    assert all(isinstance(target, CgroupTarget) for target in chosen.targets)
    return [target.directory for target in chosen.targets if isinstance(target, CgroupTarget)]


def running(monkeypatch: pytest.MonkeyPatch, *found: FoundEngine) -> None:
    def find_engines(wanted: Engine) -> list[FoundEngine]:
        return [item for item in found if wanted in (Engine.ALL, item.engine)]

    monkeypatch.setattr(selection, "find_engines", find_engines)


def test_select_nothing() -> None:
    chosen = select([])
    assert (cgroups(chosen), chosen.notes) == ([], [])


def test_select_a_cgroup(mount: Path) -> None:
    chosen = select([CgroupScope(cgroup="/docker")])
    assert (cgroups(chosen), chosen.notes) == ([mount / "docker"], [f"cgroup {mount / 'docker'}"])


def test_select_a_relative_cgroup_of_the_command_line(mount: Path) -> None:
    assert cgroups(select([parse_scope("cgroup:docker")])) == [mount / "docker"]


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
    assert cgroups(chosen) == [mount / "docker", mount / "crio"]
    assert chosen.notes == [f"docker (pid 7) in {mount}/docker", f"crio (pid 8) in {mount}/crio"]
    assert cgroups(select([EngineScope(engine=Engine.CRIO)])) == [mount / "crio"]


def test_select_a_cgroup_once(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(
        monkeypatch,
        FoundEngine(Engine.DOCKER, 7, mount / "docker"),
        FoundEngine(Engine.CONTAINERD, 8, mount / "docker"),
    )
    chosen = select([EngineScope(engine=Engine.ALL), CgroupScope(cgroup="/docker")])
    assert cgroups(chosen) == [mount / "docker"]
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
    assert cgroups(chosen) == []
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
        ({"host": {}}, "host"),
        ({"host": {"posture": "registries"}}, "host"),
    ],
)
def test_kinds_of_later_versions(scope: object, kind: str) -> None:
    adapter: TypeAdapter[Scope] = TypeAdapter(Scope)
    with pytest.raises(ScopeError) as caught:
        select([adapter.validate_python(scope)])
    assert str(caught.value) == (
        f"scope {kind}: scopes of this kind are not in this version; write cgroup: PATH, unit: NAME, "
        "device: NAME, netns: NAME, container: NAME, builders: buildx or engine: NAME"
    )


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        (CgroupScope(cgroup="/docker", posture=Posture.REGISTRIES), "cgroup: /docker"),
        (EngineScope(engine=Engine.ALL, posture=Posture.REGISTRIES), "engine: all"),
        (DeviceScope(device="eth0", posture=Posture.REGISTRIES), "device: eth0"),
        (UnitScope(unit="a.service", posture=Posture.REGISTRIES), "unit: a.service"),
        (NetnsScope(netns="lab", posture=Posture.REGISTRIES), "netns: lab"),
    ],
)
def test_postures_of_later_versions(scope: ScopeModel, shown: str) -> None:
    with pytest.raises(ScopeError) as caught:
        select([TypeAdapter(Scope).validate_python(scope)])
    assert str(caught.value) == (
        f"scope {shown}: posture registries is not in this version; write strict, or leave posture out"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("unit:docker", "is not the full name of a systemd unit with a control group"),
        ("device:a/b", "is not the name of a network device"),
        ("container:a/b", "is not the name, identifier or label of a container"),
        ("builders:bake", "is not one of the choices"),
    ],
)
def test_scope_of_the_command_line_that_the_file_would_not_take(text: str, said: str) -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope(text)
    assert str(caught.value).startswith(f"--scope {text}: ")
    assert said in str(caught.value)
    assert "; write " in str(caught.value)


def test_builders_of_a_node_without_a_runtime(
    mount: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CONTAINER_RUNTIME_ENDPOINT", f"unix://{tmp_path}/none")
    chosen = select([parse_scope("builders:kubernetes"), parse_scope("builders:any")])
    assert chosen.notes[0] == "builders kubernetes: is not there; it is governed as soon as it is"
    assert chosen.watches() == [chosen.pods]
    assert chosen.ports() is None


def test_runtime_endpoint_that_is_none(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINER_RUNTIME_ENDPOINT", "tcp://127.0.0.1:1")
    with pytest.raises(ScopeError, match=r"^CONTAINER_RUNTIME_ENDPOINT='tcp://127\.0\.0\.1:1': is not"):
        select([parse_scope("builders:kubernetes")])


def test_grpc_is_imported_only_where_it_is_needed() -> None:
    code = "import sys, ram_ebpf.scopes.selection; print({'grpc', 'google.protobuf'} & sys.modules.keys())"
    root = Path(__file__).parents[3]
    said = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
