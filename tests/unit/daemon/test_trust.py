"""Whom to believe, and how that changes. What lives on this host is found by tests/unit/dns/test_local.py."""

from __future__ import annotations

import errno
import ipaddress
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from ram_ebpf.daemon import trust
from ram_ebpf.daemon.trust import Trust
from ram_ebpf.daemon.warnings import Warnings
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.local import LocalResolver, LocalSocket
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import default_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.rules import compile_rules

from .maps import FakeMap
from .plane import FakePlane

ip = ipaddress.ip_address
STUB = TrustedResolver(ip("127.0.0.53"), 53, True)
REMOTE = TrustedResolver(ip("192.0.2.53"))
SYSTEM = Path("/cgroup/system")


def served(cookie: int, cgroup: str | Path | None = SYSTEM, uid: int = 101, pid: int = 7) -> LocalSocket:
    return LocalSocket(cookie, uid, Path(cgroup) if cgroup is not None else None, "resolver", pid)


def resolver(*sockets: LocalSocket, at: TrustedResolver = STUB) -> LocalResolver:
    cgroups = tuple(sorted({item.cgroup for item in sockets if item.cgroup is not None}))
    return LocalResolver(
        at.address, at.port, tuple(item.cookie for item in sockets), cgroups, None, None, sockets
    )


# --- following


class Clock:
    """time.monotonic()."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Finder:
    """Finds what it is told. `asked` are the resolvers of each round, `governed` the cgroups of the last."""

    def __init__(self) -> None:
        self.found: list[LocalResolver] | OSError = []
        self.asked: list[list[TrustedResolver]] = []
        self.governed: list[Path] = []

    def find(self, wanted: Iterable[TrustedResolver], governed: Iterable[Path]) -> list[LocalResolver]:
        self.asked.append(list(wanted))
        self.governed = list(governed)
        if isinstance(self.found, OSError):
            raise self.found
        return self.found


class Bench:
    """A Trust with the host's state in our hands."""

    def __init__(self) -> None:
        self.plane = FakePlane(compile_rules(default_policy(), load_catalogue()))
        self.finder = Finder()
        self.clock = Clock()
        self.configured = [STUB]
        self.said: list[tuple[str, str]] = []
        self.trust: Trust

    def say(self, event: str, explanation: str) -> None:
        self.said.append((event, explanation))

    def find(self, *found: LocalResolver) -> None:
        self.finder.found = list(found)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.trust.follow(self.plane)

    def addresses(self) -> set[str]:
        """Of the resolvers that the data plane trusts."""
        keys = self.plane.resolvers.entries
        return {str(abi.unpack_address(bytes(abi.Endpoint.from_buffer_copy(key).address))) for key in keys}

    def cookies(self) -> set[int]:
        """Of the sockets that the data plane trusts."""
        return {struct.unpack("=Q", key)[0] for key in self.plane.resolver_sockets.entries}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(trust, "resolvers_of", lambda policy, local: list(made.configured))
    monkeypatch.setattr(trust, "LocalFinder", lambda: made.finder)
    monkeypatch.setattr(time, "monotonic", made.clock)
    made.trust = Trust(default_policy(), made.say)
    return made


def test_nothing_is_touched_before_it_is_applied(bench: Bench) -> None:
    assert bench.trust.resolvers == [STUB]
    assert (bench.addresses(), bench.finder.asked, bench.said) == (set(), [], [])


def test_apply(bench: Bench) -> None:
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    assert bench.addresses() == {"127.0.0.53"}
    assert bench.cookies() == {5}
    assert bench.plane.watching == {SYSTEM}
    assert bench.finder.asked == [[STUB]]
    assert bench.said == []


def test_several_resolvers(bench: Bench) -> None:
    other = TrustedResolver(ip("::1"), 53, True)
    bench.find(resolver(served(5)), resolver(served(6, "/cgroup/other"), at=other))
    bench.trust.apply(bench.plane)
    assert bench.cookies() == {5, 6}
    assert bench.plane.watching == {SYSTEM, Path("/cgroup/other")}


def test_it_looks_every_two_seconds(bench: Bench) -> None:
    bench.trust.apply(bench.plane)
    for _ in range(100):
        bench.after(0.1)
    assert 5 <= len(bench.finder.asked) <= 6  # the first with apply()


def test_a_resolver_that_restarts(bench: Bench) -> None:
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    bench.find(resolver(served(9, "/cgroup/again", pid=8)))
    bench.after(1.9)
    assert bench.cookies() == {5}
    bench.after(0.2)
    assert bench.cookies() == {9}
    assert bench.plane.watching == {Path("/cgroup/again")}
    assert bench.said == []


def test_what_is_governed_is_not_to_be_believed(bench: Bench) -> None:
    """The finder is told which sockets do not count, and told again when more is governed."""
    bench.trust.apply(bench.plane)
    assert bench.finder.governed == []
    bench.plane.govern(1)
    bench.trust.apply(bench.plane)
    assert bench.finder.governed == [Path("/cgroup/1")]
    bench.after(2.1)
    assert bench.finder.governed == [Path("/cgroup/1")]


def test_sockets_and_cgroups_are_the_finders_word(bench: Bench) -> None:
    bench.find(resolver(served(5), served(6, "/cgroup/other", 0, 8)))
    bench.trust.apply(bench.plane)
    assert bench.cookies() == {5, 6}
    assert bench.plane.watching == {SYSTEM, Path("/cgroup/other")}


def test_sockets_that_stay_are_not_written_again(bench: Bench) -> None:
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    writes = bench.plane.resolver_sockets.writes
    for _ in range(5):
        bench.after(2.1)
    assert bench.plane.resolver_sockets.writes == writes


