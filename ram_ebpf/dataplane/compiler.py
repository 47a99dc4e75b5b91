"""Compiles the C sources with bcc: the only module that imports it, and only in a child process.

bcc keeps an LLVM of more than 100 MB in the process, so `compile_source` starts this module as a program;
the child writes bytecode to its standard output and ends. It has no network and few capabilities, ends with
its parent at the latest, and is not waited for for ever. There may be two of it, each with half of the
programs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ram_ebpf import own_process
from ram_ebpf.capabilities import Capability, keep_only
from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.bytecode import Bytecode, MapShape, Program
from ram_ebpf.dataplane.namespaces import CLONE_NEWNET
from ram_ebpf.dataplane.source import flatten, source_directory

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

PATIENCE = 120.0  # seconds; it takes half a second, and half a minute on an emulated processor


class CompileError(RuntimeError):
    """The C sources could not be compiled; the text is the compiler's."""


def _system_includes() -> list[str]:
    """Where the C library's copies of the UAPI headers are."""
    flags = ["-isystem", "/usr/include"]
    triplet = f"/usr/include/{platform.machine()}-linux-gnu"
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


def compile_source(name: str, flags: Sequence[str]) -> Bytecode:
    """Compiles bpf/`name` in child processes, for PATIENCE seconds at most. Raises CompileError.

    In two halves (bpf/lib/halves.h) where there is more than one processor.
    """
    halves = [()] if len(os.sched_getaffinity(0)) < 2 else [("-DRAM_HALF=1",), ("-DRAM_HALF=2",)]
    with ThreadPoolExecutor(len(halves)) as pool:
        made = list(pool.map(lambda half: _compile_in_child(name, (*flags, *half)), halves))
    return Bytecode(
        {function: program for one in made for function, program in one.programs.items()},
        {table: shape for one in made for table, shape in one.maps.items()},
    )


def _compile_in_child(name: str, flags: Sequence[str]) -> Bytecode:
    try:
        result = subprocess.run(
            own_process.command("ram_ebpf.dataplane.compiler", name, *(f"--flag={flag}" for flag in flags)),
            cwd=own_process.DIRECTORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=own_process.environment(),
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise CompileError(
            f"the compiler of bpf/{name} did not end within {PATIENCE:.0f} seconds and was killed: "
            "start again when this machine is less busy; if that does not help, install python3-bpfcc anew"
        ) from error
    if result.returncode != 0:
        raise CompileError(result.stderr.strip() or f"the compiler ended with status {result.returncode}")
    return Bytecode.from_json(result.stdout)


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
    keep_only(_KEPT)


def _compile_here(name: str, flags: Sequence[str]) -> Bytecode:
    try:
        # bcc reads this when it is loaded: our header tree stands in for the kernel's.
        os.environ["BCC_KERNEL_SOURCE"] = str(source_directory())
        from bcc import BPF, lib
    except ImportError as error:
        raise CompileError(f"{_MISSING_BCC} ({error})") from error
    # The bindings declare no result type for this one in any version.
    lib.bpf_table_name.restype = ctypes.c_char_p
    lib.bpf_table_name.argtypes = [ctypes.c_void_p, ctypes.c_ulonglong]
    module = BPF(text=flatten(name).encode(), cflags=[*_system_includes(), *flags, *ALWAYS])
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


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ram_ebpf.dataplane.compiler")
    parser.add_argument("name")
    parser.add_argument("--flag", action="append", default=[])
    arguments = parser.parse_args()
    # Whatever bcc prints must not end up in the bytecode.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            _give_up_rights()
            bytecode = _compile_here(arguments.name, arguments.flag)
        except (CompileError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
        except Exception as error:  # bcc raises nothing more exact
            print(f"{error} (bcc {bcc_version()})", file=sys.stderr)
            return 1
    sys.stdout.write(bytecode.to_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(_main())
