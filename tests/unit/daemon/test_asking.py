"""Names of which nobody knows whether a registry answers there, with real servers and maps in memory."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon import asking
from ram_ebpf.daemon.asking import Asker
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.dataplane import abi, clock, sockets
from ram_ebpf.dataplane.abi import IPAddress, Posture, Reason, Unknown, Verdict
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.sockets import Connection
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.dataplane.tables import refused_list
from ram_ebpf.dns.response import Answer
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import FoundRule, compile_rules
from tests.unit.oci.server import LOOPBACK, REGISTRY, WEBSITE, Server, closed_port

from .maps import FakeMap
from .plane import FakePlane
from .samples import EVENT

ip = ipaddress.ip_address
CLIENT = ip("10.77.0.10")
DAY, MINUTE = 86400.0, 60.0
TCP, UDP = 6, 17
POLICY = """version: 1
registries:
  - host: "**.corp.example"
    ports: [5000]
denied: ["*.bad.example"]
"""
RULES = compile_rules(parse_policy(POLICY.encode(), "policy.yaml"), load_catalogue(), recognising=True)
UNASKED = replace(
    EVENT, verdict=Verdict.ALLOW, reason=Reason.ALLOWED_UNASKED, address=LOOPBACK, scope=3, socket_cookie=5
)


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.002)
    return holds()


def packet(port: int, remote: IPAddress, remote_port: int) -> bytes:
    """The beginning of a connection, without its options."""
    segment = struct.pack("!HHIIBBHHH", port, remote_port, 1, 0, 5 << 4, 2, 65535, 0, 0)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, TCP, 0)
    return header + CLIENT.packed + remote.packed + segment


class Bench:
    """An asker, what it wrote, and what it said."""

    def __init__(
        self, *ports: int, unknown: Unknown = Unknown.PROBE, mode: abi.Mode = abi.Mode.ENFORCE
    ) -> None:
        settings = Settings(unknown=unknown, asked_ports=ports, mode=mode)
        self.ports = ports
        self.plane = FakePlane(RULES, settings, posture=Posture.REGISTRIES)
        self.view = self.plane.view
        self.scope = self.plane.govern(3)
        self.history = NameHistory()
        self.said: list[tuple[str, str, str]] = []
        self.asker = Asker(self.plane, self.history, ports, self._say)

    def _say(self, event: str, explanation: str, host: str) -> None:
        self.said.append((event, host, explanation))

    def look_up(self, name: str, *addresses: str) -> None:
        """As a client does, and as the controller hears of it."""
        answer = Answer(name, tuple((ip(address), 60) for address in addresses or ("127.0.0.1",)))
        self.history.note(answer)
        self.asker.note(answer)

    def connect(self, port: int | None = None, address: str = "127.0.0.1", **changes: Any) -> None:
        self.asker.take(
            replace(UNASKED, port=self.ports[0] if port is None else port, address=ip(address), **changes)
        )

    def is_idle(self) -> bool:
        with self.asker._lock:
            return not any(subject.asked for subject in self.asker._subjects.values())

    def wait(self) -> None:
        assert eventually(self.is_idle, 10)

    def asked(self) -> dict[tuple[str, int], float]:
        """Endpoints where there is no registry, with the seconds for which that holds."""
        found = {}
        for key, value in self.plane.asked.entries.items():
            endpoint = abi.Endpoint.from_buffer_copy(key)
            seconds = (struct.unpack("=Q", value)[0] - clock.now_ns()) / NANOSECONDS
            found[str(abi.unpack_address(bytes(endpoint.address))), endpoint.port] = seconds
        return found

    def refused(self, entries: FakeMap | None = None) -> dict[tuple[str, int], FoundRule]:
        """Endpoints that are refused, with the rule of each."""
        found = {}
        for key, value in (entries or self.view.seeded).entries.items():
            opening_key, opening = abi.OpeningKey.from_buffer_copy(key), abi.Opening.from_buffer_copy(value)
            rule = self.view.tables.rule(opening.rule)
            assert isinstance(rule, FoundRule)
            assert opening_key.port_list == refused_list(rule.port)
            port = opening_key.port_list - abi.RefusedList.ON
            found[str(abi.unpack_address(bytes(opening_key.address))), port] = rule
        return found

    def rule_of(self, name: str) -> object:
        """By which the kernel would find the name from now on."""
        value = self.view.names.get(self.view.tables.key_of(name))
        return None if value is None else self.view.tables.rule(abi.Suffix.from_buffer_copy(value).exact)

    def cut(self) -> list[int]:
        return [struct.unpack("=Q", key)[0] for key in self.plane.cut_sockets.entries]


@pytest.fixture(autouse=True)
def destroyed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Connection, int, Path | None]]:
    """Connections that the kernel was told to end: no test may end one of this machine."""
    found: list[tuple[Connection, int, Path | None]] = []
    monkeypatch.setattr(sockets, "destroy", lambda *arguments: found.append(arguments))
    monkeypatch.setattr(asking, "_WORKERS", 2)
    return found


@pytest.fixture
def registry() -> Iterator[Server]:
    with Server(REGISTRY) as server:
        yield server


@pytest.fixture
def website() -> Iterator[Server]:
    with Server(WEBSITE) as server:
        yield server


# --- what comes of asking


def test_a_registry_is_refused_from_then_on(registry: Server) -> None:
    bench = Bench(registry.port)
    bench.look_up("new.example", "127.0.0.1", "127.0.0.7")
    bench.connect()
    bench.wait()
    assert bench.refused() == {("127.0.0.1", registry.port): FoundRule(registry.port)}
    assert bench.rule_of("new.example") == FoundRule(registry.port)
    assert bench.asked() == {}
    (request,) = registry.requests
    assert f"\r\nHost: new.example:{registry.port}\r\n" in request
    (opening,) = bench.view.seeded.entries.values()
    left = (abi.Opening.from_buffer_copy(opening).expires_ns - clock.now_ns()) / NANOSECONDS
    assert DAY - 30 < left <= DAY


def test_it_is_told_once(registry: Server) -> None:
    bench = Bench(registry.port)
    bench.look_up("new.example")
    bench.connect()
    bench.wait()
    bench.connect()
    assert eventually(lambda: not bench.asker._news.empty())
    assert bench.said == []  # by the thread that writes the log, when that gets to it
    bench.asker.tell()
    bench.asker.tell()
    assert bench.said == [
        (
            "registry-found",
            "new.example",
            f"a registry answers at new.example:{registry.port}, and the policy does not allow it: "
            "it is refused from now on",
        )
    ]


def test_a_website_is_left_alone(website: Server) -> None:
    bench = Bench(website.port)
    bench.look_up("site.example")
    bench.connect()
    bench.wait()
    ((endpoint, seconds),) = bench.asked().items()
    assert endpoint == ("127.0.0.1", website.port)
    assert DAY - 30 < seconds <= DAY
    assert (bench.refused(), bench.rule_of("site.example"), bench.cut()) == ({}, None, [])
    bench.asker.tell()
    assert bench.said == []


def test_each_name_and_port_is_asked_once(website: Server) -> None:
    bench = Bench(website.port)
    bench.look_up("site.example", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    for _ in range(20):
        bench.connect()
    bench.wait()
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        bench.connect(address=address)
    bench.wait()
    assert len(website.requests) == 1
    assert set(bench.asked()) == {(f"127.0.0.{n}", website.port) for n in (1, 2, 3)}


def test_several_addresses_of_a_registry(registry: Server) -> None:
    """Those that were used while it was asked, and those that are used later."""
    bench = Bench(registry.port)
    bench.look_up("new.example", "127.0.0.1", "127.0.0.2", "127.0.0.3")
    bench.connect()
    bench.connect(address="127.0.0.2")
    bench.wait()
    bench.connect(address="127.0.0.2")
    assert set(bench.refused()) >= {("127.0.0.1", registry.port), ("127.0.0.2", registry.port)}
    bench.connect(address="127.0.0.3")
    assert set(bench.refused()) == {(f"127.0.0.{n}", registry.port) for n in (1, 2, 3)}
    assert len(registry.requests) == 1


def test_ports_of_a_name_are_asked_each(registry: Server) -> None:
    with Server(REGISTRY) as other, Server(WEBSITE) as site:
        bench = Bench(registry.port, other.port, site.port)
        bench.look_up("new.example")
        bench.connect(registry.port)
        bench.wait()
        bench.connect(site.port)
        bench.wait()
        assert bench.rule_of("new.example") == FoundRule(registry.port)
        bench.connect(other.port)
        bench.wait()
        assert bench.refused() == {
            ("127.0.0.1", port): FoundRule(port) for port in (registry.port, other.port)
        }
        assert list(bench.asked()) == [("127.0.0.1", site.port)]
        # Of two of its ports: whichever is used, its addresses are refused.
        assert bench.rule_of("new.example") == FoundRule(None)


def test_an_address_without_a_name(registry: Server) -> None:
    bench = Bench(registry.port)
    bench.connect()
    bench.wait()
    assert bench.refused() == {("127.0.0.1", registry.port): FoundRule(registry.port)}
    assert bench.view.names.entries == {}
    assert f"\r\nHost: 127.0.0.1:{registry.port}\r\n" in registry.requests[0]
    assert eventually(lambda: not bench.asker._news.empty())
    bench.asker.tell()
    assert [host for _, host, _ in bench.said] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("unknown", "seconds"), [(Unknown.PROBE, MINUTE), (Unknown.DENY, None)], ids=["probe", "deny"]
)
def test_silence(unknown: Unknown, seconds: float | None) -> None:
    """It is asked again later. Where unknown names are refused, nobody's silence lets one pass."""
    port = closed_port()
    bench = Bench(port, unknown=unknown)
    bench.look_up("silent.example")
    bench.connect()
    bench.wait()
    bench.connect()
    if seconds is None:
        assert bench.asked() == {}
    else:
        (left,) = bench.asked().values()
        assert seconds - 30 < left <= seconds
    assert (bench.refused(), bench.rule_of("silent.example")) == ({}, None)


