"""The daemon's life: how it starts, what it refuses to start with, what it survives and how it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import pytest

from ram_ebpf.dataplane import cache, features
from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, CGROUP_PROGRAMS, RESOLVER_HOOKS
from ram_ebpf.scopes.cgroup import find_cgroup2_mount
from tests.adversarial.actor import Actor
from tests.adversarial.field import PATIENCE, ScopedDaemon, eventually, governed, tcp_connect, wait_line
from tests.adversarial.packets import framed, ipv4, labels_of, query, reply, udp, wire_name

from . import topology
from .daemon import COMMAND
from .dns import Addresses
from .dns_replies import respond
from .lab import Lab
from .processes import Finished
from .rogue import RogueDns

ROOT = Path(__file__).parents[2]
UNKNOWN = "denied-unknown-address"
HOLD = 3.0  # seconds that a reply over TCP may wait for the daemon
STANDSTILL = 5.0  # seconds

POLICY = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""


def run(lab: Lab, policy: str, *arguments: str) -> Finished:
    """Runs the daemon to its end, which is to come by itself."""
    file = lab.directory / "controller.yaml"
    file.write_text(policy, encoding="utf-8")
    argv = [*COMMAND, "run", "--policy", str(file), *arguments]
    return lab.client.run(argv, cgroup=lab.client.services, cwd=ROOT)


def is_refused(actor: Actor, address: str = topology.BLOCKED) -> bool:
    try:
        tcp_connect(actor, address)
    except PermissionError:
        return True
    finally:
        actor.reset()
    return False


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.core),
        pytest.param(signal.SIGINT, id="SIGINT"),
    ],
)
def test_end(lab: Lab, scope: Path, inside: Actor, number: signal.Signals) -> None:
    with ScopedDaemon(lab, POLICY, scopes=[scope]) as daemon:
        assert {hook: len(found) for hook, found in ours_attached(scope).items()} == dict.fromkeys(
            CGROUP_HOOKS, 1
        )
        assert is_refused(inside)
        tcp_connect(inside, topology.ALLOWED)
        assert daemon.signal(number) == 0
        assert ours_attached(scope) == {}
        assert not is_refused(inside)
    stopped = daemon.lines()[-1]
    assert stopped["event"] == "stopped"
    assert str(scope) in stopped["explanation"]
    assert stopped["counters"][UNKNOWN] == 1
    assert stopped["counters"]["allowed-learned"] >= 1
    assert daemon.said() == f"ram-ebpf: cgroup {scope}"


@pytest.mark.core
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGUSR1, 0)],
    ids=["killed", "restarted"],
)
def test_killed(
    lab: Lab, scope: Path, inside: Actor, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """Enforcement outlives the daemon, and the next one takes it over without a gap."""
    forget_pins(lab)
    wild = '  - host: "*.wild.registry.test"\n    private: true\n'
    policy = POLICY.replace("registries:\n", f"registries:\n{wild}")
    with ScopedDaemon(lab, policy, scopes=[scope]) as first:
        assert is_refused(inside)
        left = ours_attached(scope)
        assert first.signal(number) == status
    assert ours_attached(scope) == left
    assert is_refused(inside)
    tcp_connect(inside, topology.ALLOWED)
    # Names are resolved and learned without it, too.
    address = topology.MANY[7]
    lab.dns.set_records("killed.wild.registry.test", [address])
    assert inside.resolve("killed.wild.registry.test") == [address]
    tcp_connect(inside, address)
    connections = lab.blocked.counters()["Tcp.PassiveOpens"]
    done = tmp_path / "done"
    with Actor(lab.client, scope) as hammering:
        hammering.start("hammer", topology.BLOCKED, 443, str(done))
        with governed(lab, POLICY, scopes=[scope]) as second:
            done.touch()
            outcomes = hammering.finish()
            replaced = wait_line(second, 0, lambda line: line["event"] == "replaced", "what was replaced")
            assert re.match(r"6 programs", replaced["explanation"])
            now = ours_attached(scope)
            assert [len(found) for found in now.values()] == [1] * len(CGROUP_HOOKS)
            assert not {i for ids in now.values() for i in ids} & {i for ids in left.values() for i in ids}
            tcp_connect(inside, topology.ALLOWED)
            assert len(pins(lab)) == 1
    assert set(outcomes) == {"EPERM"}
    assert outcomes["EPERM"] > 10
    assert lab.blocked.counters()["Tcp.PassiveOpens"] == connections
    assert ours_attached(scope) == {}
    assert pins(lab) == []


def pins(lab: Lab) -> list[Path]:
    """The directories with pins, one for each instance."""
    return list((lab.directory / "bpf").glob("ram-ebpf/*"))


def forget_pins(lab: Lab) -> None:
    """Those of daemons that other tests have killed."""
    for directory in pins(lab):
        shutil.rmtree(directory)


def test_killed_on_one_scope_and_started_on_another(lab: Lab, scope: Path, inside: Actor) -> None:
    """What still governs is not pulled from under it."""
    forget_pins(lab)
    other = lab.new_cgroup("another-scope")
    with ScopedDaemon(lab, POLICY, scopes=[scope]) as first:
        first.signal(signal.SIGKILL)
    with governed(lab, POLICY, scopes=[other]):
        assert len(pins(lab)) == 2
        assert is_refused(inside)
        tcp_connect(inside, topology.ALLOWED)
    tcp_connect(inside, topology.ALLOWED)
    assert len(pins(lab)) == 1
    with governed(lab, POLICY, scopes=[scope]):
        assert len(pins(lab)) == 1
    assert pins(lab) == []


def test_no_bpf_file_system(lab: Lab, scope: Path, inside: Actor, tmp_path: Path) -> None:
    """It is said, and enforced all the same."""
    lab.client.env["RAM_EBPF_BPFFS"] = f"{tmp_path}/missing"
    try:
        with governed(lab, POLICY, scopes=[scope]) as daemon:
            (line,) = [line for line in daemon.lines() if line["event"] == "unpinned"]
            assert "mount -t bpf bpf" in line["explanation"]
            assert is_refused(inside)
            tcp_connect(inside, topology.ALLOWED)
    finally:
        lab.client.env["RAM_EBPF_BPFFS"] = str(lab.directory / "bpf")


def test_second_instance(lab: Lab, scope: Path, inside: Actor) -> None:
    with governed(lab, POLICY, scopes=[scope]) as first:
        attached = ours_attached(scope)
        second = run(lab, POLICY.replace("allowed.", "blocked."), "--scope", f"cgroup:{scope}")
        assert second.returncode == os.EX_TEMPFAIL
        assert f"{scope} is already governed by another instance" in second.stderr
        assert "Traceback" not in second.stderr
        assert ours_attached(scope) == attached
        start = len(first.lines())
        assert is_refused(inside)
        wait_line(first, start, lambda line: line.get("reason") == UNKNOWN, "a refusal")
        tcp_connect(inside, topology.ALLOWED)


def test_second_instance_lets_go_of_its_other_scopes(lab: Lab, scope: Path) -> None:
    other = lab.new_cgroup("other")
    with governed(lab, POLICY, scopes=[scope]):
        second = run(lab, POLICY, "--scope", f"cgroup:{other}", "--scope", f"cgroup:{scope}")
        assert second.returncode == os.EX_TEMPFAIL
        assert ours_attached(other) == {}
        assert len(ours_attached(scope)) == len(CGROUP_HOOKS)


def test_start_that_fails_ends_nothing(lab: Lab, scope: Path, inside: Actor) -> None:
    """What a killed instance enforced is enforced on, by whomever."""
    other = lab.new_cgroup("busy")
    with ScopedDaemon(lab, POLICY, scopes=[scope]) as killed:
        assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    with governed(lab, POLICY, scopes=[other]):
        failed = run(lab, POLICY, "--scope", f"cgroup:{scope}", "--scope", f"cgroup:{other}")
        assert failed.returncode == os.EX_TEMPFAIL
        assert is_refused(inside)
        tcp_connect(inside, topology.ALLOWED)
    with governed(lab, POLICY, scopes=[scope]):
        assert is_refused(inside)
    assert ours_attached(scope) == {}


_FAILING = """\
import sys
from ram_ebpf.daemon.receiving import Receiving
from ram_ebpf.cli.main import main