def test_hurry(bench: Bench) -> None:
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    bench.find(resolver(served(9)))
    bench.trust.hurry()
    bench.after(0.06)
    assert bench.cookies() == {9}
    bench.after(1.9)  # and not at each call from then on
    assert len(bench.finder.asked) == 2


def test_hurrying_without_end_does_not_look_without_end(bench: Bench) -> None:
    """A reply that nobody sent costs whoever sends it nothing."""
    bench.trust.apply(bench.plane)
    for _ in range(1000):
        bench.trust.hurry()
        bench.after(0.001)
    assert 15 <= len(bench.finder.asked) <= 21


def test_other_resolvers(bench: Bench) -> None:
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    bench.configured = [REMOTE, STUB]
    bench.after(2.1)
    assert bench.addresses() == {"192.0.2.53", "127.0.0.53"}
    assert bench.trust.resolvers == [REMOTE, STUB]
    assert bench.finder.asked[-1] == [REMOTE, STUB]
    assert bench.said == [("resolvers", "the trusted resolvers are now 192.0.2.53, 127.0.0.53")]
    bench.configured = [REMOTE]
    bench.find()
    bench.after(2.1)
    assert bench.addresses() == {"192.0.2.53"}
    assert bench.cookies() == set()
    assert bench.plane.watching == set()
    bench.after(2.1)
    assert len(bench.said) == 2  # nothing is told that did not change


# --- warnings


UNWATCHED = (
    "the resolver 127.0.0.53 is on this host, but it is not served by a process that could be believed (one "
    "of root or of a system user, outside the governed scopes): what it replies is asked again, one by one; "
    "run ram-ebpf where it sees that process, or name the resolvers behind it in the policy"
)


def rounds(bench: Bench, count: int = 5) -> None:
    for _ in range(count):
        bench.after(2.1)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(resolver(), id="nobody serves it"),
        pytest.param(resolver(served(5, None)), id="in an unknown cgroup"),
    ],
)
def test_a_resolver_that_is_not_found_is_said_once(bench: Bench, found: LocalResolver) -> None:
    bench.find(found)
    bench.trust.apply(bench.plane)
    rounds(bench)
    assert bench.said == [("resolver-unwatched", UNWATCHED)]


def test_it_is_said_again_when_it_was_found_meanwhile(bench: Bench) -> None:
    bench.find(resolver())
    bench.trust.apply(bench.plane)
    bench.find(resolver(served(5)))
    rounds(bench)
    bench.find(resolver())
    rounds(bench)
    assert bench.said == [("resolver-unwatched", UNWATCHED)] * 2


def test_each_endpoint_by_itself(bench: Bench) -> None:
    other = TrustedResolver(STUB.address, 5353, True)
    bench.find(resolver(), resolver(at=other))
    bench.trust.apply(bench.plane)
    rounds(bench)
    assert len(bench.said) == 2


def test_sockets_that_cannot_be_found(bench: Bench) -> None:
    """A kernel without CONFIG_INET_UDP_DIAG. What was known stays."""
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    bench.finder.found = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    rounds(bench)
    assert bench.cookies() == {5}
    assert bench.plane.watching == {SYSTEM}
    assert bench.said == [
        (
            "resolver-unwatched",
            "the sockets of this host's resolvers cannot be found: [Errno 2] No such file or directory",
        )
    ]


def test_more_sockets_than_there_is_room_for(bench: Bench) -> None:
    """Those that find room are believed, and nothing ends. It is said once, and when that is over."""
    bench.plane.resolver_sockets = bench.plane.maps["resolver_sockets"] = FakeMap(4, 4, 8)
    warnings = Warnings()
    bench.find(*(resolver(served(cookie)) for cookie in range(1, 7)))
    bench.trust.apply(bench.plane)
    rounds(bench)
    assert len(bench.cookies()) == 4
    assert bench.cookies() < set(range(1, 7))
    ((event, explanation),) = bench.said
    assert event == "resolver-sockets-full"
    assert explanation.startswith("the resolvers on this host have 6 sockets, and there is room for 4: ")
    warnings.note(event, explanation)
    assert warnings.current() == {event: explanation}
    bench.find(*(resolver(served(cookie)) for cookie in range(5, 9)))
    rounds(bench)
    assert bench.cookies() == {5, 6, 7, 8}
    assert [event for event, _ in bench.said] == ["resolver-sockets-full", "resolver-sockets-known"]
    warnings.note(*bench.said[-1])
    assert warnings.current() == {}


def test_a_cgroup_that_cannot_be_watched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakePlane, cgroups: Iterable[Path]) -> None:
        raise PermissionError(errno.EPERM, "a program there refuses company")

    monkeypatch.setattr(FakePlane, "watch", refuse)
    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    rounds(bench)
    assert bench.cookies() == {5}
    assert bench.said == [
        (
            "resolver-unwatched",
            "a resolver's cgroup cannot be watched: [Errno 1] a program there refuses company",
        )
    ]


def test_a_look_at_the_host_that_fails_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """resolvers_of() asks the kernel for this host's addresses. That it did not answer once is no reason to
    stop enforcing."""

    def fail(policy: Policy, local: set[abi.IPAddress]) -> list[TrustedResolver]:
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    bench.find(resolver(served(5)))
    bench.trust.apply(bench.plane)
    monkeypatch.setattr(trust, "resolvers_of", fail)
    rounds(bench)
    assert bench.addresses() == {"127.0.0.53"}
    assert bench.cookies() == {5}
