"""The compiler, what it makes, and whether this kernel takes the real programs. None is attached."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import cache as bytecode_cache
from ram_ebpf.dataplane import compiler, features
from ram_ebpf.dataplane.compiler import CompileError
from ram_ebpf.dataplane.devices import BEHIND
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.programs import BEGINNING_PROGRAMS, CGROUP_PROGRAMS, DEVICE_PROGRAMS, PROGRAM_SETS
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.syscall import VerifierError
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.policy.loader import default_policy
from ram_ebpf.policy.rules import RuleSet, compile_rules

# By what is missing when the file is; the compiler's own words name it.
_HEADERS = {"linux/": "linux-libc-dev", "asm/": "linux-libc-dev", "": "libc6-dev"}
_SHOWN = 200  # characters of a compiler's or a verifier's last words


@dataclass
class _Compiled:
    """`directory`: a cache that has everything, unless there is an error. `again`: it had to be compiled."""

    directory: Path
    again: bool = False
    error: CompileError | None = None


def examine(case: Case) -> Iterator[Finding]:
    """Compiles where nothing is cached, and loads. For root, as what is compiled depends on the kernel."""
    package = compiler.bcc_package()
    with tempfile.TemporaryDirectory(prefix="ram-ebpf-doctor-") as scratch:
        compiled = _compile(Path(scratch))
        yield of_compiler(package, compiler.bcc_version(), compiled.again, compiled.error)
        if compiled.error is None:
            rules = next(iter(case.rules.values()), None) or compile_rules(default_policy(), case.catalogue)
            yield _load(rules, compiled.directory)


def _compile(scratch: Path) -> _Compiled:
    """Into a directory of its own, as long as the cache lacks anything."""
    flags = features.compiler_flags()
    if all(bytecode_cache.read_cached(programs.source, flags) is not None for programs in PROGRAM_SETS):
        return _Compiled(bytecode_cache.DEFAULT_DIRECTORY)
    try:
        for programs in PROGRAM_SETS:
            bytecode_cache.load_or_compile(programs.source, flags, scratch)
    except CompileError as error:
        return _Compiled(scratch, True, error)
    return _Compiled(scratch, True)


def of_compiler(package: Path | None, version: str, again: bool, error: CompileError | None) -> Finding:
    """`package`: what `import bcc` finds; `again`: whether it was asked to compile, and the error then."""
    title, cure = _binding(package, version)
    if error is not None:
        if not cure:
            cure = _cure_of(str(error))
        return failure(Check.COMPILER, f"{title}; compiling fails: {_last_words(str(error))}", cure)
    if cure:
        return warning(Check.COMPILER, f"{title}; what is cached lasts until ram-ebpf is updated", cure)
    return well(
        Check.COMPILER, f"{title}; {'compiled anew' if again else 'what is cached needs no compiler'}"
    )


def _binding(package: Path | None, version: str) -> tuple[str, str]:
    """What is installed, and the cure if that is not the compiler's binding."""
    install = "install the distribution's python3-bpfcc"
    if package is None:
        return "there is no BPF compiler", (
            f"{install}, and run ram-ebpf with the system's Python or a virtual environment made with "
            "--system-site-packages"
        )
    if not compiler.is_binding(package):
        return (
            f"{package} is PyPI's bcc, which is no BPF compiler",
            f"pip uninstall bcc; then {install}",
        )
    return f"bcc {version} in {package}", ""


def _cure_of(words: str) -> str:
    for line in words.splitlines():
        _, found, rest = line.partition("fatal error: '")
        if found and "file not found" in rest:
            name = rest.partition("'")[0]
            package = next(package for start, package in _HEADERS.items() if name.startswith(start))
            return f"install the distribution's {package}, which has {name}"
    return "install linux-libc-dev, libc6-dev and python3-bpfcc of one release of the distribution"


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = next((line for line in lines if "error:" in line), lines[-1] if lines else "nothing was said")
    return line[:_SHOWN]


def _load(rules: RuleSet, directory: Path) -> Finding:
    """All programs of control groups and devices, with the maps that they take."""
    try:
        with contextlib.closing(Plane(rules, Settings(), (), directory)) as plane:
            scope = plane.open_scope()
            scope.programs_at(0)
            scope.programs_for(BEHIND)
            plane.views[0].load_for_known().close()
    except VerifierError as error:
        return failure(
            Check.PROGRAMS,
            f"{error.strerror}: {last_words_of_verifier(error.log)}",
            "update the kernel; else report it, with `uname -r` and what ram-ebpf run prints",
        )
    except OSError as error:
        return failure(
            Check.PROGRAMS,
            f"the programs cannot be loaded: {error.strerror}",
            "see what the checks before it say of the kernel",
        )
    kinds = ((CGROUP_PROGRAMS, BEGINNING_PROGRAMS), (DEVICE_PROGRAMS,))
    counts = [sum(1 for programs in kind for _ in programs.hooks()) for kind in kinds]
    return well(
        Check.PROGRAMS,
        f"the kernel takes all programs: {counts[0]} of control groups, {counts[1]} of devices",
    )


def last_words_of_verifier(log: str) -> str:
    """Behind the last line comes only how much was looked at."""
    lines = [
        line for line in log.splitlines() if line and not line.startswith(("processed ", "verification "))
    ]
    return lines[-1][:_SHOWN] if lines else "without a word"