def fail(self):
    raise MemoryError

Receiving.rest_or_work = fail
sys.exit(main())
"""


def test_error_in_the_main_loop_ends_nothing(lab: Lab, scope: Path, inside: Actor) -> None:
    """Whatever it is. Who watches over the daemon starts it again."""
    file = lab.directory / "failing.yaml"
    file.write_text(POLICY, encoding="utf-8")
    argv = [*COMMAND[:1], "-c", _FAILING, "run", "--policy", str(file), "--scope", f"cgroup:{scope}"]
    done = lab.client.run(argv, cgroup=lab.client.services, cwd=ROOT)
    assert done.returncode == 1
    assert "MemoryError" in done.stderr
    assert "enforced on, until an instance takes over" in done.stdout
    assert is_refused(inside)
    tcp_connect(inside, topology.ALLOWED)
    with governed(lab, POLICY, scopes=[scope]):
        assert is_refused(inside)
    assert ours_attached(scope) == {}


def test_scope_comes_back(lab: Lab, scope: Path) -> None:
    """A service that is started again gets a new control group of the old name."""
    with governed(lab, POLICY, scopes=[scope]) as daemon:
        scope.rmdir()
        scope.mkdir()
        assert eventually(lambda: len(ours_attached(scope)) == len(CGROUP_HOOKS))
        start = len(daemon.lines())
        with Actor(lab.client, scope) as actor:
            assert is_refused(actor)
            tcp_connect(actor, topology.ALLOWED)
        wait_line(daemon, start, lambda line: line.get("reason") == UNKNOWN, "a refusal")
    assert ours_attached(scope) == {}


def test_scope_is_removed(lab: Lab, scope: Path) -> None:
    other = lab.new_cgroup("stays")
    with governed(lab, POLICY, scopes=[scope, other]) as daemon:
        scope.rmdir()
        with Actor(lab.client, other) as actor:
            assert is_refused(actor)
        wait_line(daemon, 0, lambda line: line.get("reason") == UNKNOWN, "a refusal")
    assert daemon.lines()[-1]["event"] == "stopped"
    assert "Traceback" not in daemon.said()
    assert ours_attached(other) == {}


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        pytest.param("version: 1\nregistries:\n  - host: a b\n", ":3: registries[0].host: ", id="bad host"),
        pytest.param("version: 1\nregistries: [nosuch]\n", ":2: registries[0]: ", id="no catalogue id"),
        pytest.param("version: 1\nregistries: ]\n", ":2: ", id="not YAML"),
        pytest.param("", ": the file is empty", id="empty"),
    ],
)
def test_policy_is_wrong(lab: Lab, scope: Path, policy: str, place: str) -> None:
    done = run(lab, policy, "--scope", f"cgroup:{scope}")
    assert done.returncode == os.EX_CONFIG
    assert f"controller.yaml{place}" in done.stderr
    assert "Traceback" not in done.stderr
    assert ours_attached(scope) == {}


def test_policy_is_missing(lab: Lab, scope: Path) -> None:
    argv = [*COMMAND, "run", "--policy", "/nowhere/policy.yaml", "--scope", f"cgroup:{scope}"]
    done = lab.client.run(argv, cgroup=lab.client.services, cwd=ROOT)
    assert done.returncode == os.EX_CONFIG
    assert "/nowhere/policy.yaml" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param("cgroup:no/such", "there is no cgroup2 directory", id="missing"),
        pytest.param("cgroup:/", "is the root", id="root"),
        pytest.param(f"cgroup:{find_cgroup2_mount()}", "is the root", id="root by its path"),
        pytest.param("cgroup:a/../..", "leads out of", id="outside"),
        pytest.param("cgroup:", "write cgroup:PATH", id="no path"),
        pytest.param("engine:lxc", "write one of docker, containerd", id="unknown engine"),
        pytest.param("room:blue", "write cgroup:PATH", id="unknown kind"),
        pytest.param("netns:../blue", "is no network namespace", id="no namespace"),
        pytest.param("device:lo", "is the loopback interface", id="loopback"),
        pytest.param("device:a/b", "the name of a network device", id="no device"),
        pytest.param("unit:docker", "the full name of a systemd unit", id="no unit"),
    ],
)
def test_scope_is_wrong(lab: Lab, given: str, said: str) -> None:
    done = run(lab, POLICY, "--scope", given)
    assert done.returncode == os.EX_CONFIG
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_missing_scope_names_the_cure(lab: Lab) -> None:
    said = run(lab, POLICY, "--scope", "cgroup:no/such").stderr
    assert f"`ls {find_cgroup2_mount()}` shows what there is" in said
    assert "/proc/PID/cgroup" in said


def test_text_log(lab: Lab, scope: Path) -> None:
    file = lab.directory / "controller.yaml"
    file.write_text(POLICY + "message: Ask us.\n", encoding="utf-8")
    argv = [*COMMAND, "run", "--policy", str(file), "--scope", f"cgroup:{scope}"]
    daemon = lab.client.popen(argv, cwd=ROOT, stdout=subprocess.PIPE)
    assert daemon.stdout is not None
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(
        rf"{time} READY: governing {re.escape(str(scope))} \(enforce\)\n", daemon.stdout.readline()
    )
    with Actor(lab.client, scope) as actor:
        actor.resolve("blocked.registry.test")
        assert is_refused(actor)
        by = f" by {re.escape(Path(f'/proc/{actor.pid}/comm').read_text().strip())}\\[{actor.pid}\\]"
    assert re.fullmatch(
        rf"{time} DENIED blocked\.registry\.test \({topology.BLOCKED}:443\) tcp({by})?( in /\S+)?"
        r": blocked\.registry\.test is not in the policy\. Ask us\.\n",
        daemon.stdout.readline(),
    )
    daemon.terminate()
    assert re.match(rf"{time} STOPPED: detached from {re.escape(str(scope))}", daemon.stdout.readline())
    assert daemon.wait(PATIENCE) == 0
    lab.client.stop(daemon)


def ask(actor: Actor, resolver: str) -> None:
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    wire = query(wire_name(*labels_of("allowed.registry.test")))
    item = actor.socket(family, socket.SOCK_DGRAM)
    item.sendto(wire, (resolver, 53))
    assert item.recv()


def test_resolvers_of_the_host(lab: Lab, scope: Path, inside: Actor, tmp_path: Path) -> None:
    """`auto` follows resolv.conf."""
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver {lab.resolver}\n", encoding="utf-8")
    script = f'mount --bind {resolv_conf} {os.path.realpath("/etc/resolv.conf")} && exec "$@"'
    policy = POLICY.replace(f"[{lab.resolver}]", "auto")
    command = ["sh", "-c", script, "sh", *COMMAND]
    with ScopedDaemon(lab, policy, scopes=[scope], command=command) as daemon:
        assert daemon.lines()[0]["resolvers"] == [lab.resolver]
        ask(inside, lab.resolver)
        with pytest.raises(PermissionError):
            ask(inside, lab.resolver_v6)
        resolv_conf.write_text(f"# moved\nnameserver {lab.resolver_v6}\n", encoding="utf-8")
        line = wait_line(daemon, 0, lambda line: line["event"] == "resolvers", "the change", patience=10.0)
        assert lab.resolver_v6 in line["explanation"]
        ask(inside, lab.resolver_v6)
        start = len(daemon.lines())
        with pytest.raises(PermissionError):
            ask(inside, lab.resolver)
        wait_line(daemon, start, lambda line: line.get("reason") == "denied-resolver", "a refusal")
        tcp_connect(inside, topology.ALLOWED)
        assert daemon.terminate() == 0


TRUNCATING = """
import dns.flags
from tests.lab.dns_replies import Reply, respond

