"""The verb `run` as far as it goes without a kernel."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.cli import run
from ram_ebpf.cli.main import main
from ram_ebpf.daemon import controller
from ram_ebpf.daemon.policy_process import answers
from ram_ebpf.daemon.reading import Wanted
from ram_ebpf.dataplane import matching
from ram_ebpf.dataplane.cache import DEFAULT_DIRECTORY
from ram_ebpf.dataplane.compiler import CompileError
from ram_ebpf.dataplane.plane import BusyCgroupError
from ram_ebpf.dataplane.syscall import VerifierError
from ram_ebpf.policy.automaton import AutomatonTooLarge
from ram_ebpf.policy.enforced import EnforcedScope, ScopeLike
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.scope import Engine, EngineScope, Posture
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes import cgroup, selection
from ram_ebpf.scopes.selection import Selection
from ram_ebpf.scopes.target import CgroupTarget, Target

NINE_PORTS = """version: 1
registries:
  - ghcr
  - host: ghcr.io
    ports: [1, 2, 3, 4, 5, 6, 7, 8]
"""
NINE_PORTS_IN_A_SCOPE = """version: 1
registries: [ghcr]
scopes:
  - cgroup: /mine
    registries:
      - { host: ghcr.io, ports: [1, 2, 3, 4, 5, 6, 7, 8] }
"""


class FakeController:
    """Stands for the controller: no test here may reach the kernel."""

    made: tuple[Any, ...] = ()
    governed: Sequence[Path] = ()
    at_start: Exception | None = None
    at_run: Exception | None = None

    def __init__(self, *arguments: Any) -> None:
        type(self).made = arguments
        if self.at_start:
            raise self.at_start

    def run(
        self,
        targets: Sequence[Target],
        watches: Sequence[object] = (),
        ports: object = None,
        containers: bool = False,
    ) -> None:
        type(self).governed = [t.directory for t in targets if isinstance(t, CgroupTarget)]
        if self.at_run:
            raise self.at_run


class HereReader:
    """Does what the process does, in this one: to start that for each test would take most of the time."""

    def __init__(self, wanted: Wanted) -> None:
        self._requests: list[object] = [wanted]
        self._answers = answers(iter(self._requests))

    def read(self) -> Any:
        return self._next()

    def rules(self, terms: Iterable[Terms]) -> dict[Terms, RuleSet]:
        wanted = list(dict.fromkeys(terms))
        self._requests.append(pickle.loads(pickle.dumps(wanted)))
        return dict(zip(wanted, self._next(), strict=True))

    def _next(self) -> Any:
        found = pickle.loads(pickle.dumps(next(self._answers)))
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        pass

    def __enter__(self) -> HereReader:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Tried:
    """An attempt that has come to something."""

    matches = True

    def __init__(self, parent: Path) -> None:
        pass

    def sockets_match(self) -> bool:
        return self.matches

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "PolicyReader", HereReader)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeController]:
    kind = type("Fake", (FakeController,), {})
    monkeypatch.setattr(controller, "Controller", kind)
    # Which would try it in this machine's kernel.
    monkeypatch.setattr(matching, "Attempt", Tried)
    monkeypatch.setattr(cgroup, "find_cgroup2_mount", lambda: Path("/sys/fs/cgroup"))
    return kind


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.fixture
def scopes(monkeypatch: pytest.MonkeyPatch) -> list[ScopeLike]:
    """We are root, and each scope leads to one cgroup. What was selected."""
    seen: list[ScopeLike] = []

    def select(
        scopes: Sequence[ScopeLike], cgroup_root: Path | None = None, before: Selection | None = None
    ) -> Selection:
        seen.extend(scopes)
        return Selection(
            [CgroupTarget(Path("/sys/fs/cgroup/docker"))], ["docker (pid 7) in /sys/fs/cgroup/docker"]
        )

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(selection, "select", select)
    return seen


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nregistries: [ghcr]\nscopes: [{cgroup: /mine}]\n")
    return path


# --- before it needs root


@pytest.mark.usefixtures("user")
def test_not_root(policy: Path, capsys: pytest.CaptureFixture[str], fake: type[FakeController]) -> None:
    for arguments in (["run"], ["run", "--policy", str(policy)], ["run", "--scope", "nonsense"]):
        assert main(arguments) == os.EX_NOPERM == 77
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == "ram-ebpf: needs root, to load programs into the kernel: run it with sudo\n"
    assert fake.made == ()


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize(
    "text", ["", "version: 2\nregistries: [ghcr]\n", "version: 1\nregistries: [nonsense]\n", "{", "\0"]
)
def test_a_wrong_policy_comes_first(policy: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(text)
    assert main(["run", "--policy", str(policy)]) == os.EX_CONFIG == 78
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(str(policy))
    assert "needs root" not in shown.err


@pytest.mark.usefixtures("user")
def test_no_policy_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "missing.yaml"
    assert main(["run", "--policy", str(path)]) == os.EX_CONFIG
    assert capsys.readouterr().err == f"{path}: there is no such file, check the path\n"


@pytest.mark.usefixtures("user")
def test_every_error_is_told(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text("version: 1\nregistries: [nonsense, {host: 'a b'}]\nmode: x\n")
    assert main(["run", "--policy", str(policy)]) == os.EX_CONFIG
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.usefixtures("user")
def test_rules_that_cannot_be_made_come_first(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` finds this; it shows only when the catalogue's and the policy's ports come together."""
    policy.write_text(NINE_PORTS)
    assert main(["run", "--policy", str(policy)]) == os.EX_CONFIG
    assert "host ghcr.io has 9 ports" in capsys.readouterr().err


