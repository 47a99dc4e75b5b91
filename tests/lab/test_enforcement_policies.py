"""What else a policy can say: ports, addresses, wildcards, audit; and where it holds."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.scopes.cgroup import find_cgroup2_mount
from tests.adversarial.actor import Actor
from tests.adversarial.field import governed, tcp_connect, wait_denied, wait_line
from tests.adversarial.packets import framed, labels_of, query, wire_name

from . import topology
from .daemon import COMMAND, Daemon
from .lab import Lab
from .processes import Finished
from .programs import find

UNKNOWN = "denied-unknown-address"
ROOT = Path(__file__).parents[2]

PORTS = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
  - host: cdn.allowed.registry.test
    ports: [443, 5000]
    private: true
  - address: {topology.V6ONLY}
    ports: [5000]
  - address: 10.77.0.96/27
    ports: [443]
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""
WILDCARDS = f"""\
version: 1
registries:
  - host: "{{pattern}}"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""
ALLOWED = WILDCARDS.format(pattern="allowed.registry.test")


@pytest.fixture(scope="module")
def ports_lab() -> Iterator[Lab]:
    with Lab(registry_ports=(443, 5000)) as result:
        yield result


@pytest.fixture(scope="module")
def ports_daemon(ports_lab: Lab) -> Iterator[Daemon]:
    with governed(ports_lab, PORTS) as result:
        yield result


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("allowed.registry.test", id="the usual port"),
        pytest.param("cdn.allowed.registry.test", id="the usual port when listed"),
        pytest.param("cdn.allowed.registry.test:5000", id="another port when listed"),
        pytest.param(f"[{topology.V6ONLY}]:5000", id="port of an address"),
        pytest.param(topology.MANY[3], id="address in a network"),
    ],
)
def test_listed_port(ports_lab: Lab, ports_daemon: Daemon, where: str) -> None:
    start = len(ports_daemon.lines())
    if where.startswith("["):  # not a reference that skopeo takes
        with Actor(ports_lab.client, ports_lab.client_cgroup) as actor:
            tcp_connect(actor, topology.V6ONLY, 5000)
    else:
        ports_lab.client.pull(f"{where}/{ports_lab.image_name}").check()
    reason = "allowed-address" if where.startswith(("[", "10.")) else "allowed-learned"
    port = 5000 if where.endswith(":5000") else 443

    def wanted(line: dict[str, Any]) -> bool:
        return (line["event"], line.get("reason"), line.get("port")) == ("allowed", reason, port)

    wait_line(ports_daemon, start, wanted, f"{reason} on port {port}")


@pytest.mark.parametrize(
    ("host", "address", "port", "reason"),
    [
        pytest.param(
            "allowed.registry.test", topology.ALLOWED, 5000, "denied-port", id="not a port of the name"
        ),
        pytest.param(
            "cdn.allowed.registry.test", topology.CDN_V6, 80, "denied-port", id="not one of two ports"
        ),
        pytest.param(None, topology.V6ONLY, 443, UNKNOWN, id="not the port of the address"),
        pytest.param(None, topology.MANY[3], 5000, UNKNOWN, id="not the port of the network"),
        pytest.param(None, "10.77.0.128", 443, UNKNOWN, id="behind the end of the network"),
    ],
)
def test_port_not_listed(
    ports_lab: Lab, ports_daemon: Daemon, host: str | None, address: str, port: int, reason: str
) -> None:
    start = len(ports_daemon.lines())
    with Actor(ports_lab.client, ports_lab.client_cgroup) as actor:
        with pytest.raises(PermissionError):
            tcp_connect(actor, address, port)
        line = wait_denied(ports_daemon, start, address, port)
        assert line["reason"] == reason
        if host is not None:
            assert line["host"] == host
            assert f"not on port {port}" in line["explanation"]
        # By UDP connecting tells nobody anything, and sending is refused all the same.
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        datagrams = actor.socket(family, socket.SOCK_DGRAM)
        with pytest.raises(PermissionError):
            datagrams.sendto(b"x", (address, port))


