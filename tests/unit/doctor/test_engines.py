"""Engines, and what they were told: settings, proxies, mirrors and Docker's plugin."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ram_ebpf.doctor import docker_plugin, engines, mirrors, proxies
from ram_ebpf.doctor.engine_settings import (
    DockerSettings,
    Mirror,
    Process,
    SettingsError,
    containerd_mirrors,
    flag_values,
    podman_mirrors,
)
from ram_ebpf.doctor.finding import Status
from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes.engines import FoundEngine

from .cases import POLICY, case_of

MOUNT = Path("/sys/fs/cgroup")
DOCKERD = FoundEngine(Engine.DOCKER, 812, MOUNT / "system.slice/docker.service")


# --- engines


@pytest.mark.parametrize(
    ("wanted", "status"),
    [
        (frozenset({Engine.ALL}), Status.FAILURE),
        (frozenset({Engine.CONTAINERD}), Status.FAILURE),
        (frozenset({Engine.DOCKER}), Status.WARNING),
        (frozenset(), Status.WARNING),
    ],
)
def test_engine_in_the_root(wanted: frozenset[Engine], status: Status) -> None:
    (found,) = engines.of_engines([FoundEngine(Engine.CONTAINERD, 7, MOUNT)], MOUNT, wanted)
    assert (found.status, found.subject) == (status, "7")
    assert "a control group of its own" in found.cure


def test_engine_in_its_own() -> None:
    (found,) = engines.of_engines([DOCKERD], MOUNT, frozenset({Engine.ALL}))
    assert found.status is Status.OK
    assert found.title.startswith("docker (pid 812) is in /system.slice/docker.service")
    (found,) = engines.of_engines([], MOUNT, frozenset({Engine.ALL}))
    assert found.title == "no container engine runs here now"


# --- settings


class Machine:
    """A directory like /proc, with one process in it that has a root of its own."""

    def __init__(self, proc: Path) -> None:
        self.process = Process(812, proc)
        (proc / "812" / "root").mkdir(parents=True)

    def has(self, *words: str, environment: Mapping[str, str] | None = None) -> None:
        folder = self.process.proc / "812"
        variables = [f"{name}={value}" for name, value in (environment or {}).items()]
        for name, texts in (("cmdline", words), ("environ", variables)):
            (folder / name).write_bytes(b"".join(text.encode() + b"\0" for text in texts))

    def file(self, path: str, content: object) -> None:
        target = self.process.file(Path(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_flags() -> None:
    words = ["dockerd", "--registry-mirror", "https://a", "--registry-mirror=https://b", "--registry-mirror"]
    assert flag_values(words, "registry-mirror") == ["https://a", "https://b"]
    assert flag_values(words, "registry") == []


def test_settings_of_docker(machine: Machine) -> None:
    machine.has("dockerd", "--authorization-plugin=other", "--https-proxy", "http://flag:3128")
    machine.file(
        "/etc/docker/daemon.json",
        {
            "authorization-plugins": ["ram-ebpf"],
            "registry-mirrors": ["https://mirror.corp.example:5000"],
            "proxies": {"http-proxy": "http://file:3128", "https-proxy": "http://file:3128", "no-proxy": "x"},
        },
    )
    settings = DockerSettings.of(machine.process)
    assert settings.plugins == ("ram-ebpf", "other")
    assert settings.mirrors == ("https://mirror.corp.example:5000",)
    assert settings.proxies == {"http-proxy": "http://file:3128", "https-proxy": "http://flag:3128"}
    assert settings.file == Path("/etc/docker/daemon.json")


def test_settings_elsewhere(machine: Machine) -> None:
    machine.has("dockerd", "--config-file", "/srv/docker.json")
    machine.file("/srv/docker.json", {"authorization-plugins": ["ram-ebpf"]})
    settings = DockerSettings.of(machine.process)
    assert (settings.file, settings.plugins) == (Path("/srv/docker.json"), ("ram-ebpf",))


@pytest.mark.parametrize("content", ["", "  \n", "{}", '{"registry-mirrors": "no list", "proxies": [1]}'])
def test_settings_that_say_nothing(machine: Machine, content: str) -> None:
    machine.has("dockerd")
    machine.file("/etc/docker/daemon.json", content)
    assert DockerSettings.of(machine.process) == DockerSettings(Path("/etc/docker/daemon.json"))


@pytest.mark.parametrize("content", ["{", "[]", '"text"', "[" * 100_000, "\x00"])
def test_settings_that_cannot_be_read(machine: Machine, content: str) -> None:
    machine.has("dockerd")
    machine.file("/etc/docker/daemon.json", content)
    with pytest.raises(SettingsError, match=r"daemon\.json: "):
        DockerSettings.of(machine.process)


def test_settings_that_are_no_file(machine: Machine) -> None:
    """Nobody waits for whoever may write into it."""
    machine.has("dockerd")
    path = machine.process.file(Path("/etc/docker/daemon.json"))
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    with pytest.raises(SettingsError, match="is no regular file"):
        DockerSettings.of(machine.process)


def test_process_that_is_gone(tmp_path: Path) -> None:
    process = Process(4711, tmp_path)
    assert (process.words(), process.environment()) == ([], {})
    assert DockerSettings.of(process).plugins == ()


# --- proxies


def use_of(url: str) -> proxies.Use:
    (use,) = proxies.uses("docker", 812, {"HTTPS_PROXY": url})
    return use


def test_proxies_of_an_environment(machine: Machine) -> None:
    machine.has(
        "dockerd",
        environment={
            "HTTPS_PROXY": "http://user:secret@proxy.corp.example:3128",
            "http_proxy": "proxy.corp.example:3128",
            "ALL_PROXY": "",
            "NO_PROXY": "corp.example",
        },
    )
    named = proxies.named_in(machine.process.environment())
    (use,) = proxies.uses("docker", 812, named)
    assert (str(use.proxy), use.where) == ("proxy.corp.example:3128", ("HTTPS_PROXY", "http_proxy"))
    (found,) = proxies.of_uses(case_of(POLICY), [use])
    assert found.status is Status.WARNING
    assert "secret" not in str(found)
    assert "which the policy does not list" in found.title
    assert "list the proxy in the policy, under proxies:" in found.cure


@pytest.mark.parametrize(
    ("url", "shown", "scheme"),
    [
        ("http://proxy:3128/", "proxy:3128", "http"),
        ("https://proxy", "proxy:443", "https"),
        ("socks5://[2001:db8::1]", "[2001:db8::1]:1080", "socks5"),
        ("proxy", "proxy:80", "http"),
        ("user:p@ss@proxy:8080", "proxy:8080", "http"),
        ("http://proxy:port", "that cannot be read", "http"),
        ("http://", "that cannot be read", "http"),
        ("http://[::1", "that cannot be read", "http"),
    ],
)
def test_proxies_as_they_are_written(url: str, shown: str, scheme: str) -> None:
    proxy = proxies.Proxy.parse(url)
    assert (str(proxy), proxy.scheme) == (shown, scheme)


_PROXIES = """\
proxies:
  - host: proxy.corp.example
    ports: [3128]
  - { address: 10.40.0.1, ports: [3128] }
