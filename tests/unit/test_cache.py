"""The cache of bytecode: it saves the compiler, trusts nobody else's files, and is never a reason to fail."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ram_ebpf.dataplane import cache
from ram_ebpf.dataplane.bytecode import Bytecode, MapShape, Program
from ram_ebpf.dataplane.cache import cache_key, compile_ahead, load_or_compile
from ram_ebpf.dataplane.compiler import CompileError

BYTECODE = Bytecode({"main": Program(bytes(8), ())}, {"names": MapShape(1, 4, 8, 16, 0)})
SOURCE = "cgroup.c"


class Compiler:
    """Stands in for the compiler and counts its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, name: str, flags: tuple[str, ...]) -> Compiler:
        self.calls.append((name, flags))
        return self

    def result(self) -> Bytecode:
        return BYTECODE


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    compiler = Compiler()
    monkeypatch.setattr(cache, "Compilation", compiler)
    return compiler


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache that holds the bytecode already, in its only file."""
    folder = tmp_path / "var" / "cache"
    folder.mkdir(parents=True, mode=0o755)
    (folder / f"{cache_key(SOURCE, ())}.json").write_text(BYTECODE.to_json(), encoding="ascii")
    return folder


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()  # so nothing temporary is left either
    return path


def test_first_start_compiles_and_the_second_does_not(compiler: Compiler, tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    assert load_or_compile(SOURCE, ("-DX",), folder) == (BYTECODE, False)
    assert load_or_compile(SOURCE, ("-DX",), folder) == (BYTECODE, True)
    assert compiler.calls == [(SOURCE, ("-DX",))]
    assert only_file(folder).stat().st_mode & 0o777 == 0o644
    assert folder.stat().st_mode & 0o022 == 0


def test_other_flags_are_another_file(compiler: Compiler, folder: Path) -> None:
    assert load_or_compile(SOURCE, ("-DX",), folder) == (BYTECODE, False)
    assert len(list(folder.iterdir())) == 2


def test_key_tells_everything_apart_that_decides_the_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [cache_key(SOURCE, flags) for flags in ((), ("-DA",), ("-DA", "-DB"), ("-DA-DB",))]
    keys.append(cache_key("abi.h", ()))
    monkeypatch.setattr(cache, "bcc_version", lambda: "another")
    keys.append(cache_key(SOURCE, ()))
    monkeypatch.setattr(cache, "ALWAYS", ("-DA",))
    keys.append(cache_key(SOURCE, ()))
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="another"))
    keys.append(cache_key(SOURCE, ()))
    monkeypatch.setattr(cache, "flatten", lambda name: "int another;")
    keys.append(cache_key(SOURCE, ()))
    assert len(set(keys)) == len(keys)
    assert keys[-1] == cache_key(SOURCE, ())


def filled(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def own_type(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """The file replaced by something that is no regular file."""

    def replace(path: Path) -> None:
        path.rename(path.parent.parent / "moved")
        make(path)

    return replace


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(filled(b""), id="an empty file"),
        pytest.param(filled(BYTECODE.to_json().encode()[:-30]), id="a file cut off"),
        pytest.param(filled(b"\xff\xfe\0"), id="octets that are no text"),
        pytest.param(filled(b"{}"), id="an object without anything"),
        pytest.param(filled(b"[" * 100_000), id="more brackets than can be nested"),
        pytest.param(lambda path: path.chmod(0o646), id="a file that everybody may write"),
        pytest.param(lambda path: path.chmod(0o664), id="a file that its group may write"),
        pytest.param(
            own_type(lambda path: path.symlink_to(path.parent.parent / "moved")), id="a symbolic link"
        ),
    ],
)
def test_file_not_to_be_used_is_told_and_made_anew(
    compiler: Compiler, folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], object]
) -> None:
    path = only_file(folder)
    spoil(path)
    with caplog.at_level(logging.WARNING):
        assert load_or_compile(SOURCE, (), folder) == (BYTECODE, False)
    assert f"ignoring {path}" in caplog.text
    assert only_file(folder) == path
    assert not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o644
    caplog.clear()
    assert load_or_compile(SOURCE, (), folder) == (BYTECODE, True)
    assert (len(compiler.calls), caplog.text) == (1, "")


@pytest.mark.parametrize(
    "mode",
    [
        pytest.param(0o777, id="everybody"),
        pytest.param(0o1777, id="everybody, sticky"),
        pytest.param(0o775, id="its group"),
    ],
)
def test_folder_that_others_may_write_is_never_used(
    compiler: Compiler, folder: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    folder.chmod(mode)
    for calls in (1, 2):
        caplog.clear()
        assert load_or_compile(SOURCE, (), folder) == (BYTECODE, False)
        assert len(compiler.calls) == calls
        assert "writable by others" in caplog.text


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_somebody_else_is_not_used(
    compiler: Compiler,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
) -> None:
    if os.geteuid() == 0:
        os.chown(only_file(folder) if what == "file" else folder, 65534, 65534)
    else:  # only root can give files away, so be somebody else instead
        monkeypatch.setattr(os, "geteuid", lambda: 65533)
    assert load_or_compile(SOURCE, (), folder) == (BYTECODE, False)
    assert "ignoring" in caplog.text


def test_folder_that_is_a_link_is_not_used(
    compiler: Compiler, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert load_or_compile(SOURCE, (), link) == (BYTECODE, False)
    assert "ignoring" in caplog.text


def test_what_cannot_be_written_only_costs_time(
    compiler: Compiler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    # Not even root can make these; a folder without the right to write would not stop root.
    for folder in (Path("/proc/ram-ebpf"), tmp_path / "file", tmp_path / "file" / "below"):
        caplog.clear()
        assert load_or_compile(SOURCE, (), folder) == (BYTECODE, False)
        assert f"bytecode is not kept in {folder}" in caplog.text


def test_folder_without_the_right_to_write(compiler: Compiler, tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    assert load_or_compile(SOURCE, (), folder) == (BYTECODE, False)


def test_disk_that_is_full_leaves_nothing_behind(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert load_or_compile(SOURCE, (), tmp_path) == (BYTECODE, False)
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


class SlowCompiler(Compiler):
    """Does not end before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.error: CompileError | None = None

    def result(self) -> Bytecode:
        self.begun.set()
        assert self.may_end.wait(30)
        if self.error is not None:
            raise self.error
        return super().result()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowCompiler:
    compiler = SlowCompiler()
    monkeypatch.setattr(cache, "Compilation", compiler)
    return compiler