def test_refused_pull_names_the_port(ports_lab: Lab, ports_daemon: Daemon) -> None:
    pull = ports_lab.client.pull(f"allowed.registry.test:5000/{ports_lab.image_name}")
    assert "operation not permitted" in pull.stderr
    assert pull.seconds < 2


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        pytest.param("*.registry.test", "blocked.registry.test", "cdn.allowed.registry.test", id="one label"),
        pytest.param("**.registry.test", "cdn.allowed.registry.test", None, id="any number of labels"),
        pytest.param("*allowed.registry.test", "notallowed.registry.test", "v6only.registry.test", id="glob"),
    ],
)
def test_wildcard(lab: Lab, pattern: str, allowed: str, refused: str | None) -> None:
    scope = lab.new_cgroup(f"wildcard-{pattern.replace('*', 'x')}")
    with governed(lab, WILDCARDS.format(pattern=pattern), scopes=[scope]):
        lab.client.pull(f"{allowed}/{lab.image_name}", cgroup=scope).check()
        if refused is not None:
            pull = lab.client.pull(f"{refused}/{lab.image_name}", cgroup=scope)
            assert "operation not permitted" in pull.stderr


def test_audit(lab: Lab) -> None:
    scope = lab.new_cgroup("audit")
    with governed(lab, ALLOWED + "mode: audit\n", scopes=[scope]) as daemon:
        lab.client.pull(f"blocked.registry.test/{lab.image_name}", cgroup=scope).check()
        line = wait_line(daemon, 0, lambda line: line["event"] == "would-deny", "what would be refused")
        assert line["verdict"] == "would-deny"
        assert line["host"] == "blocked.registry.test"
        assert line["reason"] == UNKNOWN
        with Actor(lab.client, scope) as actor:
            actor.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (topology.BLOCKED, 443))
        assert not [line for line in daemon.lines() if line["event"] == "denied"]


DENYING = f"""\
version: 1
registries:
  - host: "**.registry.test"
    private: true
  - host: again.allowed.registry.test
    private: true
denied:
  - blocked.registry.test
  - "*.allowed.registry.test"
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""
DENIED_NAMES = [
    pytest.param("blocked.registry.test", "blocked.registry.test (policy.yaml:8)", id="by its name"),
    pytest.param("cdn.allowed.registry.test", "*.allowed.registry.test (policy.yaml:9)", id="by a pattern"),
]


@pytest.fixture(scope="module")
def denying(lab: Lab) -> Iterator[tuple[Path, Daemon]]:
    scope = lab.new_cgroup("denying")
    with governed(lab, DENYING, "--log-dns", scopes=[scope]) as daemon:
        yield scope, daemon


@pytest.mark.parametrize(("host", "by"), DENIED_NAMES)
def test_denied_name(lab: Lab, denying: tuple[Path, Daemon], host: str, by: str) -> None:
    scope, daemon = denying
    start = len(daemon.lines())
    pull = lab.client.pull(f"{host}/{lab.image_name}", cgroup=scope)
    assert "operation not permitted" in pull.stderr

    def wanted(line: dict[str, Any]) -> bool:
        return line["event"] == "denied" and line.get("host") == host

    line = wait_line(daemon, start, wanted, f"a refusal of {host}")
    assert (line["reason"], line["explanation"]) == (UNKNOWN, f"{host} is denied by {by}")

    def about_dns(line: dict[str, Any]) -> bool:
        return line.get("reason") == "dns-not-listed" and line.get("host") == host

    line = wait_line(daemon, start, about_dns, f"the reply for {host}")
    assert line["explanation"] == f"{host} is denied by {by}"


def test_exceptions_from_what_is_denied(lab: Lab, denying: tuple[Path, Daemon]) -> None:
    """The rest of the pattern, and one name that is allowed again."""
    scope, _ = denying
    lab.dns.set_records("again.allowed.registry.test", [topology.CDN])
    for host in ("allowed.registry.test", "notallowed.registry.test", "again.allowed.registry.test"):
        lab.client.pull(f"{host}/{lab.image_name}", cgroup=scope).check()
    lab.dns.remove("again.allowed.registry.test")


def query_for(name: str, over_tcp: bool = False) -> bytes:
    wire = query(wire_name(*labels_of(name)))
    return framed(wire) if over_tcp else wire


def is_about(name: str, line: dict[str, Any]) -> bool:
    return line.get("host") == name


@pytest.mark.parametrize("over_tcp", [pytest.param(False, id="UDP"), pytest.param(True, id="TCP")])
def test_names_that_may_not_be_asked_for(lab: Lab, over_tcp: bool) -> None:
    """What a name carries goes no farther than this host."""
    scope = lab.new_cgroup(f"names-only-{'tcp' if over_tcp else 'udp'}")
    policy = DENYING + "dns: { allowed_names_only: true }\n"
    names = {
        "secret.evil.test": "secret.evil.test is not in the policy, and other names may not be asked for",
        "blocked.registry.test": "blocked.registry.test is denied by blocked.registry.test (policy.yaml:8)",
    }
    with governed(lab, policy, scopes=[scope]) as daemon, Actor(lab.client, scope) as actor:
        for name, explanation in names.items():
            start = len(daemon.lines())
            asked = len(lab.dns.queries())
            if over_tcp:
                item = actor.socket(socket.AF_INET, socket.SOCK_STREAM)
                item.connect((lab.resolver, 53))
                item.settimeout(0.5)
                item.send(query_for(name, over_tcp))
                # The daemon ends it, where the kernel can.
                with pytest.raises((ConnectionAbortedError, TimeoutError)):
                    item.recv()
            else:
                with pytest.raises(PermissionError):
                    actor.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
                        query_for(name), (lab.resolver, 53)
                    )
            # Where it cannot, TCP sends it again and again, so the one before may still be told.
            about = partial(is_about, name)
            line = wait_line(daemon, start, about, f"a refusal of the query for {name}")
            assert (line["event"], line["reason"]) == ("denied", "denied-query-name")
            assert line["explanation"] == explanation
            assert (line["address"], line["port"]) == (lab.resolver, 53)
            assert line["protocol"] == ("tcp" if over_tcp else "udp")
            assert not [found for _, found in lab.dns.queries()[asked:] if found == name]
            actor.reset()
        actor.resolve("allowed.registry.test")
        tcp_connect(actor, topology.ALLOWED)


PRIVATE = f"""\
version: 1
message: Ask us.
registries:
  - host: allowed.registry.test
    ports: [443, 5000]
  - host: "*.listed.test"
    private: [10.77.0.20/30]
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""
NOT_EXPECTED = "but this address is a private one; write private: true there if that is meant"


