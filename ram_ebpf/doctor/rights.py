"""Who runs this, and whether it sees the host: a container may have neither the rights nor the view."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.capabilities import Capability
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import AS_ROOT, Check, Finding, failure, warning, well
from ram_ebpf.policy.words import plural

# What each is needed for.
_NEEDED = {
    Capability.NET_ADMIN: "attaches programs",
    Capability.SYS_ADMIN: "loads programs and enters network namespaces",
    Capability.SYS_PTRACE: "finds the namespaces of other users' processes",
}
# Of the first namespace of each kind (include/linux/proc_ns.h).
_FIRST = {"cgroup": 0xEFFFFFFB, "pid": 0xEFFFFFFC, "user": 0xEFFFFFFD}
_MEANING = {"cgroup": "control groups", "pid": "processes", "user": "users"}


def examine(case: Case) -> Iterator[Finding]:
    """Rights, and namespaces."""
    if not case.is_root:
        yield warning(Check.RIGHTS, "not root, so that most of the kernel cannot be tried", AS_ROOT)
    else:
        yield of_capabilities(effective_capabilities())
    yield of_namespaces(namespaces())


def effective_capabilities(status: Path = Path("/proc/self/status")) -> int:
    """As a set of bits (proc_pid_status(5), CapEff)."""
    for line in status.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def of_capabilities(effective: int) -> Finding:
    """Whether all that is needed is there."""
    missing = [f"CAP_{each.name} ({why})" for each, why in _NEEDED.items() if not effective >> each & 1]
    if not missing:
        return well(Check.RIGHTS, "root, with all capabilities that are needed")
    return failure(
        Check.RIGHTS,
        f"root, without {', '.join(missing)}",
        "run it on the host itself, or in a container that is privileged (docker run --privileged)",
    )


def namespaces() -> dict[str, int]:
    """The namespaces of this process by their kinds."""
    return {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in _FIRST}


def of_namespaces(own: dict[str, int]) -> Finding:
    """Whether this process sees the whole host."""
    others = [_MEANING[kind] for kind, number in own.items() if number != _FIRST[kind]]
    if not others:
        return well(Check.SURROUNDINGS, "runs on the host itself, in no container")
    return warning(
        Check.SURROUNDINGS,
        f"runs in {plural(len(others), 'namespace')} of its own ({', '.join(others)}): "
        "engines and control groups outside are not seen",
        "run it on the host itself, or in a container with --privileged, --pid=host and --cgroupns=host",
    )