def answer(query, client):
    message = respond(query)
    message.flags |= dns.flags.TC
    yield Reply(message.to_wire())
"""


def test_truncated_reply(lab: Lab, scope: Path, inside: Actor, tmp_path: Path) -> None:
    """The daemon asks again, over TCP, and opens what it is told for the scope whose reply that was."""
    beside = lab.new_cgroup("truncated-beside")
    script = tmp_path / "truncating.py"
    script.write_text(TRUNCATING, encoding="utf-8")
    policy = POLICY.replace(lab.resolver, lab.rogue_resolver)
    policy = policy.replace("host: allowed.registry.test", 'host: "*.large.test"')
    name = "name.large.test"
    address = topology.MANY[-1]
    with RogueDns(lab.dns.node, script), Actor(lab.dns.node) as resolver:
        server = resolver.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind((lab.rogue_resolver, 53))
        server.listen()
        with governed(lab, policy, scopes=[scope, beside]) as daemon, Actor(lab.client, beside) as other:
            item = inside.socket(socket.AF_INET, socket.SOCK_DGRAM)
            item.sendto(query(wire_name(*labels_of(name))), (lab.rogue_resolver, 53))
            item.recv()
            connection = server.accept()
            asked = dns.message.from_wire(connection.recv()[2:])
            assert asked.question[0].rdtype == dns.rdatatype.A  # as the client did
            connection.send(framed(respond(asked, address).to_wire()))
            line = wait_line(daemon, 0, lambda line: line["event"] == "not-understood", "the truncated reply")
            assert line["reason"] == "dns-truncated"
            assert line["host"] == name
            assert line["explanation"] == f"the reply for {name} was truncated, so the name is asked again"
            assert eventually(lambda: not is_refused(inside, address))
            assert is_refused(other, address)


SILENT = """
from tests.lab.dns_replies import Reply, respond

