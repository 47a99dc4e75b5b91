"""What a verb brings into memory: the daemon keeps all of it for as long as it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "OpenSSL",
    "bcc",
    "cryptography",
    "docker",
    "google.protobuf",
    "grpc",
    "http.client",
    "http.server",
    "pydantic",
    "pyroute2",
    "requests",
    "scapy",
    "yaml",
)
DAEMON = (
    "ram_ebpf.cli.run",
    "ram_ebpf.daemon.controller",
    "ram_ebpf.daemon.responding",
    "ram_ebpf.scopes.selection",
)


def said(code: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", DAEMON)
def test_the_daemon_brings_in_nothing_heavy(module: str) -> None:
    """Each of these is imported where it is used, and by whom it is needed (docs/architecture.md)."""
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    assert said(code) == ""


def test_a_verb_brings_in_no_other_one() -> None:
    code = (
        "import sys\n"
        "from ram_ebpf.cli.main import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted(name for name in sys.modules if name.startswith('ram_ebpf.cli.')))"
    )
    assert said(code).splitlines()[-1] == "ram_ebpf.cli.main ram_ebpf.cli.run"


@pytest.mark.parametrize("words", [[], ["--help"], ["nonsense"], ["--version"]])
def test_without_a_verb_all_are_known(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from ram_ebpf.cli.main import main

    with pytest.raises(SystemExit):
        main(words)
    shown = capsys.readouterr()
    if words == ["--help"]:
        for verb in ("run", "check", "reload", "status", "explain", "events", "doctor", "detach", "ca"):
            assert f"\n    {verb} " in shown.out


def test_rules_lie_in_a_row() -> None:
    """100 000 of them took 60 MB as objects. Measured with tracemalloc, which sees what Python allocates."""
    code = (
        "import tracemalloc\n"
        "from ram_ebpf.policy.names import HostPattern\n"
        "from ram_ebpf.policy.ruleset import NameRule, NameRules\n"
        "def rules():\n"
        "    for n in range(1, 20_001):\n"
        "        pattern = HostPattern.parse(f'*.team{n:06}.site{n % 100:03}.registry.example.com')\n"
        "        yield NameRule(pattern, (443,), f'policy.yaml:{n}', False, False, n)\n"
        "tracemalloc.start()\n"
        "kept = NameRules(rules())\n"
        "print(tracemalloc.get_traced_memory()[0] / len(kept))"
    )
    assert float(said(code)) < 100  # bytes a rule: 43 are its pattern's