@pytest.mark.usefixtures("user")
def test_rules_of_a_scope_that_cannot_be_made_come_first(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(NINE_PORTS_IN_A_SCOPE)
    assert main(["run", "--policy", str(policy)]) == os.EX_CONFIG
    assert capsys.readouterr().err == (
        f"{policy}:6: scopes[0].registries[0]: host ghcr.io has 9 ports together with ghcr, "
        "a host has at most 8\n"
    )


# --- scopes


@pytest.mark.parametrize("scope", ["nonsense", "engine:lxc", "cgroup:", "unit:docker", ""])
def test_a_wrong_scope(
    scope: str, scopes: list[ScopeLike], capsys: pytest.CaptureFixture[str], fake: type[FakeController]
) -> None:
    assert main(["run", "--scope", "engine:docker", "--scope", scope]) == os.EX_CONFIG
    shown = capsys.readouterr()
    assert shown.err.startswith(f"ram-ebpf: --scope {scope}: ")
    assert shown.err.count("\n") == 1
    assert fake.made == ()


@pytest.mark.parametrize("name", ["missing", "a" * 300, "..", ""])
def test_a_scope_that_is_not_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(cgroup, "find_cgroup2_mount", lambda: tmp_path)
    assert main(["run", "--scope", f"cgroup:/{name}"]) == os.EX_CONFIG
    assert capsys.readouterr().err.startswith(f"ram-ebpf: cgroup /{name}: ")


def test_the_command_lines_scopes_replace_the_policys(policy: Path, scopes: list[ScopeLike]) -> None:
    assert main(["run", "--policy", str(policy), "--scope", "engine:docker", "--scope", "cgroup:x"]) == 0
    assert [(scope.kind, scope.target) for scope in scopes] == [("engine", "docker"), ("cgroup", "x")]


def test_the_policys_scopes(policy: Path, scopes: list[ScopeLike]) -> None:
    assert main(["run", "--policy", str(policy)]) == 0
    assert [(scope.kind, scope.target) for scope in scopes] == [("cgroup", "/mine")]


def test_the_default_scopes(scopes: list[ScopeLike]) -> None:
    assert main(["run"]) == 0
    assert scopes == [EnforcedScope.of(EngineScope(engine=Engine.ALL))]


# --- posture and host


@pytest.mark.parametrize("posture", [None, *Posture])
def test_posture_of_the_command_lines_scopes(
    policy: Path, scopes: list[ScopeLike], posture: Posture | None
) -> None:
    options = [] if posture is None else ["--posture", posture.value]
    chosen = ["--scope", "engine:docker", "--scope", "host", "--scope", "unit:a.service"]
    assert main(["run", "--policy", str(policy), *chosen, *options]) == 0
    usual = [Posture.STRICT, Posture.REGISTRIES, Posture.STRICT]
    assert [scope.posture for scope in scopes] == (usual if posture is None else [posture] * 3)
    assert [scope.kind for scope in scopes] == ["engine", "host", "unit"]


def test_posture_of_no_scope(
    policy: Path, scopes: list[ScopeLike], capsys: pytest.CaptureFixture[str], fake: type[FakeController]
) -> None:
    """Those of the policy have theirs there."""
    assert main(["run", "--policy", str(policy), "--posture", "registries"]) == os.EX_USAGE == 64
    assert capsys.readouterr().err == (
        "ram-ebpf: --posture is for the scopes of the command line; name one with --scope\n"
    )
    assert fake.made == ()


def test_no_such_posture(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--scope", "host", "--posture", "lax"])
    assert caught.value.code == 2
    assert "'strict', 'registries'" in capsys.readouterr().err


@pytest.mark.parametrize("given", [False, True])
def test_what_stands_for_the_host(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scopes: list[ScopeLike]
) -> None:
    seen: list[Path | None] = []

    def select(
        _: Sequence[ScopeLike], cgroup_root: Path | None = None, before: Selection | None = None
    ) -> Selection:
        seen.append(cgroup_root)
        return Selection([CgroupTarget(Path("/sys/fs/cgroup/docker"))])

    monkeypatch.setattr(selection, "select", select)
    (tmp_path / "cgroup.procs").touch()
    monkeypatch.chdir(tmp_path)
    options = ["--cgroup-root", "."] if given else []
    assert main(["run", "--scope", "host", *options]) == 0
    assert seen == [tmp_path if given else None]


def test_what_cannot_stand_for_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["run", "--scope", "host", "--cgroup-root", str(tmp_path)]) == os.EX_CONFIG
    assert f"--cgroup-root {tmp_path}: is no cgroup2 directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "kinds"),
    [
        (["engine:docker", "device:eth0"], ["host", "device"]),
        (["builders:buildx"], ["host", "builders"]),
    ],
)
def test_kernel_that_takes_all_sockets_for_the_roots(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scopes: list[ScopeLike],
    named: list[str],
    kinds: list[str],
) -> None:
    monkeypatch.setattr(Tried, "matches", False)
    assert main(["run", *(word for scope in named for word in ("--scope", scope))]) == 0
    assert [scope.kind for scope in scopes] == kinds
    assert scopes[0].posture is Posture.REGISTRIES
    said = capsys.readouterr().err
    assert "net_cls or net_prio (cgroup version 1) is in use" in said
    assert "cgroup_no_v1=net_cls,net_prio" in said


