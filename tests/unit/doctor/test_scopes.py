"""What is said of scopes, by where they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ram_ebpf.dataplane.devices import Device
from ram_ebpf.doctor.finding import Status
from ram_ebpf.doctor.found_scopes import FoundScope
from ram_ebpf.doctor.scopes import of_scopes
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.scope import Scope
from ram_ebpf.scopes.target import Places

from .cases import case_of

TOP = Path("/sys/fs/cgroup")


def scopes(text: str) -> tuple[Scope, ...]:
    policy = case_of(f"version: 1\nregistries: [docker-hub]\nscopes: [{text}]\n").policy
    assert isinstance(policy, Policy)
    return policy.scopes


def places(*cgroups: str, devices: int = 0) -> Places:
    return Places(
        frozenset(TOP / name for name in cgroups),
        frozenset(Device(f"veth{n}", n) for n in range(1, devices + 1)),
    )


def test_places() -> None:
    (scope,) = scopes("{ engine: docker }")
    (found,) = of_scopes([FoundScope("engine: docker", scope, places("docker.service"))])
    assert (found.status, found.subject) == (Status.OK, "engine: docker")
    assert found.title == "engine: docker (strict): /sys/fs/cgroup/docker.service"
    (found,) = of_scopes([FoundScope("x", scope, places("a", "b", devices=3))])
    assert found.title.endswith("/sys/fs/cgroup/a, /sys/fs/cgroup/b, veth1 and 2 more places")


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("{ engine: docker }", "ps -e"),
        ("{ unit: docker.service }", "systemctl list-units"),
        ("{ netns: build }", "ip netns"),
        ("{ device: veth0 }", "ip link"),
        ("{ container: label=a }", "docker ps"),
        ("{ builders: buildx }", "docker buildx ls"),
    ],
)
def test_nowhere(text: str, cure: str) -> None:
    (scope,) = scopes(text)
    (found,) = of_scopes([FoundScope(text, scope)])
    assert found.status is Status.WARNING
    assert "is nowhere now" in found.title
    assert cure in found.cure


def test_problem() -> None:
    (scope,) = scopes("{ cgroup: /none }")
    problem = "cgroup /none: there is no cgroup2 directory; `ls /sys/fs/cgroup` shows what there is"
    (found,) = of_scopes([FoundScope("cgroup: /none", scope, problem=problem)])
    assert found.status is Status.FAILURE
    assert found.title.endswith("there is no cgroup2 directory; ram-ebpf does not start")
    assert found.cure == "`ls /sys/fs/cgroup` shows what there is"


def test_scope_whose_places_others_have() -> None:
    first, second, third = scopes("{ cgroup: /a }, { cgroup: /a/ }, { cgroup: /b }")
    found = list(
        of_scopes(
            [
                FoundScope("1", first, places("a")),
                FoundScope("2", second, places("a")),
                FoundScope("3", third, places("a", "b")),
            ]
        )
    )
    assert [item.status for item in found] == [Status.OK, Status.WARNING, Status.OK]
    assert "put it before them" in found[1].cure


def test_remarks() -> None:
    (scope,) = scopes("{ builders: any }")
    remark = (
        "builders any: buildkitd (pid 7) runs in the root cgroup, and is not governed; start it elsewhere"
    )
    _, found = of_scopes([FoundScope("builders: any", scope, places("a"), remarks=(remark,))])
    assert found.status is Status.WARNING
    assert found.cure == "start it elsewhere"