def test_what_is_compiled_ahead_is_compiled_once(slow: SlowCompiler, tmp_path: Path) -> None:
    compile_ahead(SOURCE, (), tmp_path)
    assert slow.begun.wait(30)
    compile_ahead(SOURCE, (), tmp_path)
    slow.may_end.set()
    assert load_or_compile(SOURCE, (), tmp_path) == (BYTECODE, False)
    assert load_or_compile(SOURCE, (), tmp_path) == (BYTECODE, True)
    assert slow.calls == [(SOURCE, ())]


def test_what_is_kept_is_not_compiled_ahead(compiler: Compiler, folder: Path) -> None:
    compile_ahead(SOURCE, (), folder)
    assert load_or_compile(SOURCE, (), folder) == (BYTECODE, True)
    assert compiler.calls == []


def test_what_is_kept_but_not_to_be_believed_is_compiled_where_it_is_wanted(
    compiler: Compiler, folder: Path
) -> None:
    only_file(folder).write_bytes(b"{}")
    compile_ahead(SOURCE, (), folder)
    assert load_or_compile(SOURCE, (), folder) == (BYTECODE, False)


def test_what_goes_wrong_ahead_is_raised_where_it_is_wanted_and_tried_again_then(
    slow: SlowCompiler, tmp_path: Path
) -> None:
    slow.error = CompileError("no such compiler")
    slow.may_end.set()
    compile_ahead(SOURCE, (), tmp_path)
    with pytest.raises(CompileError, match="no such compiler"):
        load_or_compile(SOURCE, (), tmp_path)
    slow.error = None
    assert load_or_compile(SOURCE, (), tmp_path) == (BYTECODE, False)