def test_the_host_for_real(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fake: type[FakeController],
) -> None:
    """As far as it goes without a kernel: the target, and the rules that it has."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "cgroup.procs").touch()
    assert main(["run", "--scope", "host", "--cgroup-root", str(tmp_path)]) == 0
    assert fake.governed == [tmp_path]
    assert capsys.readouterr().err == f"ram-ebpf: host: {tmp_path}\n"
    ((terms, rules),) = fake.made[1].items()
    assert terms == Terms(Posture.REGISTRIES)
    rule = rules.match("quay.io")
    assert (rule.deny, rule.known) == (True, True)
    assert rules.allows("registry-1.docker.io") is not None


WITH_SCOPES = """version: 1
registries: [ghcr]
scopes:
  - host: {}
  - cgroup: /mine
    registries: [quay]
  - cgroup: /other
  - unit: a.service
    posture: registries
"""


def test_rules_for_each_of_the_terms(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: type[FakeController]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in (".", "mine", "other"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "cgroup.procs").touch()
    monkeypatch.setattr(cgroup, "find_cgroup2_mount", lambda: tmp_path)
    monkeypatch.setattr(selection, "find_cgroup2_mount", lambda: tmp_path)
    policy.write_text(WITH_SCOPES)
    assert main(["run", "--policy", str(policy)]) == 0
    host, mine, other = fake.made[1].items()  # that of the unit is that of the host
    assert [terms.posture for terms, _ in (host, mine, other)] == [
        Posture.REGISTRIES,
        Posture.STRICT,
        Posture.STRICT,
    ]
    said = [rules.match("quay.io") for _, rules in (host, mine, other)]
    assert said[0] is not None
    assert said[0].known
    assert said[1] is not None
    assert (said[1].deny, said[1].origin) == (False, "quay")
    assert said[2] is None


# --- what there is to govern


def test_nothing_to_govern(
    scopes: list[ScopeLike],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fake: type[FakeController],
) -> None:
    monkeypatch.setattr(selection, "select", lambda *_: Selection([], ["no docker is running here"]))
    assert main(["run"]) == os.EX_UNAVAILABLE == 69
    assert capsys.readouterr().err == (
        "ram-ebpf: no docker is running here\n"
        "ram-ebpf: there is nothing to govern; name a scope with --scope cgroup:PATH\n"
    )
    assert fake.made == ()


# --- what comes of it


def test_success(
    scopes: list[ScopeLike], capsys: pytest.CaptureFixture[str], fake: type[FakeController]
) -> None:
    assert main(["run"]) == 0
    assert fake.governed == [Path("/sys/fs/cgroup/docker")]
    shown = capsys.readouterr()
    assert shown.out == ""  # that is the log's
    assert shown.err == "ram-ebpf: docker (pid 7) in /sys/fs/cgroup/docker\n"


def test_options(scopes: list[ScopeLike], tmp_path: Path, fake: type[FakeController]) -> None:
    assert main(["run"]) == 0
    assert fake.made[3] == controller.Options(False, DEFAULT_DIRECTORY)
    assert main(["run", "--log-dns", "--cache", str(tmp_path)]) == 0
    assert fake.made[3] == controller.Options(True, tmp_path)


@pytest.mark.parametrize(("log_format", "start"), [("text", "2"), ("json", "{")])
def test_log_formats(
    log_format: str,
    start: str,
    scopes: list[ScopeLike],
    capsys: pytest.CaptureFixture[str],
    fake: type[FakeController],
) -> None:
    assert main(["run", "--log-format", log_format]) == 0
    fake.made[2].write({"event": "x"})
    assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (BusyCgroupError("/x is already governed"), os.EX_TEMPFAIL, "ram-ebpf: /x is already governed"),
        (
            VerifierError(OSError(errno.EACCES, "Permission denied"), "egress", "R1 is not a pointer"),
            os.EX_SOFTWARE,
            "ram-ebpf: the kernel refused program egress: Permission denied\nR1 is not a pointer",
        ),
        (AutomatonTooLarge("too many, use fewer"), os.EX_CONFIG, "ram-ebpf: too many, use fewer"),
        (OSError(errno.EPERM, "map names: no"), os.EX_SOFTWARE, "map names: no"),
        (CompileError("no compiler"), os.EX_SOFTWARE, "ram-ebpf: no compiler"),
    ],
)
@pytest.mark.parametrize("moment", ["at_start", "at_run"])
def test_failures(
    moment: str,
    error: Exception,
    status: int,
    text: str,
    scopes: list[ScopeLike],
    capsys: pytest.CaptureFixture[str],
    fake: type[FakeController],
) -> None:
    setattr(fake, moment, error)
    assert main(["run"]) == status
    shown = capsys.readouterr()
    assert text in shown.err
    assert shown.out == ""


def test_a_start_without_descriptors() -> None:
    """Modules are read by one at a time, and a process with two pipes takes more."""
    shell = ["sh", "-c", 'ulimit -n 6; exec "$@"', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-m", "ram_ebpf", "run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == os.EX_OSERR
    assert done.stderr.startswith("ram-ebpf: no process can be started that reads the policy: [Errno 24] ")
    assert "LimitNOFILE" in done.stderr
    assert "Traceback" not in done.stderr
