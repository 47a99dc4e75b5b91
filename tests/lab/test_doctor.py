"""`ram-ebpf doctor` on a host that is well, and on one where something is wrong.

It runs in the lab's network, with the lab's resolver and BPF file system, and a control group of the lab for
the whole host.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.dataplane import cgroups as attaching
from ram_ebpf.dataplane import features, syscall
from ram_ebpf.dataplane.programs import PROGRAM_SETS
from ram_ebpf.dataplane.syscall import AttachType, ProgramType
from tests.adversarial.field import ScopedDaemon, governed

from . import cgroups, topology
from .daemon import COMMAND
from .docker import Docker
from .docker_authorization import SETTINGS
from .docker_daemon import governed as on_docker
from .lab import Lab
from .processes import Finished

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]

_ROOT = Path(__file__).parents[2]
_PATIENCE = 300.0  # seconds; it may have to compile, and a guest is slow
POLICY = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
resolvers: [{Lab.resolver}]
"""
# Of what the machine is like nothing can be known here.
_OF_THE_MACHINE = frozenset(
    {
        *("python", "connect-hooks", "boot-clock", "jit", "clock", "socket-end", "policy-file"),
        *("name-service", "surroundings", "leftovers"),
    }
)


@pytest.fixture(scope="module")
def root(lab: Lab) -> Path:
    """What stands for the whole host."""
    directory = lab.new_cgroup("doctor")
    (directory / "engine").mkdir()
    return directory


class Doctor:
    """Runs it in the lab, and keeps what it has found."""

    def __init__(self, lab: Lab, root: Path, directory: Path) -> None:
        self._lab, self._root, self._directory = lab, root, directory

    def command(self, policy: str, *options: str) -> list[str]:
        """Its command line."""
        file = self._directory / "policy.yaml"
        if not file.exists() or file.read_text(encoding="utf-8") != policy:  # a daemon may watch it
            file.write_text(policy, encoding="utf-8")
        return [*COMMAND, "doctor", "--policy", str(file), "--cgroup-root", str(self._root), *options]

    def run(self, policy: str, *options: str, **place: Any) -> Finished:
        """Without looking at what it says."""
        command = self.command(policy, *options)
        # Outside the client's control group, which a daemon of the lab may govern.
        return self._lab.client.run(
            command, cwd=_ROOT, cgroup=self._lab.client.services, timeout=_PATIENCE, **place
        )

    def findings(self, policy: str, **place: Any) -> Findings:
        """What it finds."""
        return Findings(self.run(policy, "--json", **place))


class Findings:
    """Of one run."""

    def __init__(self, finished: Finished) -> None:
        assert finished.returncode in (0, 1), finished.stderr
        self.report = json.loads(finished.stdout)
        self.failed = finished.returncode == 1

    def of(self, check: str, subject: str | None = None) -> list[dict[str, Any]]:
        """Those of one check, and if wanted about one thing."""
        return [
            item
            for item in self.report["findings"]
            if item["check"] == check and subject in (None, item["subject"])
        ]

    def only(self, check: str, subject: str | None = None) -> dict[str, Any]:
        """The only one of that."""
        (found,) = self.of(check, subject)
        return found


@pytest.fixture
def doctor(lab: Lab, root: Path, tmp_path: Path) -> Doctor:
    return Doctor(lab, root, tmp_path)


def scoped(root: Path, *more: str) -> str:
    """A policy with a scope in the lab."""
    return "\n".join([f"{POLICY}scopes:", f"  - cgroup: {root / 'engine'}", *more, ""])


@dataclass(frozen=True)
class Traces:
    """What a run might leave on the host. Others may be at work on what is `shared`."""

    own: set[str]
    shared: set[str | int]


def traces(root: Path) -> Traces:
    """Control groups, and programs that are attached somewhere."""
    tried = cgroups.mount_point().glob("ram-ebpf-try-*")
    return Traces(
        {str(path) for path in root.rglob("*") if path.is_dir()}, {*(str(path) for path in tried), *probes()}
    )


