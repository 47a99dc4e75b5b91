"""A real buildkitd, which Debian has no package of: built from the source package of docker.io.

That package holds BuildKit's source beside Docker's and needs the same libraries, so what is built is what
Debian patches and ships inside dockerd 26.1, with trixie's Go and trixie's libraries only.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from . import cache, trees
from .debian import Suite

SUITE = "trixie"
_PACKAGE = "docker.io"
_NAME = "github.com/moby/buildkit"
_PROGRAMS = ("buildkitd", "buildctl")
# Where the source package's parts belong in Go's tree; dpkg-source calls the parts so.
_PLACES = {"buildkit": _NAME, "engine": "github.com/docker/docker", "cli": "github.com/docker/cli"}
_LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib")


def programs() -> Path:
    """Return the directory with buildkitd and buildctl, which takes minutes when they are not built yet."""
    return cache.once(f"buildkit-{SUITE}", _build)


def image(certificates: Path) -> bytes:
    """A file system for `docker import`: the two programs, runc, busybox, and whom to trust."""
    tree = trees.tree(SUITE)
    files = {f"usr/bin/{name}": programs() / name for name in _PROGRAMS}
    files["usr/bin/buildkit-runc"] = tree / "usr/sbin/runc"
    files |= _libraries(files["usr/bin/buildkit-runc"], tree)
    for name in ("busybox", "sh", "mount", "umount", "cat"):
        files[f"bin/{name}"] = tree / "usr/bin/busybox"
    files["etc/ssl/certs/ca-certificates.crt"] = certificates
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in files.items():
            member = tarfile.TarInfo(name)
            content = path.read_bytes()
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
        directory = tarfile.TarInfo("tmp")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(directory)
    return buffer.getvalue()


def _build(directory: Path) -> None:
    suite = Suite(SUITE)
    with tempfile.TemporaryDirectory(dir=cache.directory(), prefix=".build-") as name:
        top = Path(name)
        # Without C, so that they run without libraries; then Go's packages are all that is needed.
        needed = suite.plan("build-dep", _PACKAGE)
        libraries = top / "tree"
        suite.unpack({key: value for key, value in needed.items() if key.startswith("golang-")}, libraries)
        source = _source(suite, top)
        (root,) = (libraries / "usr/lib").glob("go-*")
        env = {
            **os.environ,
            "GOROOT": str(root),
            "GOPATH": f"{source}:{libraries / 'usr/share/gocode'}",
            "GOCACHE": str(top / "objects"),
            "GO111MODULE": "off",
            "GOFLAGS": "-buildvcs=false",
            "CGO_ENABLED": "0",
        }
        words = [f"./cmd/{name}" for name in _PROGRAMS]
        subprocess.run(
            [str(root / "bin/go"), "build", "-ldflags", "-s -w", "-o", f"{directory}/", *words],
            cwd=source / "src" / _NAME,
            env=env,
            check=True,
        )


def _source(suite: Suite, top: Path) -> Path:
    """Unpack the source package, as dpkg-source does, patch it, and lay it out for Go."""
    archives, parts, result = top / "archives", top / "parts", top / "go"
    for path in (archives, parts, result / "src"):
        path.mkdir(parents=True)
    for archive in suite.source(_PACKAGE, archives):
        component = archive.name.partition(".orig-")[2].partition(".")[0]
        target = parts / component if component else parts
        target.mkdir(exist_ok=True)
        # The names of the packaging begin with debian/, all others with one more directory.
        strip = 0 if ".debian." in archive.name else _depth(archive)
        subprocess.run(
            ["tar", "-xf", str(archive), "-C", str(target), f"--strip-components={strip}"], check=True
        )
    series = (parts / "debian/patches/series").read_text(encoding="utf-8").splitlines()
    for patch in (line for line in series if line and not line.startswith("#")):
        with (parts / "debian/patches" / patch).open("rb") as file:
            subprocess.run(["patch", "-s", "-f", "-p1"], cwd=parts, stdin=file, check=True)
    for part, place in _PLACES.items():
        (result / "src" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(str(parts / part), str(result / "src" / place))
    return result


def _depth(archive: Path) -> int:
    """How many directories all names of an archive begin with, ./ included."""
    with tarfile.open(archive) as file:
        first = file.next()
    assert first is not None
    return 2 if first.name.startswith("./") else 1


def _libraries(program: Path, tree: Path) -> dict[str, Path]:
    """The libraries that a program of a tree wants, and its loader, as found in that tree."""
    wanted, found = [program], dict[str, Path]()
    while wanted:
        for name in _needed(wanted.pop()):
            path = next(
                (tree / place / name for place in _LIBRARY_DIRECTORIES if (tree / place / name).exists()),
                None,
            )
            if path is None:
                raise LookupError(f"{tree} has no {name}")
            target = f"lib64/{name}" if name.startswith("ld-linux-x86") else f"lib/{name}"
            if target not in found:
                found[target] = path
                wanted.append(path)
    return found


def _needed(program: Path) -> list[str]:
    said = subprocess.run(
        ["readelf", "--dynamic", "--program-headers", "--wide", str(program)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    names = [line.split("[")[1].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    loaders = [line.split()[-1].rstrip("]") for line in said.splitlines() if "program interpreter" in line]
    return names + [Path(loader).name for loader in loaders]
