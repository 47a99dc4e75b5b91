"""What is said of the kernel, by what was found. That it is found is tried in tests/lab/test_doctor.py."""

from __future__ import annotations

import errno
import resource

import pytest

from ram_ebpf.dataplane.syscall import AttachType, Helper, ProgramType
from ram_ebpf.doctor import kernel
from ram_ebpf.doctor.finding import Status


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("5.4.273", (5, 4)),
        ("5.15.153.1-microsoft-standard-WSL2", (5, 15)),
        ("6.1.0-18-amd64", (6, 1)),
        ("6.18-rc1", (6, 18)),
        ("4.19.0-26-cloud-amd64", (4, 19)),
        ("odd", ()),
    ],
)
def test_version(release: str, version: tuple[int, ...]) -> None:
    assert kernel.version_of(release) == version


@pytest.mark.parametrize(
    ("release", "machine", "byteorder", "status"),
    [
        ("5.4.273", "x86_64", "little", Status.OK),
        ("6.18.44", "aarch64", "little", Status.OK),
        ("5.3.18", "x86_64", "little", Status.WARNING),
        ("4.19.0", "x86_64", "little", Status.WARNING),
        ("6.1.0", "s390x", "big", Status.WARNING),
    ],
)
def test_release(release: str, machine: str, byteorder: str, status: Status) -> None:
    found = kernel.of_release(release, machine, byteorder)
    assert found.status is status
    assert found.title.startswith(f"Linux {release} on {machine}")


def test_types_that_fail_alike_are_told_together() -> None:
    refused, unknown = OSError(errno.EPERM, "no"), OSError(errno.EINVAL, "no")
    first, second = kernel.of_lacking(
        {
            (ProgramType.CGROUP_SKB, AttachType.INET_EGRESS): refused,
            (ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT): refused,
            (ProgramType.SCHED_CLS, None): unknown,
        }
    )
    assert first.title == (
        "the kernel loads no programs cgroup_skb for inet_egress, cgroup_sock_addr for inet4_connect: "
        "Operation not permitted"
    )
    assert "CAP_SYS_ADMIN" in first.cure
    assert second.subject == "sched_cls"
    assert "CONFIG_NET_CLS_BPF" in second.cure


def test_helpers() -> None:
    fine = kernel.of_helpers({kind: [] for kind in ProgramType})
    assert (fine.status, fine.cure) == (Status.OK, "")
    missing = kernel.of_helpers({ProgramType.CGROUP_SKB: [Helper.SK_STORAGE_GET], ProgramType.SCHED_CLS: []})
    assert missing.status is Status.FAILURE
    assert missing.title == "programs cannot call what they need (cgroup_skb: sk_storage_get)"


def test_connect_hooks() -> None:
    every = ("-DRAM_HAVE_SOCK_ADDR_PERF", "-DRAM_HAVE_SOCK_ADDR_TASK", "-DRAM_HAVE_SOCK_ADDR_CGROUP_ID")
    assert kernel.of_connect_hooks(every).status is Status.OK
    some = kernel.of_connect_hooks(every[:1])
    assert some.status is Status.WARNING
    assert "cannot tell the process and the control group;" in some.title


def test_machine_code() -> None:
    assert kernel.of_jit(True).status is Status.OK
    assert "net.core.bpf_jit_enable=1" in kernel.of_jit(False).cure


@pytest.mark.parametrize(
    ("counts", "limit", "status"),
    [
        (False, 0, Status.OK),
        (True, resource.RLIM_INFINITY, Status.OK),
        (True, 64 << 20, Status.OK),
        (True, 8 << 20, Status.FAILURE),
    ],
)
def test_locked_memory(counts: bool, limit: int, status: Status) -> None:
    assert kernel.of_locked_memory(counts, limit).status is status