def answer(query, client):
    if query.question[0].name.labels[-3] != b"silent":
        yield Reply(respond(query, "ADDRESS").to_wire())
"""


def test_forged_reply_about_another_name(lab: Lab, scope: Path, inside: Actor, tmp_path: Path) -> None:
    """What comes by another way than the resolver's is asked again: by the name that the client asked for,
    not by the one that somebody wrote into the reply."""
    script = tmp_path / "silent.py"
    script.write_text(SILENT.replace("ADDRESS", topology.BLOCKED), encoding="utf-8")
    policy = POLICY.replace(lab.resolver, lab.rogue_resolver)
    policy = policy.replace("host: allowed.registry.test", 'host: "*.silent.test"')
    with (
        RogueDns(lab.dns.node, script),
        governed(lab, policy, scopes=[scope]) as daemon,
        Actor(lab.client) as outside,
    ):
        item = inside.socket(socket.AF_INET, socket.SOCK_DGRAM)
        item.sendto(query(wire_name(*labels_of("name.silent.test"))), (lab.rogue_resolver, 53))
        forged = reply(wire_name(*labels_of("evil.test")), topology.NOTALLOWED)
        datagram = udp(lab.rogue_resolver, topology.CLIENT, item.port(), forged, source_port=53)
        raw = outside.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.sendto(
            ipv4(lab.rogue_resolver, topology.CLIENT, socket.IPPROTO_UDP, datagram), (topology.CLIENT, 0)
        )
        wait_line(daemon, 0, lambda line: line["event"] == "ignored-reply", "the forged reply")
        assert not eventually(lambda: not is_refused(inside), 1.0)
        assert is_refused(inside, topology.NOTALLOWED)


STOPPED = f"""\
version: 1
registries:
  - host: "*.stopped.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""


