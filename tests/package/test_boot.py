"""The package on a machine with a real systemd: started, hung, killed, stopped and purged."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import outside
from .conftest import Package
from .installed import installed
from .machine import Machine
from .outside import ALLOWED, BLOCKED

pytestmark = pytest.mark.timeout(1800)

UNIT = "ram-ebpf.service"
POLICY = f"""\
version: 1
organization: acme
message: "Ask us."
registries: [{{ host: {ALLOWED}, private: true }}]
resolvers: [{outside.RESOLVER}]
scopes: [{{ unit: victim.service }}, {{ netns: build }}]
docker: {{ authorization: true }}
refusals: {{ responder: on }}
"""


@pytest.fixture(scope="module")
def machine(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """With the package, installed before it was booted."""
    directory = tmp_path_factory.mktemp(f"machine-{package.suite}")
    with (
        installed(package, directory, POLICY) as layer,
        Machine(layer.root, package.suite) as booted,
    ):
        outside.plug(booted)
        yield booted


def show(machine: Machine, field: str) -> str:
    return machine.run(f"systemctl show --property={field} --value {UNIT}").strip()


def is_active(machine: Machine) -> bool:
    return machine.run(f"systemctl is-active {UNIT}", check=False).strip() == "active"


def journal(machine: Machine) -> str:
    return machine.run(f"journalctl --unit={UNIT} --output=cat")


def pins(machine: Machine) -> list[str]:
    return machine.run("ls /sys/fs/bpf").split()


def wait_restarted(machine: Machine, before: str) -> None:
    machine.wait(lambda: is_active(machine) and show(machine, "MainPID") not in ("0", before), "a restart")


def test_it_becomes_active_when_it_governs(machine: Machine) -> None:
    assert outside.connect(machine, BLOCKED) == "connected"
    machine.run(f"systemctl start {UNIT}")
    assert is_active(machine)
    assert show(machine, "StatusText") == "governing 1 place (enforce)"
    assert outside.connect(machine, ALLOWED) == "connected"
    machine.wait(lambda: "told HTTP/1.1 403 " in outside.connect(machine, BLOCKED), "an explanation")
    # The client has its answer first.
    machine.wait(lambda: f"DENIED {BLOCKED} (10.99.0.31:443)" in journal(machine), "a line about it")
    said = journal(machine)
    for trouble in ("UNPINNED", "NO-", "Traceback", "ignoring", "not kept", "not permitted"):
        assert trouble not in said
    assert "victim.service" in machine.run("ram-ebpf status")
    assert machine.run("ls /var/cache/ram-ebpf").split()
    machine.run("test -S /run/docker/plugins/ram-ebpf.sock")
    assert len(machine.run("ls /sys/fs/bpf/ram-ebpf").split()) == 1


def test_a_network_namespace_that_comes_later_is_governed(machine: Machine) -> None:
    """Its name is a mount that came after the unit had a mount namespace of its own."""
    machine.run(
        "ip netns add build; ip link add b0 type veth peer name eth0 netns build;"
        "ip addr add 10.98.0.1/24 dev b0; ip link set b0 up; ip -n build link set lo up;"
        "ip -n build addr add 10.98.0.2/24 dev eth0; ip -n build link set eth0 up;"
        "ip -n build route add default via 10.98.0.1"
    )
    machine.wait(lambda: "device b0" in machine.run("ram-ebpf status"), "the device")
    assert show(machine, "StatusText") == "governing 2 places (enforce)"
    command = "ip netns exec build timeout 5 socat - TCP:10.99.0.31:443"
    assert "Connection refused" in machine.run(command, check=False)


def test_a_daemon_that_hangs_is_killed_and_enforcement_stays(machine: Machine) -> None:
    machine.write("/etc/systemd/system/ram-ebpf.service.d/quick.conf", "[Service]\nWatchdogSec=6\n")
    machine.run(f"systemctl daemon-reload; systemctl restart {UNIT}")
    before = show(machine, "MainPID")
    machine.run(f"kill -STOP {before}")
    assert outside.connect(machine, BLOCKED) == "PermissionError"
    machine.wait(lambda: show(machine, "MainPID") != before, "the end of what hung")
    assert outside.connect(machine, BLOCKED) == "PermissionError"
    assert outside.connect(machine, ALLOWED) == "connected"
    wait_restarted(machine, before)
    said = journal(machine)
    assert "Fatal Python error: Aborted" in said
    assert "REPLACED: 6 programs left by an earlier instance" in said
    assert "watchdog" in machine.run("journalctl --output=cat _PID=1").lower()
    machine.run(
        "rm -r /etc/systemd/system/ram-ebpf.service.d; systemctl daemon-reload;"
        f"systemctl restart {UNIT}; systemctl is-active {UNIT}"
    )


def test_a_killed_daemon_is_started_again(machine: Machine) -> None:
    before = show(machine, "MainPID")
    machine.run(f"kill -KILL {before}")
    assert outside.connect(machine, BLOCKED) == "PermissionError"
    wait_restarted(machine, before)
    assert outside.connect(machine, ALLOWED) == "connected"


def test_reload(machine: Machine) -> None:
    before = show(machine, "MainPID")
    machine.write("/etc/ram-ebpf/policy.yaml", f"mode: audit\n{POLICY}")
    machine.run(f"systemctl reload {UNIT}")
    machine.wait(lambda: "(audit)" in show(machine, "StatusText"), "the other policy")
    assert outside.connect(machine, BLOCKED) == "connected"
    machine.write("/etc/ram-ebpf/policy.yaml", POLICY)
    machine.run(f"systemctl reload {UNIT}")
    machine.wait(lambda: outside.connect(machine, BLOCKED) != "connected", "the policy from before")
    machine.write("/etc/ram-ebpf/policy.yaml", "version: 2\n")
    with pytest.raises(RuntimeError):
        machine.run(f"systemctl reload {UNIT}")
    assert "/etc/ram-ebpf/policy.yaml:1: version: " in machine.run(f"systemctl status {UNIT}", check=False)
    machine.write("/etc/ram-ebpf/policy.yaml", POLICY)
    machine.run(f"systemctl reload {UNIT}")
    assert show(machine, "MainPID") == before
    assert is_active(machine)


@pytest.mark.parametrize(
    "command", ["systemctl restart ram-ebpf", "apt-get install --reinstall --yes /srv/*.deb"]
)
def test_no_gap(machine: Machine, command: str) -> None:
    """Whoever tries again and again all the while finds no moment in which nothing is enforced."""
    before, over = show(machine, "MainPID"), threading.Event()

    def outcomes(host: str) -> set[str]:
        found = set()
        while not over.is_set():
            found.add(outside.connect(machine, host))
        return found

    with ThreadPoolExecutor() as pool:
        refused, allowed = (pool.submit(outcomes, host) for host in (BLOCKED, ALLOWED))
        try:
            machine.run(command)
            wait_restarted(machine, before)
        finally:
            over.set()
    assert "connected" not in refused.result()
    assert allowed.result() == {"connected"}


def test_a_policy_that_is_wrong(machine: Machine) -> None:
    """The last good one holds. Where there is none, the start is not tried again and again."""
    machine.write("/etc/ram-ebpf/policy.yaml", "version: 2\n")
    machine.run(f"systemctl restart {UNIT}")
    assert is_active(machine)
    assert "/etc/ram-ebpf/policy.yaml:1: version: " in journal(machine)
    assert outside.connect(machine, BLOCKED) != "connected"
    machine.run(f"systemctl stop {UNIT}; rm /var/lib/ram-ebpf/policy-*.yaml")
    machine.run(f"systemctl start {UNIT}", check=False)
    assert show(machine, "ActiveState") == "failed"
    assert show(machine, "ExecMainStatus") == "78"
    machine.write("/etc/ram-ebpf/policy.yaml", POLICY)
    machine.run(f"systemctl restart {UNIT}")
    assert is_active(machine)


def test_stop_lets_go(machine: Machine) -> None:
    machine.run(f"systemctl stop {UNIT}")
    assert outside.connect(machine, BLOCKED) == "connected"
    assert "ram-ebpf" not in pins(machine)
    assert "STOPPED: detached from" in journal(machine)


def test_purge_leaves_nothing(machine: Machine) -> None:
    """Not even what a killed instance has left, which nobody has taken over."""
    machine.run(f"systemctl enable --now {UNIT}")
    machine.run(f"systemctl kill --signal=KILL {UNIT}; systemctl stop {UNIT}")
    assert outside.connect(machine, BLOCKED) == "PermissionError"
    assert "ram-ebpf" in pins(machine)
    said = machine.run("apt-get purge --yes -qq ram-ebpf 2>&1")
    assert "removed 6 programs at /sys/fs/cgroup/system.slice/victim.service" in said
    assert "removed 2 programs at device b0" in said
    assert "ram-ebpf: purged" in said
    assert outside.connect(machine, BLOCKED) == "connected"
    assert "ram-ebpf" not in pins(machine)
    found = machine.run("find / -xdev -iname '*ram*ebpf*' ! -path '/proc/*' ! -path '/srv/*.deb'; ls /run")
    assert "ram-ebpf" not in found
    assert "not-found" in machine.run(f"systemctl show --property=LoadState {UNIT}")
