"""Bytecode kept on disk, so that a start needs no compiler.

A file is named by everything that decides its content: the flattened source, the flags, the version of
bcc and the architecture. Whoever may write here decides what the kernel runs, so files and their directory
must belong to root (or to us) and be writable by nobody else; others are ignored, and said to be.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from ram_ebpf.dataplane.bytecode import Bytecode, BytecodeError
from ram_ebpf.dataplane.cache_directory import DEFAULT_DIRECTORY as DEFAULT_DIRECTORY
from ram_ebpf.dataplane.compiler import ALWAYS, Compilation, bcc_version
from ram_ebpf.dataplane.source import flatten

_log = logging.getLogger(__name__)

_under_way: dict[Path, Future[Bytecode]] = {}
"""By the file where it is going to be kept."""


def cache_key(name: str, flags: Sequence[str]) -> str:
    """SHA-256 over the source and all that compiles it, in hexadecimal."""
    digest = hashlib.sha256()
    for part in (flatten(name), *flags, *ALWAYS, bcc_version(), os.uname().machine):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _is_trusted(path: Path) -> bool:
    status = path.lstat()
    kind = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return kind and status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022


def _read(path: Path) -> Bytecode | None:
    try:
        if not (_is_trusted(path.parent) and _is_trusted(path)):
            _log.warning("ignoring %s: it or its directory is writable by others than root", path)
            return None
        return Bytecode.from_json(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, BytecodeError, UnicodeDecodeError) as error:
        _log.warning("ignoring %s: %s", path, error)
        return None


def _write(path: Path, bytecode: Bytecode) -> None:
    """Whole or not at all, and never a reason to fail: a read-only disk only costs time at the next start."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="ascii") as file:
            temporary = Path(file.name)
            file.write(bytecode.to_json())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        _log.warning("bytecode is not kept in %s: %s", path.parent, error)
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _place(name: str, flags: Sequence[str], directory: Path) -> Path:
    return directory / f"{cache_key(name, flags)}.json"


def is_kept(name: str, flags: Sequence[str], directory: Path = DEFAULT_DIRECTORY) -> bool:
    """Whether the cache has something for bpf/`name`; whether that may be believed is another matter."""
    return os.path.lexists(_place(name, flags, directory))


def read_cached(name: str, flags: Sequence[str], directory: Path = DEFAULT_DIRECTORY) -> Bytecode | None:
    """The bytecode of bpf/`name`, if it is kept there and may be believed."""
    return _read(_place(name, flags, directory))


def compile_ahead(name: str, flags: Sequence[str], directory: Path = DEFAULT_DIRECTORY) -> None:
    """Begins what load_or_compile() would have to wait for, while the caller does something else.

    Nothing where it is kept already. It is that call which raises what goes wrong, but for an OSError where
    nothing can begin. A process that ends, or a thread that calls this, does not wait for it, and ends it.
    """
    place = _place(name, flags, directory)
    if place in _under_way or os.path.lexists(place):
        return
    done: Future[Bytecode] = Future()
    compilation = Compilation(name, flags)

    def work() -> None:
        try:
            done.set_result(compilation.result())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, name=f"compile {name}", daemon=True).start()
    _under_way[place] = done


def load_or_compile(
    name: str, flags: Sequence[str], directory: Path = DEFAULT_DIRECTORY
) -> tuple[Bytecode, bool]:
    """The bytecode of bpf/`name`, and whether it came from the cache. Raises CompileError or OSError."""
    place = _place(name, flags, directory)
    ahead = _under_way.pop(place, None)
    if ahead is not None:
        bytecode = ahead.result()
    else:
        cached = _read(place)
        if cached is not None:
            return cached, True
        bytecode = Compilation(name, flags).result()
    _write(place, bytecode)
    return bytecode, False
