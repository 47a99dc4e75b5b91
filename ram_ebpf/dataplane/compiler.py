"""Compiles the C sources with bcc: the only module that imports it, and only in a child process.

bcc keeps an LLVM of more than 100 MB in the process, so `Compilation` starts this module as a program; the
child writes bytecode to its standard output and ends. It has no network and few capabilities, ends with its
parent at the latest, and is not waited for for ever. Where there are processors for it, a copy of it makes
half of the programs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ram_ebpf import own_process
from ram_ebpf.capabilities import Capability, keep_only
from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.bytecode import Bytecode, MapShape, Program
from ram_ebpf.dataplane.namespaces import CLONE_NEWNET
from ram_ebpf.dataplane.source import flatten, source_directory, without_comments

_MISSING_BCC = (
    "the BPF compiler binding is missing: install the distribution's package python3-bpfcc, and run ram-ebpf "
    "with the system's Python or a virtual environment made with --system-site-packages "
    "(the package 'bcc' on PyPI is something else)"
)


ALWAYS = ("-g0", "-Xclang", "-disable-llvm-passes")
"""Flags of every compilation. bcc asks for debugging information, which is not in what is dumped, and has
LLVM optimise what clang has had it optimise already: without both it takes half the time."""

_KEPT = (Capability.BPF, Capability.SYS_ADMIN, Capability.SYS_RESOURCE, Capability.DAC_READ_SEARCH)
"""bcc makes maps (before Linux 5.8 with the second, before 5.11 within a limit that it raises), and a
checkout may be in a directory of another user."""

# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000

PATIENCE = 120.0  # seconds; it takes half a second, and half a minute on an emulated processor


class CompileError(RuntimeError):
    """The C sources could not be compiled; the text is the compiler's."""


def _system_includes() -> list[str]:
    """Where the C library's copies of the UAPI headers are."""
    flags = ["-isystem", "/usr/include"]
    triplet = f"/usr/include/{os.uname().machine}-linux-gnu"
    if Path(triplet).is_dir():
        flags += ["-isystem", triplet]
    return flags


def bcc_package() -> Path | None:
    """The directory of what `import bcc` would load, without loading it; None when there is nothing."""
    import importlib.util

    spec = importlib.util.find_spec("bcc")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def is_binding(package: Path) -> bool:
    """Whether a package `bcc` is the compiler's binding: PyPI has something else of that name."""
    return (package / "libbcc.py").is_file()


def bcc_version() -> str:
    """The version of the installed binding, found without loading it; '' when it is not there."""
    package = bcc_package()
    if package is None:
        return ""
    version_file = package / "version.py"
    try:
        text = version_file.read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"
    written = re.fullmatch(r"__version__ = '([^']+)'", text)
    return written[1] if written else text


class Compilation:
    """Of bpf/`name`, in a child process of the thread that makes this; the child ends when that does.

    It shares the work with a second one where there is more than one processor (bpf/lib/halves.h).
    """

    def __init__(self, name: str, flags: Sequence[str]) -> None:
        """Begins. Raises OSError."""
        self._name = name
        words = [name, *(f"--flag={flag}" for flag in flags)]
        if len(os.sched_getaffinity(0)) > 1:
            words.append("--halves")
        self._child = subprocess.Popen(
            own_process.command("ram_ebpf.dataplane.compiler", *words),
            cwd=own_process.DIRECTORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=own_process.environment(),
        )

    def result(self) -> Bytecode:
        """Waits, for PATIENCE seconds at most. Raises CompileError."""
        try:
            with self._child:
                try:
                    out, said = self._child.communicate(timeout=PATIENCE)
                except BaseException:
                    self._child.kill()
                    raise
        except subprocess.TimeoutExpired as error:
            raise CompileError(
                f"the compiler of bpf/{self._name} did not end within {PATIENCE:.0f} seconds and was killed: "
                "start again when this machine is less busy; if that does not help, install python3-bpfcc "
                "anew"
            ) from error
        status = self._child.returncode
        if status != 0:
            raise CompileError(said.strip() or f"the compiler ended with status {status}")
        return Bytecode.from_json(out)