"""


@pytest.mark.parametrize(
    ("url", "status", "text"),
    [
        ("http://proxy.corp.example:3128", Status.OK, "which the policy lists"),
        ("10.40.0.1:3128", Status.OK, "which the policy lists"),
        ("http://proxy.corp.example:8080", Status.WARNING, "does not list"),
        ("https://proxy.corp.example:3128", Status.WARNING, "by https, which hides"),
        ("socks5://10.40.0.1:3128", Status.WARNING, "by socks5, which hides"),
        ("http://10.30.0.7:5000", Status.WARNING, "allows as a registry"),
        ("http://registry.corp.example:5000", Status.WARNING, "allows as a registry"),
        ("http://bad.mirrors.corp.example:443", Status.WARNING, "does not list"),
        ("http://[::1", Status.WARNING, "does not list"),
    ],
)
def test_proxies_in_a_policy(url: str, status: Status, text: str) -> None:
    (found,) = proxies.of_uses(case_of(POLICY + _PROXIES), [use_of(url)])
    assert found.status is status
    assert text in found.title


def test_no_proxies() -> None:
    (found,) = proxies.of_uses(case_of(POLICY), [])
    assert found.status is Status.OK


# --- mirrors


def test_mirrors_of_podman(tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text(
        'unqualified-search-registries = ["docker.io"]\n[[registry]]\nprefix = "docker.io"\n'
        'location = "docker.io"\n[[registry.mirror]]\nlocation = "a.mirrors.corp.example/hub"\n'
    )
    (tmp_path / "registries.conf.d").mkdir()
    (tmp_path / "registries.conf.d" / "more.conf").write_text(
        '[[registry]]\nprefix = "quay.io"\n[[registry.mirror]]\nlocation = "10.30.0.7:5000"\n'
    )
    assert [mirror.place for mirror in podman_mirrors(tmp_path)] == [
        "a.mirrors.corp.example/hub",
        "10.30.0.7:5000",
    ]
    (tmp_path / "registries.conf").write_text("= nothing")
    with pytest.raises(SettingsError, match=r"registries\.conf: "):
        list(podman_mirrors(tmp_path))
    assert list(podman_mirrors(tmp_path / "none")) == []


def test_mirrors_of_containerd(tmp_path: Path) -> None:
    (tmp_path / "docker.io").mkdir()
    (tmp_path / "docker.io" / "hosts.toml").write_text(
        'server = "https://registry-1.docker.io"\n[host."https://mirror.example:5000"]\n'
    )
    (mirror,) = containerd_mirrors(tmp_path)
    assert (mirror.place, mirror.engine) == ("https://mirror.example:5000", "containerd")


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("https://registry.corp.example", True),
        ("https://registry.corp.example:5000/hub", True),
        ("registry.corp.example:8443", False),
        ("http://registry.corp.example", False),
        ("a.mirrors.corp.example/hub", True),
        ("bad.mirrors.corp.example", False),
        ("https://10.30.0.7", True),
        ("10.30.0.8:5000", False),
        ("https://elsewhere.example", False),
        ("https://[::1", False),
    ],
)
def test_mirrors_in_a_policy(place: str, allowed: bool) -> None:
    (found,) = mirrors.of_mirrors(case_of(POLICY), [Mirror(place, Path("/etc/x"), "docker")])
    assert (found.status is Status.OK) == allowed
    if not allowed:
        assert found.subject == place
        assert "/etc/x" in found.cure


def test_no_mirrors() -> None:
    (found,) = mirrors.of_mirrors(case_of(POLICY), [])
    assert found.title == "engines ask no mirrors"


# --- Docker's plugin


@pytest.mark.parametrize(
    ("wanted", "asked", "served", "status", "cure"),
    [
        (False, False, False, Status.OK, ""),
        (False, False, True, Status.OK, ""),
        (True, False, False, Status.WARNING, "authorization-plugins"),
        (True, False, True, Status.WARNING, "systemctl reload docker"),
        (True, True, True, Status.OK, ""),
        (True, True, False, Status.FAILURE, "start ram-ebpf"),
        (False, True, False, Status.FAILURE, "take ram-ebpf out of"),
        (False, True, True, Status.WARNING, "take ram-ebpf out of"),
    ],
)
def test_plugin(wanted: bool, asked: bool, served: bool, status: Status, cure: str) -> None:
    file = Path("/etc/docker/daemon.json")
    found = docker_plugin.of_docker("docker (pid 812)", file, wanted, asked, served)
    assert (found.status, found.subject) == (status, "docker (pid 812)")
    assert cure in found.cure
    assert bool(found.cure) == bool(cure)