def test_a_website_passes_where_unknown_names_are_refused(website: Server) -> None:
    bench = Bench(website.port, unknown=Unknown.DENY)
    bench.look_up("site.example")
    bench.connect(verdict=Verdict.DENY, reason=Reason.DENIED_UNASKED)
    bench.wait()
    assert list(bench.asked()) == [("127.0.0.1", website.port)]


@pytest.mark.parametrize("keep", ["_KEEP", "_KEEP_SILENCE"])
def test_it_is_asked_again_when_the_answer_is_old(monkeypatch: pytest.MonkeyPatch, keep: str) -> None:
    answers = iter([False, True] if keep == "_KEEP" else [None, True])
    monkeypatch.setattr(asking, "ask", lambda *_: next(answers))
    monkeypatch.setattr(asking, keep, 0.0)
    bench = Bench(443)
    bench.look_up("later.example")
    bench.connect()
    bench.wait()
    assert bench.refused() == {}
    bench.connect()
    bench.wait()
    assert list(bench.refused()) == [("127.0.0.1", 443)]


# --- who is not asked


@pytest.mark.parametrize("changes", [{"pid": os.getpid()}, {"protocol": UDP}], ids=["ourselves", "UDP"])
def test_who_is_not_asked(website: Server, changes: dict[str, Any]) -> None:
    bench = Bench(website.port)
    bench.connect(**changes)
    assert bench.is_idle()
    assert not bench.asker._subjects