def _give_up_rights() -> None:
    """From now on this process has no network and few capabilities, and ends when its parent does.

    Without CAP_SYSLOG the kernel's symbols have no addresses, and bcc does not keep all of them, which takes
    a sixth of its time and is for other programs than these. Raises CompileError or OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    own_process.end_with_parent()
    if libc.unshare(CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise CompileError(f"the compiler is not run, as its network cannot be taken away: unshare: {reason}")
    _hide_symbols(libc)
    keep_only(_KEPT)


def _hide_symbols(libc: ctypes.CDLL) -> None:
    """Whatever it compiles, bcc reads all of the kernel's symbols, which takes a tenth of a second.

    Where this process may have mounts of its own it finds none. Elsewhere it only takes longer.
    """
    if libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0:
        libc.mount(b"/dev/null", b"/proc/kallsyms", None, _MS_BIND, None)


def _load_binding() -> None:
    try:
        # bcc reads this when it is loaded: our header tree stands in for the kernel's.
        os.environ["BCC_KERNEL_SOURCE"] = str(source_directory())
        from bcc import lib
    except ImportError as error:
        raise CompileError(f"{_MISSING_BCC} ({error})") from error
    # The bindings declare no result type for this one in any version.
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]


def _compile_here(name: str, flags: Sequence[str]) -> Bytecode:
    from bcc import BPF, lib

    text = without_comments(flatten(name))
    module = BPF(text=text.encode(), cflags=[*_system_includes(), *flags, *ALWAYS])
    name_of_fd: dict[int, str] = {}
    maps: dict[str, MapShape] = {}
    for index in range(lib.bpf_num_tables(module.module)):
        table = lib.bpf_table_name(module.module, index).decode()
        fd = lib.bpf_table_fd_id(module.module, index)
        info = syscall.map_info(fd)
        name_of_fd[fd] = table
        maps[table] = MapShape(info.type, info.key_size, info.value_size, info.max_entries, info.flags)
    programs = {}
    for index in range(lib.bpf_num_functions(module.module)):
        function = lib.bpf_function_name(module.module, index)
        programs[function.decode()] = Program.from_dump(module.dump_func(function), name_of_fd)
    return Bytecode(programs, maps)


def _print(name: str, flags: Sequence[str]) -> int:
    """What _compile_here() comes to; the exit status."""
    # Whatever bcc prints must not end up in the bytecode.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            bytecode = _compile_here(name, flags)
        except OSError as error:
            print(error, file=sys.stderr)
            return 1
        except Exception as error:  # bcc raises nothing more exact
            print(f"{error} (bcc {bcc_version()})", file=sys.stderr)
            return 1
    sys.stdout.write(bytecode.to_json())
    return 0


class _OtherHalf:
    """A copy of this process, which has loaded the binding already, that makes one half."""

    def __init__(self, name: str, flags: Sequence[str]) -> None:
        self._out, self._said = os.memfd_create("bytecode"), os.memfd_create("said")
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                own_process.end_with_parent()
                os.dup2(self._out, 1)
                os.dup2(self._said, 2)
                status = _print(name, flags) if os.getppid() == parent else 1
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def finish(self) -> tuple[int, str, str]:
        """Waits: the exit status, the bytecode, and what was said."""
        _, ended = os.waitpid(self._pid, 0)
        texts = []
        for fd in (self._out, self._said):
            with open(fd, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a descriptor
                file.seek(0)
                texts.append(file.read())
        return os.waitstatus_to_exitcode(ended), texts[0], texts[1]


def _print_halves(name: str, flags: Sequence[str]) -> int:
    try:
        other = _OtherHalf(name, [*flags, "-DRAM_HALF=2"])
    except OSError:  # no process more can be started
        return _print(name, flags)
    with contextlib.redirect_stdout(io.StringIO()) as mine:
        status = _print(name, [*flags, "-DRAM_HALF=1"])
    other_status, out, said = other.finish()
    if status != 0:
        return status  # the other one will have said the same
    if other_status != 0:
        print(said.strip() or f"half of the compiler ended with status {other_status}", file=sys.stderr)
        return 1
    halves = [Bytecode.from_json(text) for text in (mine.getvalue(), out)]
    whole = Bytecode(
        {function: program for half in halves for function, program in half.programs.items()},
        {table: shape for half in halves for table, shape in half.maps.items()},
    )
    sys.stdout.write(whole.to_json())
    return 0


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ram_ebpf.dataplane.compiler")
    parser.add_argument("name")
    parser.add_argument("--flag", action="append", default=[])
    parser.add_argument("--halves", action="store_true", help="by two processes")
    arguments = parser.parse_args()
    gc.disable()  # nothing is made here that is not wanted until it ends
    try:
        _give_up_rights()
        _load_binding()
    except (CompileError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return (_print_halves if arguments.halves else _print)(arguments.name, arguments.flag)


if __name__ == "__main__":
    ended = _main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ended)  # to give back all that a compiler has taken, piece by piece, takes longer than to end
