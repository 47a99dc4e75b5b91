"""From scopes to cgroups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from ram_ebpf.policy.registry import CatalogueEntry
from ram_ebpf.policy.scope import CgroupScope, Engine, EngineScope, Posture, Scope
from ram_ebpf.policy.terms import STRICT, Terms
from ram_ebpf.scopes import cgroup, engines, selection
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.engines import FoundEngine
from ram_ebpf.scopes.selection import Selection, select, without_cgroups
from ram_ebpf.scopes.words import parse_scope


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
        "builders:buildx, builders:kubernetes or builders:any, engine:docker, engine:containerd, "
        "engine:podman, engine:crio or engine:all, or host"
    )


@pytest.mark.parametrize("name", ["Docker", "dockerd", "docker ", "lxc", "docker:x"])
def test_parse_no_engine(name: str) -> None:
    with pytest.raises(ScopeError) as caught:
        parse_scope(f"engine:{name}")
    assert str(caught.value) == (
        f"--scope engine:{name}: there is no engine {name!r}; "
        "write one of docker, containerd, podman, crio, all"
    )


@pytest.mark.parametrize("posture", [None, *Posture])
@pytest.mark.parametrize(
    ("text", "kind", "usual"),
    [
        ("cgroup:/a", "cgroup", Posture.STRICT),
        ("engine:docker", "engine", Posture.STRICT),
        ("unit:a.service", "unit", Posture.STRICT),
        ("device:eth0", "device", Posture.STRICT),
        ("netns:lab", "netns", Posture.STRICT),
        ("container:a", "container", Posture.STRICT),
        ("builders:buildx", "builders", Posture.STRICT),
        ("host", "host", Posture.REGISTRIES),
    ],
)
def test_parse_with_a_posture(text: str, kind: str, usual: Posture, posture: Posture | None) -> None:
    scope = parse_scope(text, posture)
    assert (scope.kind, scope.posture, scope.registries) == (kind, posture or usual, ())


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
    found = []
    for target in chosen.targets:
        places = target.find()
        assert not places.devices
        found += sorted(places.cgroups)
    return found


def running(monkeypatch: pytest.MonkeyPatch, *found: FoundEngine) -> None:
    def find_engines(wanted: Engine) -> list[FoundEngine]:
        return [item for item in found if wanted in (Engine.ALL, item.engine)]

    monkeypatch.setattr(selection, "find_engines", find_engines)
    monkeypatch.setattr(engines, "find_engines", find_engines)


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


def test_select_the_root_cgroup(mount: Path) -> None:
    """Where only registries are refused, it may be governed; a strict scope would cut the host off."""
    assert cgroups(select([CgroupScope(cgroup="/", posture=Posture.REGISTRIES)])) == [mount]
    with pytest.raises(ScopeError, match=r"^cgroup /: is the root, which holds this whole host"):
        select([CgroupScope(cgroup="/")])


def test_select_engines(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(
        monkeypatch,
        FoundEngine(Engine.DOCKER, 7, mount / "docker"),
        FoundEngine(Engine.CRIO, 8, mount / "crio"),
    )
    chosen = select([EngineScope(engine=Engine.ALL)])
    assert [target.label for target in chosen.targets] == ["engine all"]
    assert cgroups(chosen) == [mount / "crio", mount / "docker"]
    assert chosen.notes == [f"docker (pid 7) in {mount}/docker", f"crio (pid 8) in {mount}/crio"]
    assert cgroups(select([EngineScope(engine=Engine.CRIO)])) == [mount / "crio"]


def test_select_engines_in_one_cgroup(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(
        monkeypatch,
        FoundEngine(Engine.DOCKER, 7, mount / "docker"),
        FoundEngine(Engine.CONTAINERD, 8, mount / "docker"),
    )
    chosen = select([EngineScope(engine=Engine.ALL)])
    assert cgroups(chosen) == [mount / "docker"]
    assert len(chosen.notes) == 2


def test_select_a_cgroup_once(mount: Path) -> None:
    scopes = [CgroupScope(cgroup="/docker"), CgroupScope.model_construct(cgroup="docker/")]
    chosen = select(scopes)
    assert cgroups(chosen) == [mount / "docker"]
    assert len(chosen.notes) == 2


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        (Engine.ALL, "no container engine is running here"),
        (Engine.DOCKER, "no docker is running here"),
        (Engine.PODMAN, "no podman is running here"),
    ],
)
def test_an_engine_that_comes_later(
    mount: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, text: str
) -> None:
    running(monkeypatch)
    chosen = select([EngineScope(engine=engine)])
    assert cgroups(chosen) == []
    assert chosen.notes == [f"{text}; it is governed as soon as it is"]
    kind = Engine.DOCKER if engine is Engine.ALL else engine
    running(monkeypatch, FoundEngine(kind, 7, mount / "docker"))
    assert cgroups(chosen) == [mount / "docker"]


def test_an_engine_whose_unit_alone_is_there(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    unit = mount / "system.slice" / "docker.service"
    unit.mkdir(parents=True)
    chosen = select([EngineScope(engine=Engine.ALL)])
    assert cgroups(chosen) == [unit]
    assert chosen.notes == []


def test_an_engine_in_the_root_cgroup(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch, FoundEngine(Engine.DOCKER, 7, mount))
    with pytest.raises(ScopeError) as caught:
        select([EngineScope(engine=Engine.ALL)])
    assert str(caught.value) == (
        "docker (pid 7) runs in the root cgroup, which holds this whole host; "
        "start it in a cgroup of its own, as its systemd unit does"
    )


def scope_of(text: object) -> Scope:
    adapter: TypeAdapter[Scope] = TypeAdapter(Scope)
    return adapter.validate_python(text)


@pytest.mark.parametrize("root", [None, "lab"])
def test_select_the_host(mount: Path, root: str | None) -> None:
    directory = mount if root is None else mount / root
    directory.mkdir(exist_ok=True)
    chosen = select([scope_of({"host": {}})], None if root is None else directory)
    assert [target.label for target in chosen.targets] == ["host"]
    assert cgroups(chosen) == [directory]
    assert chosen.notes == [f"host: {directory}"]
    assert chosen.targets[0].terms == Terms(Posture.REGISTRIES)


def test_select_the_host_before_its_root_is_there(mount: Path) -> None:
    chosen = select([scope_of({"host": {}})], mount / "later")
    assert chosen.notes == ["host: is not there; it is governed as soon as it is"]
    (mount / "later").mkdir()
    assert cgroups(chosen) == [mount / "later"]


@pytest.mark.parametrize("posture", Posture)
@pytest.mark.parametrize(
    "scope",
    [
        {"cgroup": "/docker"},
        {"engine": "all"},
        {"device": "no-such-device"},
        {"unit": "a.service"},
        {"netns": "no-such-namespace"},
        {"host": {}},
    ],
    ids=lambda scope: next(iter(scope)),
)
def test_each_target_has_the_terms_of_its_scope(
    mount: Path, monkeypatch: pytest.MonkeyPatch, scope: dict[str, object], posture: Posture
) -> None:
    running(monkeypatch)
    options = {"posture": posture.value, "registries": ["quay"]}
    whole = {"host": options} if "host" in scope else {**scope, **options}
    chosen = select([CgroupScope(cgroup="/crio"), scope_of(whole)])
    first, second = chosen.targets
    assert first.terms == STRICT
    assert second.terms == Terms(posture, (CatalogueEntry(id="quay"),))
    assert second.terms.scope == 1


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


def test_without_cgroups_the_host_allows_what_its_parts_allowed() -> None:
    scopes = TypeAdapter(list[Scope]).validate_python(
        [
            {"engine": "docker", "registries": ["quay"]},
            {"device": "eth0", "registries": ["ghcr"]},
            {"host": {"registries": ["mcr", "quay"]}},
            {"cgroup": "/a"},
        ]
    )
    host, device = without_cgroups(scopes)
    assert (host.kind, host.posture) == ("host", Posture.REGISTRIES)
    assert [entry.id for entry in host.registries if isinstance(entry, CatalogueEntry)] == ["quay", "mcr"]
    assert device == scopes[1]


@pytest.mark.parametrize("scope", [{"container": "ci"}, {"builders": "buildx"}, {"builders": "any"}])
def test_without_cgroups_containers_keep_their_devices(scope: dict[str, str]) -> None:
    """One in the host's own network has none, so the host is governed, and allows what its scope allowed."""
    scopes = TypeAdapter(list[Scope]).validate_python(
        [{"device": "eth0"}, {**scope, "registries": ["quay"]}, {"cgroup": "/a"}]
    )
    host, *kept = without_cgroups(scopes)
    assert kept == scopes[:2]
    assert (host.kind, host.posture) == ("host", Posture.REGISTRIES)
    assert [entry.id for entry in host.registries if isinstance(entry, CatalogueEntry)] == ["quay"]


def test_without_cgroups_nothing_changes_where_none_is_named() -> None:
    scopes = TypeAdapter(list[Scope]).validate_python([{"device": "eth0"}, {"netns": "b"}, {"host": {}}])
    assert without_cgroups(scopes) == tuple(scopes)
    (host,) = without_cgroups([CgroupScope(cgroup="/a")])
    assert host.registries == ()


def test_what_an_engine_runs_has_a_posture_of_its_own(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running(monkeypatch)
    chosen = select([EngineScope(engine=Engine.DOCKER, runs=Posture.REGISTRIES)])
    assert [(target.label, target.terms.posture) for target in chosen.targets] == [
        ("engine docker", Posture.STRICT),
        ("what engine docker runs", Posture.REGISTRIES),
    ]