def test_private_address_that_the_policy_does_not_expect(lab: Lab) -> None:
    """The lab's addresses are all private ones."""
    scope = lab.new_cgroup("private")
    rule = "allowed.registry.test (policy.yaml:4)"
    with governed(lab, PRIVATE, scopes=[scope]) as daemon:
        for address in (topology.ALLOWED, topology.ALLOWED_V6):
            start = len(daemon.lines())
            # A process of its own, or the second would only be counted: it is the same name and port.
            with Actor(lab.client, scope) as actor, pytest.raises(PermissionError):
                tcp_connect(actor, address)
            line = wait_denied(daemon, start, address)
            assert line["reason"] == "denied-private-address"
            assert line["host"] == "allowed.registry.test"
            assert line["rule"] == rule
            assert line["explanation"] == f"allowed.registry.test is allowed by {rule}, {NOT_EXPECTED}"
            assert line["message"] == "Ask us."
        start = len(daemon.lines())
        with Actor(lab.client, scope) as actor:
            actor.resolve("allowed.registry.test")

        def wanted(line: dict[str, Any]) -> bool:
            return line.get("reason") == "dns-private-address"

        line = wait_line(daemon, start, wanted, "a reply with private addresses alone")
        assert (line["event"], line["host"]) == ("not-understood", "allowed.registry.test")
        assert line["explanation"] == (
            f"allowed.registry.test has only private addresses, which {rule} does not expect"
        )


def test_private_addresses_that_the_policy_lists(lab: Lab) -> None:
    scope = lab.new_cgroup("private-listed")
    name = "both.listed.test"
    lab.dns.set_records(name, [topology.CDN, topology.BLOCKED])
    with governed(lab, PRIVATE, scopes=[scope]) as daemon, Actor(lab.client, scope) as actor:
        assert set(actor.resolve(name)) == {topology.CDN, topology.BLOCKED}
        tcp_connect(actor, topology.CDN)
        start = len(daemon.lines())
        with pytest.raises(PermissionError):
            tcp_connect(actor, topology.BLOCKED)
        line = wait_denied(daemon, start, topology.BLOCKED)
        assert line["reason"] == "denied-private-address"
        assert line["explanation"] == f"{name} is allowed by *.listed.test (policy.yaml:6), {NOT_EXPECTED}"
    lab.dns.remove(name)


