"""What a booted machine reaches: a resolver and the addresses of two registries, in another namespace."""

from __future__ import annotations

from .machine import Machine

ALLOWED, BLOCKED = "allowed.registry.test", "blocked.registry.test"
RESOLVER = "10.99.0.1"
_SCRIPT = f"""\
set -e
ip link set lo up
ip netns add outside
ip link add up0 type veth peer name out0 netns outside
ip addr add 10.99.0.2/24 dev up0
ip link set up0 up
ip route add default via {RESOLVER}
ip -n outside link set lo up
ip -n outside link set out0 up
ip -n outside addr add {RESOLVER}/24 dev out0
ip -n outside addr add 10.99.0.30/32 dev lo
ip -n outside addr add 10.99.0.31/32 dev lo
ip -n outside route add 10.98.0.0/24 via 10.99.0.2
inside="ip netns exec outside"
systemd-run -q --unit=dns $inside dnsmasq --keep-in-foreground --user=root --no-resolv --no-hosts \\
    --listen-address={RESOLVER} --bind-interfaces --local=/test/ \\
    --address=/{ALLOWED}/10.99.0.30 --address=/{BLOCKED}/10.99.0.31
systemd-run -q --unit=web $inside socat TCP-LISTEN:443,fork,reuseaddr SYSTEM:'sleep 0.1'
rm -f /etc/resolv.conf
echo nameserver {RESOLVER} >/etc/resolv.conf
systemd-run -q --unit=victim sleep infinity
"""
_PROBE = """\
import socket, sys
try:
    address = socket.gethostbyname(sys.argv[1])
    with socket.create_connection((address, 443), 5) as item:
        if item.getpeername()[0] == "127.82.65.77":
            item.sendall(b"GET /v2/ HTTP/1.1\\r\\nHost: %s\\r\\n\\r\\n" % sys.argv[1].encode())
            print("told", item.recv(65536).split(b"\\r\\n")[0].decode())
        else:
            print("connected")
except OSError as error:
    print(type(error).__name__)
"""


def plug(machine: Machine) -> None:
    """Make all that, and a unit, victim.service, whose control group can be governed."""
    machine.run(_SCRIPT)
    machine.write("/root/probe.py", _PROBE)


def connect(machine: Machine, name: str, unit: str = "victim.service") -> str:
    """What comes of a connection to port 443 of a name, from inside that unit, or another one."""
    enter = f"echo $$ >/sys/fs/cgroup/system.slice/{unit}/cgroup.procs; exec"
    return machine.run(f"{enter} python3 /root/probe.py {name}").strip()