def test_our_own_connections_are_known(website: Server) -> None:
    bench = Bench(website.port)
    bench.connect()
    bench.wait()
    cookies = [struct.unpack("=Q", key)[0] for key in bench.plane.own_sockets.entries]
    assert len(set(cookies)) == website.connections == 2
    assert all(cookies)


# --- what the policy and the catalogue say of a name stays so


@pytest.mark.parametrize("name", ["a.corp.example", "a.bad.example", "quay.io"])
def test_names_of_which_something_is_said(registry: Server, name: str) -> None:
    """An allowed one stays allowed on its own port, a denied one is refused on more than this one."""
    assert RULES.match(name) is not None
    bench = Bench(registry.port)
    bench.look_up(name)
    bench.connect()
    bench.wait()
    assert bench.refused() == {("127.0.0.1", registry.port): FoundRule(registry.port)}
    assert bench.view.names.entries == {}


def test_what_stood_at_the_name_stays(registry: Server) -> None:
    """Patterns for the names below it share its entry."""
    bench = Bench(registry.port)
    key = bench.view.tables.key_of("new.example")
    bench.view.names[key] = bytes(abi.Suffix(0, 7, 8))
    bench.look_up("new.example")
    bench.connect()
    bench.wait()
    suffix = abi.Suffix.from_buffer_copy(bench.view.names.entries[key])
    assert bench.view.tables.rule(suffix.exact) == FoundRule(registry.port)
    assert (suffix.one, suffix.deep) == (7, 8)


