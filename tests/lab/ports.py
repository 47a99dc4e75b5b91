"""Watches sockets and counters of a namespace from outside, through /proc of a process within."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Collection
from pathlib import Path

from .namespaces import Namespace

_TCP_LISTEN = "0A"


def wait_open(
    process: subprocess.Popen[str],
    namespace: Namespace,
    port: int,
    tables: Collection[str],
    log: Path,
    patience: float = 60.0,
) -> None:
    """Wait until a server has its port open in all the tables (udp, udp6, tcp, tcp6) named."""
    deadline = time.monotonic() + patience
    while True:
        # Until it has entered the namespace, the process shows the machine's own sockets.
        if namespace.holds(process.pid) and all(_is_open(process.pid, table, port) for table in tables):
            return
        if process.poll() is not None:
            why = f"it ended with {process.returncode}"
        elif time.monotonic() > deadline:
            why = f"port {port} is not open after {patience:.0f} s"
        else:
            time.sleep(0.002)
            continue
        said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        raise RuntimeError(f"a server of {namespace.name} did not start, {why}: {said[-2000:].strip()}")


def counters(pid: int) -> dict[str, int]:
    """Return the IPv4, TCP and UDP counters of a process's namespace, as 'Tcp.PassiveOpens', and IPv6's."""
    lines = Path(f"/proc/{pid}/net/snmp").read_text(encoding="ascii").splitlines()
    result = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        family = names.partition(":")[0]
        for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
            result[f"{family}.{name}"] = int(value)
    for line in Path(f"/proc/{pid}/net/snmp6").read_text(encoding="ascii").splitlines():
        name, value = line.split()
        result[name] = int(value)
    return result


def _is_open(pid: int, table: str, port: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError, OSError):
        return False
    for line in lines:
        _, local, _, state, *_ = line.split()
        if int(local.rpartition(":")[2], 16) == port and (table.startswith("udp") or state == _TCP_LISTEN):
            return True
    return False