def test_each_scope_learns_its_own(lab: Lab) -> None:
    first, second = lab.new_cgroup("learns"), lab.new_cgroup("learns-not")
    name, address = "own.wild.test", topology.MANY[7]
    lab.dns.set_records(name, [address])
    with governed(lab, WILDCARDS.format(pattern="*.wild.test"), scopes=[first, second]):
        with Actor(lab.client, first) as asking, Actor(lab.client, second) as other:
            assert asking.resolve(name) == [address]
            tcp_connect(asking, address)
            with pytest.raises(PermissionError):
                tcp_connect(other, address)
            other.resolve(name)
            tcp_connect(other, address)
    lab.dns.remove(name)


def test_several_scopes(lab: Lab) -> None:
    """Absolute and relative paths. The names that the policy writes out are open in each from the start."""
    first, second, third = (lab.new_cgroup(f"scope-{number}") for number in range(3))
    beside = lab.new_cgroup("beside")
    relative = second.relative_to(find_cgroup2_mount())
    scopes = [str(first), str(relative), f"/{third.relative_to(find_cgroup2_mount())}"]
    with governed(lab, ALLOWED, scopes=scopes) as daemon:
        ready = daemon.lines()[0]
        assert ready["scopes"] == [str(first), str(second), str(third)]
        for scope in (first, second, third):
            with Actor(lab.client, scope) as actor:
                tcp_connect(actor, topology.ALLOWED)
                with pytest.raises(PermissionError):
                    tcp_connect(actor, topology.BLOCKED)
        with Actor(lab.client, beside) as actor:
            tcp_connect(actor, topology.BLOCKED)
    for scope in (first, second, third):
        assert ours_attached(scope) == {}


def test_one_scope_named_twice(lab: Lab) -> None:
    scope = lab.new_cgroup("twice")
    with governed(lab, ALLOWED, scopes=[scope, f"{scope}/", scope.relative_to(find_cgroup2_mount())]):
        assert [len(found) for found in ours_attached(scope).values()] == [1] * 6


def without_engines(lab: Lab, script: str, *arguments: str) -> Finished:
    """Runs a shell script where only its own processes are seen: no engine of this machine is touched."""
    policy = lab.directory / "engines.yaml"
    policy.write_text(ALLOWED, encoding="utf-8")
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", find("sh"), "-c", script, "sh"]
    argv += [*COMMAND, "run", "--policy", str(policy), *arguments]
    return lab.client.run(argv, cgroup=lab.client.services, cwd=ROOT)


def until_ready(lab: Lab) -> str:
    """A shell script that runs what it is given until it is ready, and shows what it wrote."""
    log = lab.directory / "engine.log"
    return f"""
    rm -f {log}  # another test's, which this one would take for its own
    "$@" > {log} &
    until grep -qs ready {log}; do sleep 0.05; done
    kill -TERM $!
    wait $!
    status=$?
    cat {log}
    exit $status
    """


def test_no_engine_is_running(lab: Lab) -> None:
    """It waits for one."""
    done = without_engines(lab, until_ready(lab), "--log-format", "json")
    assert done.returncode == 0, done.stderr
    (ready,) = [json.loads(line) for line in done.stdout.splitlines() if '"ready"' in line]
    assert ready["scopes"] == []
    assert "governing nothing yet" in ready["explanation"]
    assert "no container engine is running here; it is governed as soon as it is" in done.stderr
    assert "Traceback" not in done.stderr


def test_running_engine_is_found(lab: Lab) -> None:
    """The default scope, with a process that has the name of an engine."""
    scope = lab.new_cgroup("engine")
    engine = lab.directory / "dockerd"
    engine.write_bytes(Path(find("sleep")).read_bytes())
    engine.chmod(0o755)
    script = f"""
    (echo 0 > {scope}/cgroup.procs && exec {engine} 60) &
    until [ "$(cat /proc/$!/comm)" = dockerd ]; do sleep 0.01; done
    {until_ready(lab)}
    """
    done = without_engines(lab, script, "--log-format", "json")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"docker \(pid \d+\) in {re.escape(str(scope))}$", done.stderr, re.MULTILINE)
    assert f'"scopes": ["{scope}"]' in done.stdout