def test_views_in_which_registries_are_not_recognised_hear_nothing(registry: Server) -> None:
    bench = Bench(registry.port)
    strict = bench.plane.open_view(RULES, Posture.STRICT)
    other = bench.plane.open_view(RULES, Posture.REGISTRIES)
    bench.look_up("new.example")
    bench.connect()
    bench.wait()
    assert (strict.seeded.entries, strict.names.entries) == ({}, {})
    assert bench.refused(other.seeded) == bench.refused()
    assert other.names.entries == bench.view.names.entries != {}


# --- connections that were let through


def flow_key(port: int, remote_port: int) -> bytes:
    return abi.flow(CLIENT, port, LOOPBACK, remote_port, TCP)


def test_they_are_cut(registry: Server, destroyed: list[tuple[Connection, int, Path | None]]) -> None:
    bench = Bench(registry.port)
    established = bench.scope.add_established()
    for port in (4001, 4002, 4003):
        established[flow_key(port, registry.port)] = bytes(abi.Connection(1))
    bench.look_up("new.example")
    # The system call knows the process, and the packet the connection; they have one socket.
    bench.connect(socket_cookie=71, pid=42)
    bench.connect(socket_cookie=71, pid=None, packet=packet(4001, LOOPBACK, registry.port))
    bench.connect(socket_cookie=72, pid=None, packet=packet(4002, LOOPBACK, registry.port))
    bench.wait()
    bench.connect(socket_cookie=71, pid=None, packet=packet(4001, LOOPBACK, registry.port))
    bench.connect(socket_cookie=72, pid=None, packet=packet(4002, LOOPBACK, registry.port))
    assert set(bench.cut()) == {71, 72}
    assert list(established.entries) == [flow_key(4003, registry.port)]
    assert {(connection.local_port, cookie) for connection, cookie, _ in destroyed} == {
        (4001, 71),
        (4002, 72),
    }
    for connection, _, _ in destroyed:
        assert (connection.local, connection.remote, connection.remote_port) == (
            CLIENT,
            LOOPBACK,
            registry.port,
        )


def test_nothing_is_cut_in_audit_mode(
    registry: Server, destroyed: list[tuple[Connection, int, Path | None]]
) -> None:
    """The name is refused in the kernel, which says "would-deny" of it; but nobody's connection ends."""
    bench = Bench(registry.port, mode=abi.Mode.AUDIT)
    established = bench.scope.add_established()
    established[flow_key(4001, registry.port)] = bytes(abi.Connection(1))
    bench.look_up("new.example")
    for cookie in (71, 0):
        bench.connect(socket_cookie=cookie, packet=packet(4001, LOOPBACK, registry.port))
    bench.wait()
    bench.connect(socket_cookie=71, packet=packet(4001, LOOPBACK, registry.port))
    assert bench.rule_of("new.example") == FoundRule(registry.port)
    assert (bench.cut(), destroyed) == ([], [])
    assert list(established.entries) == [flow_key(4001, registry.port)]
    bench.asker.tell()
    ((_, _, explanation),) = bench.said
    assert explanation.endswith(": it would be refused")