def assert_nothing_left(root: Path, before: Traces) -> None:
    """What others have there for a moment is gone soon."""
    now = traces(root)
    left = now.shared - before.shared
    deadline = time.monotonic() + 5
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left &= traces(root).shared
    assert (now.own, left) == (before.own, set())


def probes() -> Iterator[int]:
    """Small programs of a doctor that are loaded."""
    for identifier in syscall.program_ids():
        with contextlib.suppress(OSError), syscall.opened_program(identifier) as fd:
            if syscall.program_info(fd).name == "ram_probe":
                yield identifier


@pytest.fixture(scope="module")
def healthy(lab: Lab, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Of a host on which nothing is wrong."""
    doctor = Doctor(lab, root, tmp_path_factory.mktemp("healthy"))
    before = traces(root)
    found = doctor.findings(scoped(root))
    assert_nothing_left(root, before)
    return found


@pytest.mark.core
@pytest.mark.parametrize(
    "check",
    [
        *("program-types", "helpers", "maps", "perf-events", "devices", "socket-list", "cgroups"),
        *("cgroup-hooks", "cgroup-sockets", "bpf-file-system", "compiler", "programs", "locked-memory"),
    ],
)
def test_kernel(healthy: Findings, check: str) -> None:
    """On each kernel on which ram-ebpf works, the doctor says that it will."""
    assert healthy.only(check)["status"] == "ok", healthy.only(check)


def test_host_that_is_well(healthy: Findings, root: Path) -> None:
    bad = [
        item
        for item in healthy.report["findings"]
        if item["status"] != "ok" and item["check"] not in _OF_THE_MACHINE
    ]
    assert [item["check"] for item in bad] == ["instance"], bad
    assert not healthy.failed
    assert healthy.only("scope")["title"].endswith(f"(strict): {root / 'engine'}")
    *of_groups, of_devices = [sum(1 for _ in programs.hooks()) for programs in PROGRAM_SETS]
    assert healthy.only("programs")["title"].endswith(
        f"all programs: {sum(of_groups)} of control groups, {of_devices} of devices"
    )
    assert "bpf" in healthy.only("bpf-file-system")["title"]
    assert healthy.only("resolver", Lab.resolver)["status"] == "ok"
    assert healthy.only("name")["title"].startswith("1 of 1 exact name of the policy: found")


def test_it_compiles_where_nothing_is_cached(doctor: Doctor, root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    found = doctor.findings(scoped(root), env={"RAM_EBPF_CACHE": str(cache)})
    assert found.only("compiler")["title"].endswith("; compiled anew")
    assert found.only("programs")["status"] == "ok"
    assert not cache.exists(), "nothing is kept"


# --- where something is wrong


def test_policy_that_is_wrong(doctor: Doctor) -> None:
    """In lines, as people read it."""
    shown = doctor.run("version: 1\nregistries: [dockerhub]\n")
    assert shown.returncode == 1
    lines = shown.stdout.splitlines()
    assert lines[-1].startswith("1 failure, ")
    index = next(n for n, line in enumerate(lines) if line.startswith("failure  policy"))
    assert lines[index + 1].startswith(" " * 29 + "-> did you mean docker-hub?; ram-ebpf check ")
    assert any(line.startswith("ok       cgroup-hooks        6 kinds of programs attach") for line in lines)
    assert not any(" scope " in line[:29] for line in lines)


def test_much_that_costs_something(doctor: Doctor, root: Path, tmp_path: Path) -> None:
    """All are warnings: what is asked for works nevertheless."""
    dead = topology.ALLOWED  # where nobody listens on port 53
    policy = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
  - host: nowhere.registry.test
  - host: v4only.registry.test
resolvers: [{dead}, {Lab.resolver}]
scopes:
  - cgroup: {root / "engine"}
  - cgroup: {root / "engine"}/
  - unit: no-such-thing.service
  - netns: no-such-thing
  - device: ramlab-none
"""
    elsewhere = {"allowed.registry.test": topology.BLOCKED, "other.test": topology.BLOCKED}
    missing = {"RAM_EBPF_BPFFS": str(tmp_path / "missing")}
    found = doctor.findings(policy, hosts=elsewhere, resolver=Lab.rogue_resolver, env=missing)
    assert not found.failed
    first, same, *others = found.of("scope")
    assert first["status"] == "ok"
    assert "leads only to what scopes before it" in same["title"]
    assert [item["status"] for item in others] == ["warning"] * 3
    assert all("is nowhere now" in item["title"] for item in others)
    assert [item["status"] for item in found.of("resolver")] == ["warning", "ok"]
    assert Lab.rogue_resolver in found.only("resolv-conf", "nameserver")["title"]
    assert "nowhere.registry.test (no address)" in found.only("name", "unknown")["title"]
    assert f"v4only.registry.test ({topology.ALLOWED})" in found.only("name", "private")["title"]
    assert f"/etc/hosts:3: allowed.registry.test is {topology.BLOCKED}" in found.only("hosts-file")["title"]
    assert "none can be mounted" in found.only("bpf-file-system")["title"]


def test_what_cannot_work(doctor: Doctor, tmp_path: Path) -> None:
    dead = topology.ALLOWED
    policy = POLICY.replace(Lab.resolver, dead) + "scopes: [{ cgroup: /ramlab-no-such-thing }]\n"
    unmounted = tmp_path / "bpf"
    unmounted.mkdir()
    found = doctor.findings(
        policy, hosts={"allowed.registry.test": topology.ALLOWED}, env={"RAM_EBPF_BPFFS": str(unmounted)}
    )
    assert found.failed
    assert "there is no cgroup2 directory" in found.only("scope")["title"]
    assert found.only("resolver", dead)["status"] == "failure"
    assert "were not looked up" in found.only("name")["title"]
    assert found.only("bpf-file-system")["title"].endswith("yet; ram-ebpf mounts it when it starts")
    assert not unmounted.is_mount()
    assert list(unmounted.iterdir()) == []


def test_others_that_leave_no_room(doctor: Doctor, root: Path, tmp_path: Path) -> None:
    """A program that refuses company, and a BPF file system that may only be read."""
    readonly = tmp_path / "bpf"
    readonly.mkdir()
    fd = features.load_small(ProgramType.CGROUP_SKB, AttachType.INET_EGRESS)
    directory = os.open(root, os.O_RDONLY)
    subprocess.run(["mount", "-t", "bpf", "-o", "ro", "bpf", str(readonly)], check=True)
    try:
        syscall.program_attach(directory, fd, AttachType.INET_EGRESS, 0)
        found = doctor.findings(scoped(root), env={"RAM_EBPF_BPFFS": str(readonly)})
        assert found.failed
        assert "may only be read" in found.only("bpf-file-system")["title"]
        refused = found.only("other-programs")
        assert refused["status"] == "failure"
        assert f"a program at {root} was attached without BPF_F_ALLOW_MULTI" in refused["title"]
        # A new control group below it meets it as well.
        assert found.only("cgroup-hooks")["status"] == "failure"
    finally:
        with contextlib.suppress(OSError):
            syscall.program_detach(directory, fd, AttachType.INET_EGRESS)
        os.close(fd)
        os.close(directory)
        subprocess.run(["umount", str(readonly)], check=True)


# --- engines

# In a PID namespace of its own, so that no engine of the machine is found: a program that is called as an
# engine is, in some control group, and then the doctor.
_SCRIPT = """\
sh -c 'echo 0 > "$1/cgroup.procs"; exec "$2" 300' sh "$1" "$2" &
while [ "$(cat /proc/$!/comm)" != containerd ]; do sleep 0.02; done
shift 2
"$@"
"""


def with_engine(
    lab: Lab, cgroup: Path, tmp_path: Path, command: Sequence[str], env: Mapping[str, str]
) -> Findings:
    engine = tmp_path / "containerd"
    shutil.copy("/bin/sleep", engine)
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", _SCRIPT, "sh"]
    argv += [str(cgroup), str(engine), *command]
    return Findings(lab.client.run(argv, cwd=_ROOT, cgroup=lab.client.services, env=env, timeout=_PATIENCE))


def test_engine_in_a_control_group_of_its_own(doctor: Doctor, lab: Lab, root: Path, tmp_path: Path) -> None:
    proxies = "proxies: [{ host: proxy.corp.example, ports: [3128] }]\n"
    command = doctor.command(f"{POLICY}{proxies}scopes: [{{ engine: containerd }}]\n", "--json")
    proxy = "http://user:secret@proxy.corp.example:3128"
    found = with_engine(lab, root / "engine", tmp_path, command, {"HTTPS_PROXY": proxy})
    place = root.joinpath("engine").relative_to(cgroups.mount_point())
    assert f"is in /{place}" in found.only("engine")["title"]
    assert found.only("scope")["title"] == f"engine: containerd (strict): {root / 'engine'}"
    assert "proxy.corp.example:3128 (HTTPS_PROXY), which the policy lists" in found.only("proxy")["title"]
    assert "secret" not in json.dumps(found.report)
    assert "processes" in found.only("surroundings")["title"]
    assert not found.failed


def test_engine_in_the_root(doctor: Doctor, lab: Lab, tmp_path: Path) -> None:
    command = doctor.command(f"{POLICY}scopes: [{{ engine: containerd }}]\n", "--json")
    found = with_engine(lab, cgroups.mount_point(), tmp_path, command, {})
    assert found.failed
    assert found.only("engine")["status"] == "failure"
    assert "runs in the root cgroup" in found.only("scope")["title"]


def test_docker_engine(doctor: Doctor, lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A real one, what its settings say, and whether somebody serves what it asks."""
    policy = f"{POLICY}docker: {{ authorization: true }}\nscopes: [{{ engine: docker }}]\n"
    directory = tmp_path_factory.mktemp("examined")
    with Docker(lab, directory, directory.name) as docker:

        def found() -> Findings:
            argv = [
                *("nsenter", f"--net={docker.node.namespace.path}", f"--pid=/proc/{docker.pid}/ns/pid", "--"),
                *("unshare", "--mount-proc", "--", *doctor.command(policy, "--json")),
            ]
            place = lab.client.services
            return Findings(lab.client.run(argv, cwd=_ROOT, cgroup=place, env=docker.env, timeout=_PATIENCE))

        docker.reload({"registry-mirrors": ["https://mirror.registry.test:5000"]})
        first = found()
        assert [item["status"] for item in first.of("engine")] == ["ok"] * len(first.of("engine"))
        assert any(str(docker.cgroup.name) in item["title"] for item in first.of("engine"))
        assert first.only("scope")["title"].endswith(f": {docker.cgroup}")
        assert "does not ask the plugin" in first.only("docker-plugin")["title"]
        assert "mirror.registry.test:5000 first" in first.only("mirror")["title"]
        assert first.only("docker-plugin")["cure"].startswith("start ram-ebpf with this policy; then write")
        with on_docker(lab, docker, policy, docker.cgroup):
            docker.reload(SETTINGS)
            second = found()
            assert not second.failed
            assert second.only("docker-plugin")["title"].endswith("and somebody serves it")
            assert second.only("mirror")["title"] == "engines ask no mirrors"
        third = found()
        assert third.failed
        assert "which nobody serves: it refuses every request" in third.only("docker-plugin")["title"]


# --- what runs, and what is left of what ran


def test_running_instance_and_a_killed_one(lab: Lab, root: Path) -> None:
    policy = scoped(root)
    with governed(lab, policy, scopes=[root / "engine"]) as daemon:
        doctor = Doctor(lab, root, daemon.policy_file.parent)
        found = doctor.findings(policy)
        assert found.only("instance", str(daemon.pid))["title"].endswith("at 1 place")
        assert (
            found.only("pins")["title"]
            == "pins of 1 running instance are there, and no pins of dead instances"
        )
        assert str(root) not in found.only("leftovers")["title"]
    killed = ScopedDaemon(lab, policy, (), [root / "engine"])
    with killed:
        killed.signal(signal.SIGKILL)
    found = doctor.findings(policy)
    assert not found.failed
    assert str(root / "engine") in found.only("leftovers")["title"]
    assert "keeps programs of a killed instance working" in found.only("pins")["title"]
    assert found.only("instance")["title"].startswith("no instance of ram-ebpf runs")
    with governed(lab, policy, scopes=[root / "engine"]):
        found = doctor.findings(policy)
    assert str(root) not in found.only("leftovers")["title"]
    assert found.only("pins")["status"] == "ok"
    assert attaching.ours_attached(root / "engine") == {}


# --- interrupted, and without rights


def begun(doctor: Doctor, lab: Lab, root: Path, line: str) -> subprocess.Popen[str]:
    """A doctor that has said something."""
    process = lab.client.popen(
        doctor.command(scoped(root)), cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    for said in process.stdout:
        if said[9:29].strip() == line:
            return process
    raise AssertionError(f"it has ended: {process.communicate()}")


@pytest.mark.parametrize(
    ("line", "number"),
    [
        ("rights", signal.SIGINT),
        ("perf-events", signal.SIGHUP),
        ("cgroups", signal.SIGINT),
        ("cgroups", signal.SIGTERM),
        ("cgroup-hooks", signal.SIGINT),
        ("compiler", signal.SIGTERM),
    ],
)
def test_interrupted(doctor: Doctor, lab: Lab, root: Path, line: str, number: int) -> None:
    """In the midst of what comes behind that line; its children get the signal too, as from a terminal."""
    before = traces(root)
    process = begun(doctor, lab, root, line)
    time.sleep(0.01)
    os.killpg(process.pid, number)
    time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # whoever is impatient
    _, err = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, err) == (130, ""), err
    assert_nothing_left(root, before)


def test_killed(doctor: Doctor, lab: Lab, root: Path) -> None:
    """What it may leave then, a control group, is gone when the next one has looked."""
    before = traces(root)
    for _ in range(3):
        process = begun(doctor, lab, root, "cgroups")
        process.kill()
        process.communicate()
    process = begun(doctor, lab, root, "cgroup-sockets")
    process.terminate()
    process.communicate()
    assert_nothing_left(root, before)


# As nobody may read the project where it lies, all is imported before the rights are given up.
_AS_NOBODY = """\
import os, sys
import dns._asyncio_backend
from ram_ebpf.cli import doctor
from ram_ebpf.cli.main import main
from ram_ebpf.dns.encrypted import load_encrypted_resolvers
from ram_ebpf.doctor import examination
from ram_ebpf.policy.catalogue import load_catalogue
load_catalogue(), load_encrypted_resolvers()
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
sys.exit(main(sys.argv[1:]))
"""


def test_without_root(lab: Lab, tmp_path: Path) -> None:
    def ask(*options: str) -> Finished:
        command = [sys.executable, "-c", _AS_NOBODY, "doctor", *options]
        return lab.client.run(command, cwd=_ROOT, cgroup=lab.client.services, timeout=_PATIENCE)

    found = Findings(ask("--json"))
    assert not found.failed
    assert found.report["root"] is False
    unchecked = [item for item in found.report["findings"] if not item["checked"]]
    assert {"programs", "cgroup-hooks", "scope", "instance"} <= {item["check"] for item in unchecked}
    assert {item["cure"] for item in unchecked} == {"run it as root: sudo ram-ebpf doctor"}
    assert found.only("cgroups")["status"] == "ok"
    assert found.only("resolver", Lab.resolver)["status"] == "ok"
    shown = ask()
    assert shown.returncode == 0
    assert len([line for line in shown.stdout.splitlines() if "run it as root" in line]) == 2
    assert "Traceback" not in shown.stderr
