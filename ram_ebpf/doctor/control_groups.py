"""Where control groups are mounted, and whether what is attached to one sees its sockets."""

from __future__ import annotations

import contextlib
import errno
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import cgroups, features, matching
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, Programs
from ram_ebpf.dataplane.syscall import VerifierError
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.doctor.kernel import version_of

_MOUNTINFO = Path("/proc/self/mountinfo")
_NET = ("net_cls", "net_prio")
_MENDED = (5, 15)
_OFF = "boot with cgroup_no_v1=net_cls,net_prio, or take Linux 5.15 or later"


@dataclass(frozen=True)
class Layout:
    """What is mounted. `version_1`: the controllers of version 1, each with where it is."""

    version_2: Path | None
    version_1: dict[str, Path]

    @property
    def net(self) -> dict[str, Path]:
        """Of version 1 those by which sockets are marked."""
        return {name: self.version_1[name] for name in _NET if name in self.version_1}


def layout(mount: Path | None, mountinfo: Path = _MOUNTINFO) -> Layout:
    """As proc_pid_mountinfo(5) shows it. `mount`: where version 2 is."""
    found: dict[str, Path] = {}
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind, *rest = after.split(" ")
        if kind == "cgroup" and len(rest) == 2:
            found.update((name, Path(before.split(" ")[4])) for name in rest[1].split(","))
    return Layout(mount, found)


def examine_layout(case: Case) -> Iterator[Finding]:
    """What is mounted where. Needs no rights."""
    yield of_layout(layout(case.mount))


def of_layout(found: Layout) -> Finding:
    """Version 2, alone or beside version 1."""
    if found.version_2 is None:
        return failure(
            Check.CGROUPS,
            "control groups of version 2 are not mounted, so nothing but devices can be governed",
            "mount them beside version 1: mkdir -p /sys/fs/cgroup/unified && "
            "mount -t cgroup2 none /sys/fs/cgroup/unified; or boot with systemd.unified_cgroup_hierarchy=1",
        )
    beside = ", beside version 1 (hybrid)" if found.version_1 else ", alone (unified)"
    return well(Check.CGROUPS, f"control groups of version 2 are at {found.version_2}{beside}")


def examine_hooks(case: Case) -> Iterator[Finding]:
    """Attaches all hooks to a control group that is thrown away. For root."""
    if case.top is None:
        return
    try:
        yield from _attach(case.top)
    except OSError as error:
        yield _not_attached(error)


def _attach(parent: Path) -> Iterator[Finding]:
    with contextlib.closing(Programs()) as first, contextlib.closing(Programs()) as second:
        for loaded in (first, second):
            for hook in CGROUP_HOOKS:
                loaded.fds[hook.label] = features.load_small(hook.program_type, hook.attach_type)
        with cgroups.throwaway(parent) as directory:
            cgroups.attach(first, directory)
            cgroups.attach(second, directory)
    count = len(CGROUP_HOOKS)
    yield well(Check.CGROUP_HOOKS, f"{count} kinds of programs attach to a control group, beside others")


def _not_attached(error: OSError) -> Finding:
    if isinstance(error, VerifierError):
        cure = "see what the check program-types says"
    elif error.errno in (errno.EROFS, errno.EACCES, errno.ENOENT):
        cure = "run it where /sys/fs/cgroup may be written: on the host itself, or in a privileged container"
    elif error.errno == errno.EPERM:
        cure = "see `bpftool cgroup tree`: what is attached there must have been with BPF_F_ALLOW_MULTI"
    else:
        cure = "take a kernel with CONFIG_CGROUP_BPF, Linux 5.4 or later"
    return failure(Check.CGROUP_HOOKS, f"nothing attaches to a new control group: {error.strerror}", cure)


def examine_sockets(case: Case) -> Iterator[Finding]:
    """Whether the kernel tells the sockets of one control group from another's. For root."""
    if case.top is None:
        return
    try:
        matches = matching.try_matching(case.top)
    except OSError:  # which examine_hooks() tells of
        matches = None
    yield of_sockets(matches, layout(case.mount).net, platform.release())


def of_sockets(matches: bool | None, net: dict[str, Path], release: str) -> Finding:
    """`matches`: what was found by trying; `net`: where net_cls and net_prio are mounted."""
    mounted = " and ".join(f"{name} at {path}" for name, path in net.items())
    if matches is False:
        return warning(
            Check.CGROUP_SOCKETS,
            "all sockets count as those of the root control group, since net_cls or net_prio (version 1) is "
            "in use: scopes that are control groups are replaced by the whole host in posture registries",
            _OFF,
        )
    if matches is None:
        return warning(
            Check.CGROUP_SOCKETS,
            "whether sockets are told apart by their control groups could not be tried",
            "see what the check cgroup-hooks says",
        )
    # Trying that would switch it off for the whole machine, for good.
    if net and version_of(release) < _MENDED:
        return warning(
            Check.CGROUP_SOCKETS,
            f"{mounted}: once somebody uses that, this kernel does not tell sockets apart by their control "
            "groups any more",
            _OFF,
        )
    more = f"; {mounted} does no harm" if net else ""
    return well(Check.CGROUP_SOCKETS, f"sockets are told apart by their control groups{more}")