class Asked:
    """Somebody who is asked, and who answers when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: bool | None) -> None:
        self.calls: list[tuple[IPAddress, int, str | None]] = []
        self.may_answer = threading.Event()
        self._answers = iter(answers)
        monkeypatch.setattr(asking, "ask", self._ask)

    def _ask(self, address: IPAddress, port: int, name: str | None, _: object) -> bool | None:
        self.calls.append((address, port, name))
        assert self.may_answer.wait(10)
        return next(self._answers)


def test_socket_of_another_namespace(
    monkeypatch: pytest.MonkeyPatch, destroyed: list[tuple[Connection, int, Path | None]]
) -> None:
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    bench.connect(socket_cookie=71, pid=42)
    bench.connect(socket_cookie=71, pid=None, packet=packet(4001, LOOPBACK, 443))
    bench.connect(socket_cookie=72, pid=None, packet=packet(4002, LOOPBACK, 443))
    bench.connect(socket_cookie=73, pid=43)  # nothing more is known of it
    asked.may_answer.set()
    bench.wait()
    assert bench.cut() == [71, 72, 73]
    assert [(cookie, where) for _, cookie, where in destroyed] == [(71, Path("/proc/42/ns/net")), (72, None)]


def test_connections_at_a_device_have_no_socket_here(
    monkeypatch: pytest.MonkeyPatch, destroyed: list[tuple[Connection, int, Path | None]]
) -> None:
    """There may be several, and all of them are cut."""
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    established = bench.scope.add_established()
    for port in (4001, 4002):
        established[flow_key(port, 443)] = bytes(abi.Connection(1))
        bench.connect(socket_cookie=0, pid=None, packet=packet(port, LOOPBACK, 443))
    asked.may_answer.set()
    bench.wait()
    assert established.entries == {}
    assert (bench.cut(), destroyed) == ([], [])


def test_connection_of_which_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    for garbage in (b"", b"\x45", b"\xff" * 60):
        bench.connect(socket_cookie=0, packet=garbage)
    asked.may_answer.set()
    bench.wait()
    assert bench.refused()
    assert bench.cut() == []


def test_scope_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    bench.connect(socket_cookie=71, packet=packet(4001, LOOPBACK, 443))
    bench.plane.abandon(3)
    asked.may_answer.set()
    bench.wait()
    assert bench.cut() == [71]


def test_connections_that_cannot_be_ended_are_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(95, "sock_diag: Operation not supported")

    monkeypatch.setattr(sockets, "destroy", fail)
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    for cookie in (71, 72):
        bench.connect(socket_cookie=cookie, packet=packet(4000 + cookie, LOOPBACK, 443))
    asked.may_answer.set()
    bench.wait()
    assert bench.cut() == [71, 72]


def test_only_so_many_connections_are_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_MOST_CONNECTIONS", 3)
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    for cookie in range(1, 11):
        bench.connect(socket_cookie=cookie)
    asked.may_answer.set()
    bench.wait()
    assert bench.cut() == [8, 9, 10]


@pytest.mark.parametrize("answer", [False, None])
def test_connections_elsewhere_go_on(monkeypatch: pytest.MonkeyPatch, answer: bool | None) -> None:
    asked = Asked(monkeypatch, answer)
    bench = Bench(443)
    bench.connect(socket_cookie=71)
    asked.may_answer.set()
    bench.wait()
    assert bench.cut() == []


def test_connections_from_before_silence_are_cut_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, None, True)
    monkeypatch.setattr(asking, "_KEEP_SILENCE", 0.0)
    asked.may_answer.set()
    bench = Bench(443)
    bench.connect(socket_cookie=71)
    bench.wait()
    bench.connect(socket_cookie=72)
    bench.wait()
    assert bench.cut() == [71, 72]


# --- one address, several names: the last lookup decides


def test_another_name_at_an_address_is_asked_for_itself(website: Server) -> None:
    bench = Bench(website.port)
    bench.look_up("one.example")
    bench.connect()
    bench.wait()
    bench.look_up("one.example")
    assert bench.asked()
    bench.look_up("two.example")
    assert bench.asked() == {}
    bench.connect()
    bench.wait()
    assert bench.asked()
    hosts = [request.split("\r\nHost: ")[1].split(":")[0] for request in website.requests]
    assert hosts == ["one.example", "two.example"]


def test_another_name_at_the_address_of_a_registry(registry: Server) -> None:
    bench = Bench(registry.port)
    other = bench.plane.govern(4)
    strict = bench.plane.govern(5, bench.plane.open_view(RULES, Posture.STRICT))
    bench.look_up("new.example")
    bench.connect()
    bench.wait()
    key = abi.opening_key(LOOPBACK, refused_list(registry.port))
    elsewhere = abi.opening_key(ip("192.0.2.1"), refused_list(registry.port))

    def learn() -> None:  # as the kernel does from each reply for the name
        for scope in (bench.scope, other, strict):
            scope.learned[key] = scope.learned[elsewhere] = bytes(abi.Opening(2**62, 1, abi.OpeningFlag(0)))

    learn()
    bench.look_up("new.example")
    assert bench.refused()
    assert key in bench.scope.learned.entries
    bench.look_up("site.example")
    assert bench.refused() == {}
    for scope in (bench.scope, other):
        assert list(scope.learned.entries) == [elsewhere]
    assert key in strict.learned.entries
    # Its own name is still refused, and its address is again as soon as that is looked up or used.
    assert bench.rule_of("new.example") == FoundRule(registry.port)
    learn()
    bench.look_up("new.example")
    bench.look_up("site.example")
    assert list(bench.scope.learned.entries) == [elsewhere]
    bench.look_up("new.example")
    bench.connect()
    assert bench.refused()
    assert len(registry.requests) == 1


def test_another_name_while_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address belongs to that name by the time of the answer. The first name is known all the same."""
    asked = Asked(monkeypatch, True, False)
    bench = Bench(443)
    bench.look_up("new.example", "127.0.0.1", "127.0.0.2")
    bench.connect(socket_cookie=71)
    bench.connect(socket_cookie=72, address="127.0.0.2")
    bench.look_up("site.example", "127.0.0.1")
    asked.may_answer.set()
    bench.wait()
    assert list(bench.refused()) == [("127.0.0.2", 443)]
    assert bench.rule_of("new.example") == FoundRule(443)
    assert bench.cut() == [71, 72]
    bench.connect(socket_cookie=73)
    bench.wait()
    assert list(bench.asked()) == [("127.0.0.1", 443)]
    assert bench.cut() == [71, 72]


