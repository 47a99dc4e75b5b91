"""What is said of the compiler. That it compiles, and the kernel takes it, is in tests/lab/test_doctor.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ram_ebpf.dataplane.compiler import CompileError, bcc_package, bcc_version, is_binding
from ram_ebpf.doctor import programs
from ram_ebpf.doctor.finding import Status

_ROOT = Path(__file__).resolve().parents[3]
_MISSING_HEADER = """\
In file included from /virtual/main.c:3:
/virtual/main.c:12:10: fatal error: 'linux/ip.h' file not found
#include <linux/ip.h>
         ^~~~~~~~~~~~
1 error generated.
"""


@pytest.fixture
def impostor(tmp_path: Path) -> Path:
    """As PyPI's bcc 0.1.10 is laid out, which computes lattices."""
    package = tmp_path / "bcc"
    package.mkdir()
    (package / "__init__.py").write_text('__version__ = "0.1.10"\nfrom .bcc import *\n')
    (package / "bcc.py").write_text("")
    return package


@pytest.fixture
def genuine(tmp_path: Path) -> Path:
    package = tmp_path / "genuine" / "bcc"
    package.mkdir(parents=True)
    for name in ("__init__.py", "libbcc.py", "table.py"):
        (package / name).write_text("")
    return package


def test_the_binding_is_told_from_the_package_of_its_name(impostor: Path, genuine: Path) -> None:
    assert not is_binding(impostor)
    assert is_binding(genuine)
    installed = bcc_package()
    assert installed is None or is_binding(installed) == bool(bcc_version() not in ("", "unknown"))


def test_the_impostor_is_found_where_python_finds_it(impostor: Path) -> None:
    script = "from ram_ebpf.dataplane.compiler import *; print(bcc_package(), is_binding(bcc_package()))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=_ROOT,
        env={"PYTHONPATH": f"{impostor.parent}:{_ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{impostor} False\n"


def test_impostor(impostor: Path) -> None:
    error = CompileError("cannot import name 'BPF' from 'bcc'")
    found = programs.of_compiler(impostor, "unknown", True, error)
    assert found.status is Status.FAILURE
    assert "is PyPI's bcc, which is no BPF compiler" in found.title
    assert found.cure == "pip uninstall bcc; then install the distribution's python3-bpfcc"
    cached = programs.of_compiler(impostor, "unknown", False, None)
    assert cached.status is Status.WARNING
    assert "lasts until ram-ebpf is updated" in cached.title


def test_no_compiler() -> None:
    assert programs.of_compiler(None, "", True, CompileError("no bcc")).status is Status.FAILURE
    found = programs.of_compiler(None, "", False, None)
    assert found.status is Status.WARNING
    assert "python3-bpfcc" in found.cure
    assert "--system-site-packages" in found.cure


def test_compiler(genuine: Path) -> None:
    assert programs.of_compiler(genuine, "0.26.0", False, None).title == (
        f"bcc 0.26.0 in {genuine}; what is cached needs no compiler"
    )
    assert programs.of_compiler(genuine, "0.26.0", True, None).title.endswith("; compiled anew")


@pytest.mark.parametrize(
    ("words", "shown", "cure"),
    [
        (_MISSING_HEADER, "fatal error: 'linux/ip.h' file not found", "linux-libc-dev, which has linux/ip.h"),
        (
            _MISSING_HEADER.replace("linux/ip.h", "netinet/in.h"),
            "netinet/in.h",
            "libc6-dev, which has netinet",
        ),
        ("Segmentation fault", "Segmentation fault", "of one release"),
        ("", "nothing was said", "of one release"),
        ("x" * 5000, "x" * 200, "of one release"),
    ],
)
def test_what_the_compiler_says(genuine: Path, words: str, shown: str, cure: str) -> None:
    found = programs.of_compiler(genuine, "0.26.0", True, CompileError(words))
    assert found.status is Status.FAILURE
    assert shown in found.title
    assert cure in found.cure
    assert len(found.title) < 400


def test_last_words_of_the_verifier() -> None:
    log = "0: (b7) r0 = 1\nR1 type=ctx expected=fp\nprocessed 7 insns (limit 1000000) max_states_per_insn 0\n"
    assert programs.last_words_of_verifier(log) == "R1 type=ctx expected=fp"
    assert programs.last_words_of_verifier("") == "without a word"
