"""What engines were told in their files, on their command lines and in their environment."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes.engines import FoundEngine

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCKER_FILE = Path("/etc/docker/daemon.json")
_LARGEST = 1 << 20  # bytes


class SettingsError(ValueError):
    """A file that cannot be read; the text names it and says why."""


@dataclass(frozen=True)
class Process:
    """A running engine, as /proc shows it."""

    pid: int
    proc: Path = Path("/proc")

    def words(self) -> list[str]:
        """Its command line; empty when it is gone or may not be looked at."""
        return self._strings("cmdline")

    def environment(self) -> dict[str, str]:
        """As it was started with."""
        return {name: value for name, _, value in (item.partition("=") for item in self._strings("environ"))}

    def file(self, path: Path) -> Path:
        """Where a file is that the process sees under this name."""
        return self.proc / str(self.pid) / "root" / path.relative_to("/")

    def _strings(self, name: str) -> list[str]:
        try:
            raw = (self.proc / str(self.pid) / name).read_bytes()
        except OSError:
            return []
        return [item.decode("utf-8", errors="replace") for item in raw.split(b"\0") if item]


def flag_values(words: Sequence[str], name: str) -> list[str]:
    """Of a command line those of `--name VALUE` and `--name=VALUE`, in their order."""
    found = []
    for index, word in enumerate(words):
        if word == f"--{name}" and index + 1 < len(words):
            found.append(words[index + 1])
        elif word.startswith(f"--{name}="):
            found.append(word.partition("=")[2])
    return found


@dataclass(frozen=True)
class DockerSettings:
    """Of one dockerd. `file` is where they were read from, whether it is there or not."""

    file: Path
    plugins: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    proxies: dict[str, str] = field(default_factory=dict)
    """By the names that daemon.json has for them."""

    @classmethod
    def of(cls, process: Process | None) -> DockerSettings:
        """Of a running one; None: of one that would be started now. Raises SettingsError."""
        words = process.words() if process is not None else []
        named = next(iter(flag_values(words, "config-file")), str(DOCKER_FILE))
        file = Path(named)
        if process is not None and file.is_absolute():
            file = process.file(file)
        data = _object(file)
        proxies = data.get("proxies")
        return cls(
            Path(named),
            (*_texts(data.get("authorization-plugins")), *flag_values(words, "authorization-plugin")),
            (*_texts(data.get("registry-mirrors")), *flag_values(words, "registry-mirror")),
            {
                **{
                    name: value
                    for name in ("http-proxy", "https-proxy")
                    if isinstance(proxies, dict) and isinstance(value := proxies.get(name), str) and value
                },
                **{
                    name: values[-1]
                    for name in ("http-proxy", "https-proxy")
                    if (values := flag_values(words, name))
                },
            },
        )


def docker_processes(engines: Iterable[FoundEngine]) -> list[Process | None]:
    """All running dockerds; where there is none, one that would be started now."""
    found: list[Process | None] = [Process(item.pid) for item in engines if item.engine is Engine.DOCKER]
    return found or [None]


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _read(file: Path) -> bytes:
    """Empty where there is none."""
    try:
        # In a container anybody may have made it: no pipe is waited for.
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb") as stream:  # noqa: PTH123 - a descriptor that was opened with flags
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SettingsError(f"{file}: is no regular file")
            return stream.read(_LARGEST)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error


def _object(file: Path) -> dict[str, Any]:
    raw = _read(file)
    if not raw.strip():
        return {}
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: {error}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{file}: no JSON object")
    return data


def _tables(file: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = tomllib.loads(_read(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: {error}") from error
    return data


@dataclass(frozen=True)
class Mirror:
    """Another registry that an engine asks first. `place`: as it is written, with or without a scheme."""

    place: str
    file: Path
    engine: str


def docker_mirrors(process: Process | None) -> list[Mirror]:
    """Of Docker Hub, for dockerd. Raises SettingsError."""
    settings = DockerSettings.of(process)
    return [Mirror(place, settings.file, "docker") for place in settings.mirrors]


def podman_mirrors(directory: Path = Path("/etc/containers")) -> Iterator[Mirror]:
    """Of any registry, for podman, buildah, skopeo and CRI-O (containers-registries.conf(5)).

    Raises SettingsError.
    """
    for file in (directory / "registries.conf", *sorted((directory / "registries.conf.d").glob("*.conf"))):
        registries = _tables(file).get("registry")
        for registry in registries if isinstance(registries, list) else []:
            mirrors = registry.get("mirror") if isinstance(registry, dict) else None
            for mirror in mirrors if isinstance(mirrors, list) else []:
                place = mirror.get("location") if isinstance(mirror, dict) else None
                if isinstance(place, str):
                    yield Mirror(place, file, "podman")


def containerd_mirrors(directory: Path = Path("/etc/containerd/certs.d")) -> Iterator[Mirror]:
    """Of any registry, for containerd (docs/hosts.md there). Raises SettingsError."""
    for file in sorted(directory.glob("*/hosts.toml")):
        hosts = _tables(file).get("host")
        for place in hosts if isinstance(hosts, dict) else []:
            yield Mirror(place, file, "containerd")