def test_ports_that_nobody_asks_are_left_alone(website: Server) -> None:
    bench = Bench(website.port)
    bench.look_up("one.example")
    bench.connect()
    bench.wait()
    other = abi.endpoint(LOOPBACK, website.port ^ 1)
    bench.plane.asked[other] = bytes(8)
    bench.look_up("two.example")
    assert list(bench.plane.asked.entries) == [other]


# --- too much, and surprises


def test_full_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no room is asked when somebody connects there again."""
    monkeypatch.setattr(asking, "_WORKERS", 1)
    monkeypatch.setattr(asking, "_MOST_WAITING", 1)
    asked = Asked(monkeypatch, *[False] * 10)
    bench = Bench(443)
    for number in range(1, 6):
        bench.look_up(f"site{number}.example", f"127.0.0.{number}")
    bench.connect(address="127.0.0.1")
    assert eventually(lambda: len(asked.calls) == 1)
    for number in range(2, 6):
        bench.connect(address=f"127.0.0.{number}")
    asked.may_answer.set()
    bench.wait()
    assert [name for _, _, name in asked.calls] == ["site1.example", "site2.example"]
    bench.connect(address="127.0.0.5")
    bench.wait()
    assert [name for _, _, name in asked.calls[2:]] == ["site5.example"]


def test_slow_ones_keep_nobody_waiting_who_takes_events(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, *[False] * 100)
    bench = Bench(443)
    started = time.monotonic()
    for number in range(100):
        bench.connect(address=f"127.0.1.{number}")
    bench.look_up("one.example", "127.0.1.1")
    assert time.monotonic() - started < 1
    asked.may_answer.set()
    bench.wait()
    assert len(asked.calls) == 100


def test_surprises_end_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[bool | Exception] = [RecursionError("deep"), KeyError("what"), True]

    def fail(*_: object) -> bool:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(asking, "_WORKERS", 1)
    monkeypatch.setattr(asking, "ask", fail)
    bench = Bench(443)
    for number in (1, 2, 3):
        bench.look_up(f"site{number}.example", f"127.0.0.{number}")
        bench.connect(address=f"127.0.0.{number}")
        bench.wait()
    assert list(bench.refused()) == [("127.0.0.3", 443)]
    assert "site1.example could not be asked" in caplog.text


@pytest.mark.parametrize("full", ["seeded", "names", "cut_sockets"])
def test_full_maps(monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    """What can be done is done, and the rest tried again with the next event."""
    asked = Asked(monkeypatch, True)
    bench = Bench(443)
    item = {**bench.plane.maps, **bench.view.maps}[full]
    assert isinstance(item, FakeMap)
    room = item.shape
    item.shape = room._replace(max_entries=0, type=MapType.HASH)
    bench.look_up("new.example")
    bench.connect(socket_cookie=71)
    asked.may_answer.set()
    bench.wait()
    assert bool(bench.refused()) is (full != "seeded")
    assert bench.cut() == ([] if full == "cut_sockets" else [71])
    item.shape = room
    bench.connect(socket_cookie=72)
    assert list(bench.refused()) == [("127.0.0.1", 443)]
    assert bench.rule_of("new.example") == FoundRule(443)
    assert 72 in bench.cut()


def test_only_so_much_is_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_MOST_KNOWN", 4)
    asked = Asked(monkeypatch, *[False] * 100)
    asked.may_answer.set()
    bench = Bench(443)
    for number in range(20):
        bench.connect(address=f"127.0.0.{number}")
        bench.wait()
    assert [name for name, _ in bench.asker._subjects] == [f"127.0.0.{number}" for number in range(16, 20)]
    assert len(bench.asker._under) == 4
    bench.connect(address="127.0.0.19")
    assert len(asked.calls) == 20
    bench.connect(address="127.0.0.0")
    bench.wait()
    assert len(asked.calls) == 21


def test_a_name_that_is_forgotten_while_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_MOST_KNOWN", 1)
    monkeypatch.setattr(asking, "_WORKERS", 1)
    asked = Asked(monkeypatch, True, False)
    bench = Bench(443)
    bench.connect(address="127.0.0.1")
    assert eventually(lambda: len(asked.calls) == 1)
    bench.connect(address="127.0.0.2")
    asked.may_answer.set()
    bench.wait()
    assert bench.refused() == {}
    assert list(bench.asked()) == [("127.0.0.2", 443)]


def test_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads end, also the one that waits for an answer, and nothing is written any more."""
    monkeypatch.setattr(asking, "_MOST_WAITING", 4)
    before = set(threading.enumerate())
    asked = Asked(monkeypatch, *[True] * 100)
    bench = Bench(443)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 2
    for number in range(1, 3):
        bench.connect(address=f"127.0.0.{number}")
    assert eventually(lambda: len(asked.calls) == 2)
    for number in range(3, 20):
        bench.connect(address=f"127.0.0.{number}")
    assert bench.asker._queue.full()
    bench.asker.close()
    asked.may_answer.set()
    for thread in threads:
        thread.join(5.0)
        assert not thread.is_alive()
    assert len(asked.calls) == 2
    assert (bench.refused(), bench.asked(), bench.cut()) == ({}, {}, [])


def test_cookies_are_the_kernels() -> None:
    """SO_COOKIE, which this version of Python may not know."""
    known = getattr(socket, "SO_COOKIE", asking._SO_COOKIE)
    assert known == asking._SO_COOKIE
    with socket.socket() as one, socket.socket() as other:
        cookies = [item.getsockopt(socket.SOL_SOCKET, asking._SO_COOKIE, 8) for item in (one, other)]
    assert len(set(cookies)) == 2
