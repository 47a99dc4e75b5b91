"""The process that reads a policy, as it is."""

from __future__ import annotations

import fcntl
import os
import signal
import termios
import time
from array import array
from pathlib import Path

import pytest

from ram_ebpf.cli.main import main
from ram_ebpf.daemon.authorizing import judged_terms
from ram_ebpf.daemon.reading import PolicyReader, ReaderError, Wanted
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.choices import Mode, Posture
from ram_ebpf.policy.enforced import EnforcedPolicy, EnforcedScope
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.scope_rules import rules_of
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.cgroup import ScopeError

_F_SETPIPE_SZ = 1031  # include/uapi/linux/fcntl.h

POLICY = """\
version: 1
organization: acme
mode: audit
message: Ask.
registries: [ghcr, { host: "*.a.example", ports: [1, 2] }]
denied: [x.a.example]
resolvers: [10.0.0.53, { address: "::1", port: 5353 }]
dns: { grace_seconds: 7 }
docker: { authorization: true }
fail: open
metrics: { socket: /run/m.sock, group: prometheus }
log: { burst: 5 }
export: { syslog: { udp: 10.0.0.9 }, otlp: { endpoint: "http://c.example" } }
control: { group: ops }
scopes:
  - cgroup: /mine
    registries: [quay]
  - engine: docker
    runs: registries
  - host: { registries: [{ host: h.example }] }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def test_what_it_reads_is_what_the_file_says(file: Path) -> None:
    policy = parse_policy(POLICY.encode(), str(file))
    with PolicyReader(Wanted(str(file))) as reader:
        read = reader.read()
        assert read.policy == EnforcedPolicy.of(policy)
        assert (read.policy.mode, read.policy.dns.grace_seconds) == (Mode.AUDIT, 7)
        assert read.policy.source.digest == policy.source.digest
        assert read.encrypted.serves("dns.google")
        for name in ("version", "organization", "mode", "message", "fail", "lease", "file"):
            assert getattr(read.policy, name) == getattr(policy, name)
        for part in ("dns", "connections", "recognition", "docker", "refusals", "control", "log"):
            there = getattr(policy, part)
            assert getattr(read.policy, part)._asdict() == {
                name: getattr(there, name) for name in type(there).model_fields
            }
        assert read.policy.metrics is not None
        assert policy.metrics is not None
        assert (read.policy.metrics.socket_mode, read.policy.metrics.group) == (0o660, "prometheus")
        for sent, written in zip(read.policy.export.all, policy.export.all, strict=True):
            assert (str(sent), sent.protocol) == (str(written), written.protocol)
            assert sent.endpoint == written.endpoint
        assert (read.remarks, read.problem) == ((), None)
        marked = [Terms.of(scope, index) for index, scope in enumerate(read.policy.scopes)]
        terms = [Terms.of(scope, index) for index, scope in enumerate(policy.scopes)]
        made = reader.rules([*marked, *judged_terms(read.policy)])
    for one, other in zip(marked, terms, strict=True):
        assert made[one] == rules_of(policy, load_catalogue(), other)
        assert made[Terms(registries=one.registries)].match("quay.io") == (
            rules_of(policy, load_catalogue(), Terms(registries=other.registries)).match("quay.io")
        )
    assert list(made) == [*marked, *(terms for terms in judged_terms(read.policy) if terms not in marked)]


def test_it_ends(file: Path) -> None:
    """With it goes all that it has taken."""
    with PolicyReader(Wanted(str(file))) as reader:
        reader.read()
        pid = reader._process.pid
        reader.close()
    assert not Path(f"/proc/{pid}").exists()


def test_a_path_from_where_the_caller_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    with PolicyReader(Wanted("policy.yaml")) as reader:
        assert reader.read().policy.file == "policy.yaml"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory is no more."""
    directory = tmp_path / "nowhere"
    directory.mkdir()
    monkeypatch.chdir(directory)
    directory.rmdir()


def test_a_whole_path_from_nowhere(file: Path, nowhere: None) -> None:
    for wanted, organization in ((str(file), "acme"), (None, None)):
        with PolicyReader(Wanted(wanted)) as reader:
            assert reader.read().policy.organization == organization


def test_a_path_from_nowhere(nowhere: None, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        ReaderError, match=r"^policy\.yaml is meant from the working directory, which was rem"
    ):
        Wanted("policy.yaml")
    assert main(["run", "--policy", "policy.yaml"]) == os.EX_CONFIG
    assert capfd.readouterr().err.startswith("ram-ebpf: policy.yaml is meant from the working directory")


