"""What the tests need of a kernel beyond what guest_init.sh has mounted, found by trying."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.syscall import AttachType, MapType

_CGROUP = Path("/sys/fs/cgroup")


def _bpf() -> None:
    os.close(syscall.map_create("ram_probe", MapType.ARRAY, 4, 8, 1))


def _cgroup_bpf() -> None:
    directory = os.open(_CGROUP, os.O_RDONLY | os.O_DIRECTORY)
    try:
        syscall.program_query(directory, AttachType.INET_EGRESS)
    finally:
        os.close(directory)


def _perf_events() -> None:
    Path("/proc/sys/kernel/perf_event_paranoid").stat()


def _namespaces() -> None:
    for name in ("net", "mnt"):
        Path(f"/proc/self/ns/{name}").stat()


def _ipv6() -> None:
    Path("/proc/net/if_inet6").stat()


def _link(kind: str, *arguments: str) -> Callable[[], None]:
    def probe() -> None:
        add = ["ip", "link", "add", "ramprobe", "type", kind, *arguments]
        result = subprocess.run(add, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise OSError(result.stderr.strip())
        subprocess.run(["ip", "link", "delete", "ramprobe"], check=False)

    return probe


# Each with the option of the kernel's configuration that brings it.
_PROBES: dict[str, Callable[[], None]] = {
    "bpf (CONFIG_BPF_SYSCALL)": _bpf,
    "cgroup-bpf (CONFIG_CGROUP_BPF)": _cgroup_bpf,
    "perf events (CONFIG_PERF_EVENTS)": _perf_events,
    "namespaces (CONFIG_NET_NS)": _namespaces,
    "IPv6 (CONFIG_IPV6)": _ipv6,
    "veth (CONFIG_VETH)": _link("veth", "peer", "name", "ramprobe2"),
    "bridge (CONFIG_BRIDGE)": _link("bridge"),
}


def missing() -> list[str]:
    """The features that the kernel lacks."""
    lacking = []
    for feature, probe in _PROBES.items():
        try:
            probe()
        except OSError as error:
            lacking.append(f"{feature}: {error}")
    return lacking