def ask_over_tcp(actor: Actor, name: str) -> float:
    """The seconds until the reply is there."""
    item = actor.socket(socket.AF_INET, socket.SOCK_STREAM)
    item.settimeout(20.0)
    item.connect((Lab.resolver, 53))
    started = time.monotonic()
    item.send(framed(query(wire_name(*labels_of(name)))))
    answer = item.recv()
    took = time.monotonic() - started
    assert dns.message.from_wire(answer[2:]).question[0].name.to_text() == f"{name}."
    actor.reset()
    return took


def test_dns_over_tcp_while_the_daemon_stands_still(
    lab: Lab, scope: Path, inside: Actor, record_property: Callable[[str, object], None]
) -> None:
    """Replies wait for the daemon, but neither long nor for one that does not run; what it would have learned
    stays shut until it does."""
    names = {f"{what}.stopped.test": address for what, address in zip("abcd", topology.MANY, strict=False)}
    lab.dns.update({name: Addresses((address,), 60) for name, address in names.items()})
    before, at_once, later, after = names
    with governed(lab, STOPPED, scopes=[scope]) as daemon:
        seconds = {"running": ask_over_tcp(inside, before)}
        assert not is_refused(inside, names[before])
        os.kill(daemon.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            seconds["at once"] = ask_over_tcp(inside, at_once)
            seconds["unlisted"] = ask_over_tcp(inside, "blocked.registry.test")
            time.sleep(max(stopped + STANDSTILL - time.monotonic(), 0))
            seconds["later"] = ask_over_tcp(inside, later)
            assert is_refused(inside)
            assert is_refused(inside, names[at_once])
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        assert eventually(lambda: not is_refused(inside, names[at_once]))
        assert eventually(lambda: not is_refused(inside, names[later]))
        seconds["after"] = ask_over_tcp(inside, after)
        assert not is_refused(inside, names[after])
    lab.dns.update(dict.fromkeys(names))
    print(seconds)
    for what, took in seconds.items():
        record_property(what, took)
    assert seconds["running"] < 2
    assert seconds["after"] < 2
    # The resolver sends it again after 0.2 seconds, 0.4, 0.8 and so on: if not right after the end, then at
    # twice that time.
    assert seconds["at once"] < 2 * HOLD + 1
    assert seconds["unlisted"] < 0.5
    assert seconds["later"] < 0.5


UNWATCHED = "resolver-unwatched"


def test_local_resolver_that_is_not_found(lab: Lab, scope: Path, inside: Actor) -> None:
    """Told at the start and when it goes, and not as long as it stays away."""
    address = "127.0.0.9"
    policy = POLICY.replace(lab.resolver, address)

    def warnings() -> list[dict[str, Any]]:
        return [line for line in daemon.lines() if line["event"] == UNWATCHED]

    with governed(lab, policy, scopes=[scope]) as daemon:
        (warning,) = warnings()
        assert (
            f"the resolver {address} is on this host, but it is not served by a process"
            in warning["explanation"]
        )
        assert "name the resolvers behind it in the policy" in warning["explanation"]
        time.sleep(5.0)  # it looks again, every two seconds
        assert len(warnings()) == 1
        with Actor(lab.client) as resolver:
            item = resolver.socket(socket.AF_INET, socket.SOCK_DGRAM)
            item.bind((address, 53))
            own = lab.client.services
            assert eventually(lambda: RESOLVER_HOOKS[0] in ours_attached(own, RESOLVER_HOOKS), 5.0)
            assert len(warnings()) == 1
        wait_line(daemon, 0, lambda line: len(warnings()) == 2, "that it has gone", patience=5.0)
    assert ours_attached(own, RESOLVER_HOOKS) == {}


def test_name_that_does_not_exist(lab: Lab, scope: Path, inside: Actor) -> None:
    policy = POLICY.replace("registries:", "registries:\n  - host: nosuch.registry.test\n    private: true")
    with governed(lab, policy, scopes=[scope]):
        tcp_connect(inside, topology.ALLOWED)
        assert is_refused(inside)


def test_resolver_that_does_not_answer(lab: Lab, scope: Path, inside: Actor) -> None:
    """A laptop that is offline at its start: enforcement begins all the same."""
    policy = POLICY.replace(lab.resolver, "10.77.0.99")
    with governed(lab, policy, scopes=[scope]) as daemon:
        assert "ram-ebpf: allowed.registry.test could not be resolved: 10.77.0.99: " in daemon.said()
        assert is_refused(inside)
        assert is_refused(inside, topology.ALLOWED)


def test_bytecode_is_kept(lab: Lab, scope: Path, tmp_path: Path) -> None:
    kept = tmp_path / "cache"
    for compiled in (True, False):
        with governed(lab, POLICY, "--cache", str(kept), scopes=[scope]) as daemon:
            assert daemon.lines()[0]["compiled"] is compiled
            assert eventually(lambda: len(list(kept.iterdir())) == 2, 60.0)
        assert ours_attached(scope) == {}
    file = kept / f"{cache.cache_key(CGROUP_PROGRAMS.source, features.compiler_flags())}.json"
    file.write_text("{}", encoding="ascii")  # not what it was: made again, and never a reason to fail
    with governed(lab, POLICY, "--cache", str(kept), scopes=[scope]) as daemon:
        assert daemon.lines()[0]["compiled"] is True
        assert f"ignoring {file}" in daemon.said()