def test_a_wrong_policy(file: Path) -> None:
    file.write_text("version: 1\nregistries: [nonsense]\n")
    with PolicyReader(Wanted(str(file))) as reader, pytest.raises(PolicyErrors) as caught:
        reader.read()
    assert str(caught.value).startswith(f"{file}:2: registries[0]: 'nonsense' is not in the catalogue")


def test_the_last_good_policy(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ram_ebpf.daemon import last_good

    state = tmp_path / "state"
    monkeypatch.setenv("RAM_EBPF_STATE", str(state))
    last_good.keep(parse_policy(POLICY.encode(), str(file)), state)
    file.write_text("version: 2\n")
    with PolicyReader(Wanted(str(file), or_last_good=True)) as reader:
        read = reader.read()
    assert read.policy.organization == "acme"
    assert "so the policy that was enforced last is used" in read.remarks[-1]
    with PolicyReader(Wanted(str(file))) as reader, pytest.raises(PolicyErrors):
        reader.read()


def test_the_last_good_policy_first(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at boot, when nobody has looked at the file yet."""
    from ram_ebpf.daemon import last_good

    monkeypatch.setenv("RAM_EBPF_STATE", str(tmp_path / "state"))
    with PolicyReader(Wanted(str(file), last_good_first=True)) as reader:
        assert reader.read().policy.organization == "acme"  # where there is none yet
    last_good.keep(parse_policy(POLICY.encode(), str(file)), tmp_path / "state")
    file.write_text("version: 1\nregistries: [ghcr]\norganization: other\n")
    with PolicyReader(Wanted(str(file), last_good_first=True)) as reader:
        assert reader.read().policy.organization == "acme"
    with PolicyReader(Wanted(str(file), or_last_good=True)) as reader:
        assert reader.read().policy.organization == "other"


def test_scopes_of_the_command_line(file: Path) -> None:
    with PolicyReader(Wanted(str(file), ("host", "cgroup:/a"), Posture.STRICT)) as reader:
        read = reader.read()
    assert read.policy.scopes == (
        EnforcedScope("host", "", Posture.STRICT),
        EnforcedScope("cgroup", "/a", Posture.STRICT),
    )
    with PolicyReader(Wanted(str(file), ("nonsense",))) as reader:
        problem = reader.read().problem
    assert isinstance(problem, ScopeError)
    assert str(problem).startswith("--scope nonsense: ")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_it_is_killed(file: Path, moment: str) -> None:
    with PolicyReader(Wanted(str(file))) as reader:
        if moment == "after":
            reader.read()
        os.kill(reader._process.pid, signal.SIGKILL)
        with pytest.raises(ReaderError, match="ended early, with status -9; start ram-ebpf again"):
            reader.read() if moment == "before" else reader.rules([Terms()])


def test_it_is_killed_amid_an_answer(file: Path) -> None:
    """Of which as much is there as the pipe holds."""
    names = "".join(f"  - host: n{number}.many.test\n" for number in range(2000))
    file.write_text(f"version: 1\nregistries:\n{names}")
    with PolicyReader(Wanted(str(file))) as reader:
        reader.read()
        assert reader._process.stdout is not None
        holds = fcntl.fcntl(reader._process.stdout, _F_SETPIPE_SZ, 4096)  # less than pickle puts together
        reader._send([Terms()])
        deadline = time.monotonic() + 30
        there = array("i", [0])
        while there[0] < holds and time.monotonic() < deadline:
            fcntl.ioctl(reader._process.stdout, termios.FIONREAD, there)
            time.sleep(0.01)
        os.kill(reader._process.pid, signal.SIGKILL)
        with pytest.raises(ReaderError, match="ended early, with status -9"):
            reader._receive()


def test_it_is_gone_when_it_is_asked(file: Path) -> None:
    """What could not be sent is of no interest to who closes it."""
    with PolicyReader(Wanted(str(file))) as reader:
        reader.read()
        os.kill(reader._process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, reader._process.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ReaderError, match="ended early, with status -9"):
            reader.rules([Terms()])


def test_nothing_is_looked_for_where_its_caller_is(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may start the daemon in a directory of somebody else's."""
    (tmp_path / "yaml.py").write_text("raise SystemExit('taken from the working directory')")
    monkeypatch.chdir(tmp_path)
    with PolicyReader(Wanted(str(file))) as reader:
        assert reader.read().policy.organization == "acme"
