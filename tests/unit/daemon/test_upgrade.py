"""A policy that is read after the files of ram-ebpf have changed."""

from __future__ import annotations

import os
import pickle
import pickletools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ram_ebpf
from ram_ebpf.daemon import upgrade
from ram_ebpf.daemon.policy_process import answers
from ram_ebpf.daemon.reading import Wanted
from ram_ebpf.policy.choices import Posture
from ram_ebpf.policy.terms import Terms

from .test_reading import POLICY

PACKAGE = Path(ram_ebpf.__file__).parent
READ_TWICE = """\
import pathlib, sys
from ram_ebpf.daemon.reading import PolicyReader, ReaderError, Wanted

with PolicyReader(Wanted(None)) as reader:
    print(reader.read().policy.version)
path, before, after = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
text = path.read_text()
assert before in text
path.write_text(text.replace(before, after))
try:
    with PolicyReader(Wanted(None)) as reader:
        print(reader.read().policy.version)
except ReaderError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "before", "after", "is_upgrade"),
    [
        pytest.param(
            "policy/enforced.py", "    lease: int | None\n", "    mine: int | None\n", True, id="data"
        ),
        pytest.param("daemon/reading.py", "or_last_good: bool", "or_other: bool", True, id="a request"),
        pytest.param("daemon/policy_process.py", "import", "nonsense", True, id="a process that fails"),
        pytest.param("cli/top.py", "import", "nonsense", False, id="what has no part in it"),
    ],
)
def test_files_that_change(tmp_path: Path, name: str, before: str, after: str, is_upgrade: bool) -> None:
    copy = tmp_path / "ram_ebpf"
    shutil.copytree(PACKAGE, copy)
    done = subprocess.run(
        [sys.executable, "-c", READ_TWICE, str(copy / name), before, after],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    first, second = done.stdout.splitlines()
    assert first == "1"
    if is_upgrade:
        assert second.startswith("ram-ebpf was upgraded since this instance was started, ")
        assert "restart it" in second
    else:
        assert second == "1"


def test_whatever_is_exchanged_counts(tmp_path: Path) -> None:
    """Each class of ours in what is sent is of a file that is looked at."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 2\n")
    wanted = Wanted(str(file), ("nonsense",), Posture.STRICT)
    requests = [wanted, [Terms()]]
    sent = [*requests, *answers(iter(requests)), *answers(iter([Wanted(str(wrong))]))]
    modules: set[str] = set()
    for each in sent:
        # In protocol 0 the names of a class are one argument.
        for _, argument, _ in pickletools.genops(pickle.dumps(each, 0)):
            if isinstance(argument, str) and argument.startswith("ram_ebpf."):
                modules.add(argument.split()[0])
    assert {"ram_ebpf.policy.enforced", "ram_ebpf.policy.ruleset", "ram_ebpf.policy.errors"} < modules
    looked_at = {path.relative_to(PACKAGE.parent) for path in upgrade.files()}
    assert {Path(*module.split(".")).with_suffix(".py") for module in modules} <= looked_at
    assert all(path.is_file() for path in upgrade.files())
