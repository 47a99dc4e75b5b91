"""Who serves local resolvers: made-up answers of the kernel, a made-up /proc and a made-up cgroup2."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns import local
from ram_ebpf.dns.local import (
    LocalFinder,
    LocalResolver,
    LocalSocket,
    UdpSocket,
    find_holders,
    parse_dump,
    request,
    serving,
)
from ram_ebpf.scopes import engines
from ram_ebpf.scopes.cgroup import CgroupNames

ip = ipaddress.ip_address
V4, V6 = socket.AF_INET, socket.AF_INET6
DONE, ERROR, SOCKET = 3, 2, 20


def message(kind: int, body: bytes, sequence: int = V4) -> bytes:
    """A netlink message with its padding."""
    length = 16 + len(body)
    return struct.pack("=IHHII", length, kind, 2, sequence, 0) + body + bytes(-length % 4)


def attribute(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return struct.pack("=HH", length, kind) + data + bytes(-length % 4)


def inet_diag(
    address: str,
    port: int = 53,
    *attributes: bytes,
    family: int | None = None,
    device: int = 0,
    cookie: int = 1,
    uid: int = 0,
    inode: int = 0,
) -> bytes:
    """struct inet_diag_msg as the kernel writes it, with its attributes."""
    packed = ip(address).packed
    family = family or (V4 if len(packed) == 4 else V6)
    return (
        struct.pack("=BBBB", family, 7, 0, 0)
        + struct.pack("!HH", port, 0)
        + packed.ljust(16, b"\0")
        + bytes(16)
        + struct.pack("=III", device, cookie & 0xFFFFFFFF, cookie >> 32)
        + struct.pack("=IIIII", 0, 0, 0, uid, inode)
        + b"".join(attributes)
    )


END = message(DONE, struct.pack("=i", 0))


def parsed(body: bytes) -> UdpSocket:
    sockets, done = parse_dump(message(SOCKET, body), V4)
    assert not done
    return sockets[0]


def test_request() -> None:
    """Laid out as struct inet_diag_req_v2."""
    wire = request(V6, 53)
    assert wire[:16] == struct.pack("=IHHII", 72, 20, 0x301, V6, 0)
    assert wire[16:24] == struct.pack("=BBBBI", V6, 17, 0, 0, 1 << 7)
    assert wire[24:] == b"\0\x35" + bytes(46)


def test_a_socket() -> None:
    body = inet_diag(
        "127.0.0.53",
        53,
        attribute(8, b"\0"),
        attribute(15, bytes(4)),
        attribute(21, struct.pack("=Q", 0x1_0000_0007)),
        attribute(22, bytes(2)),
        device=1,
        cookie=0x0102030405060708,
        uid=101,
        inode=4242,
    )
    assert parsed(body) == UdpSocket(
        ip("127.0.0.53"), 53, 0x0102030405060708, 101, 4242, 1, False, 0x1_0000_0007
    )


def test_a_socket_before_linux_5_9() -> None:
    assert parsed(inet_diag("10.255.255.254", 53, attribute(8, b"\0"))).cgroup_id is None


@pytest.mark.parametrize(
    ("address", "v6only", "expected", "both"),
    [
        ("::", b"\0", "::", True),
        ("::", b"\1", "::", False),
        ("::1", b"\0", "::1", False),
        ("::ffff:127.0.0.1", b"\0", "127.0.0.1", False),
        ("::ffff:0.0.0.0", b"\0", "0.0.0.0", False),
    ],
)
def test_ipv6_sockets(address: str, v6only: bytes, expected: str, both: bool) -> None:
    found = parsed(inet_diag(address, 53, attribute(11, v6only)))
    assert (found.address, found.both) == (ip(expected), both)


def test_a_dump_in_pieces() -> None:
    first = message(SOCKET, inet_diag("127.0.0.1", cookie=1)) + message(SOCKET, inet_diag("::1", cookie=2))
    sockets, done = parse_dump(first, V4)
    assert ([item.cookie for item in sockets], done) == ([1, 2], False)
    sockets, done = parse_dump(message(SOCKET, inet_diag("::1", cookie=3)) + END, V4)
    assert ([item.cookie for item in sockets], done) == ([3], True)
    assert parse_dump(END, V4) == ([], True)
    assert parse_dump(message(DONE, b""), V4) == ([], True)


def test_messages_that_answer_something_else() -> None:
    other = message(SOCKET, inet_diag("127.0.0.1"), sequence=V6) + message(DONE, bytes(4), sequence=V6)
    assert parse_dump(other + message(1, b""), V4) == ([], False)


@pytest.mark.parametrize("kind", [ERROR, DONE])
def test_errors_of_the_kernel(kind: int) -> None:
    """A dump tells of them in its end, for instance when there is no udp_diag."""
    with pytest.raises(FileNotFoundError, match="sock_diag"):
        parse_dump(message(kind, struct.pack("=i", -errno.ENOENT) + bytes(16)), V4)


def test_cut_and_wrong_lengths() -> None:
    body = inet_diag("127.0.0.1", 53, attribute(21, bytes(8)))
    whole = message(SOCKET, body)
    for length in range(1, len(whole)):
        with pytest.raises(OSError, match="malformed"):
            parse_dump(whole[:length], V4)
    for length in (0, 15, len(whole) + 1, 0xFFFFFFFF):
        with pytest.raises(OSError, match="malformed"):
            parse_dump(struct.pack("=I", length) + whole[4:], V4)
    for wrong in (0, 3, 13, 0xFFFF):
        damaged = body[:-12] + struct.pack("=HH", wrong, 21) + bytes(8)
        with pytest.raises(OSError, match="malformed"):
            parse_dump(message(SOCKET, damaged), V4)
    for size in (0, 71, 73):
        with pytest.raises(OSError, match="malformed"):
            parse_dump(message(SOCKET, body[:size]), V4)
    with pytest.raises(OSError, match="malformed"):
        parse_dump(message(SOCKET, inet_diag("127.0.0.1", family=1)), V4)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for wire in (data, message(SOCKET, data), message(SOCKET, inet_diag("::1") + data), message(DONE, data)):
        try:
            parse_dump(wire, V4)
        except OSError:
            continue


class Netlink:
    """Stands for the socket to the kernel: one answer for each family, in pieces."""

    def __init__(self, answers: dict[int, list[bytes]]) -> None:
        self.answers = answers
        self.waiting: list[bytes] = []
        self.connected: object = None

    def __call__(self, family: int, kind: int, protocol: int) -> Netlink:
        assert (family, kind & 0xF, protocol) == (socket.AF_NETLINK, socket.SOCK_RAW, 4)
        return self

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.connected = None

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def connect(self, address: tuple[int, int]) -> None:
        assert address == (0, 0)
        self.connected = address

    def send(self, data: bytes) -> None:
        assert self.connected
        self.waiting = list(self.answers[data[16]])

    def recv(self, size: int) -> bytes:
        assert size >= 32768
        return self.waiting.pop(0)


def test_both_families_are_asked_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[int, list[bytes]] = {
        V4: [message(SOCKET, inet_diag("127.0.0.1", cookie=1)), END],
        V6: [
            message(SOCKET, inet_diag("::1", cookie=2), V6),
            message(SOCKET, inet_diag("::", cookie=3), V6),
            message(DONE, bytes(4), V6),
        ],
    }
    monkeypatch.setattr(socket, "socket", Netlink(answers))
    assert [item.cookie for item in local.udp_sockets()] == [1, 2, 3]


# Which sockets receive.

LOCAL = UdpSocket(ip("127.0.0.53"), 53, 1, 0, 0)
ANY_V4 = UdpSocket(ip("0.0.0.0"), 53, 2, 0, 0)
ANY_V6 = UdpSocket(ip("::"), 53, 3, 0, 0, both=True)
ONLY_V6 = UdpSocket(ip("::"), 53, 4, 0, 0)
LOCAL_V6 = UdpSocket(ip("::1"), 53, 5, 0, 0)
EVERY = [ONLY_V6, ANY_V6, ANY_V4, LOCAL, LOCAL_V6]


@pytest.mark.parametrize(
    ("sockets", "address", "expected"),
    [
        (EVERY, "127.0.0.53", [LOCAL]),
        (EVERY, "127.0.0.1", [ANY_V4]),
        (EVERY, "::1", [LOCAL_V6]),
        (EVERY, "fd77::1", [ONLY_V6, ANY_V6]),
        ([ONLY_V6, ANY_V6], "127.0.0.1", [ANY_V6]),
        ([ONLY_V6], "127.0.0.1", []),
        ([ANY_V4, LOCAL], "::1", []),
        ([], "127.0.0.53", []),
    ],
)
def test_serving(sockets: list[UdpSocket], address: str, expected: list[UdpSocket]) -> None:
    assert serving(sockets, ip(address), 53) == expected
    assert serving(sockets, ip(address), 54) == []


def test_several_sockets_at_one_endpoint() -> None:
    """SO_REUSEPORT, or somebody who shares the address by SO_REUSEADDR."""
    other = replace(LOCAL, cookie=9)
    assert serving([LOCAL, ANY_V4, other], ip("127.0.0.53"), 53) == [LOCAL, other]


def test_sockets_bound_to_a_device() -> None:
    """The host's own datagrams come in by lo, so a socket on another device does not get them."""
    on_lo, on_eth0 = replace(LOCAL, device=1), replace(LOCAL, device=2)
    assert serving([on_lo, on_eth0, ANY_V4], ip("127.0.0.53"), 53) == [on_lo]
    assert serving([on_eth0, ANY_V4], ip("127.0.0.53"), 53) == [ANY_V4]
    assert serving([replace(ANY_V4, device=2), ANY_V6], ip("127.0.0.53"), 53) == [ANY_V6]
    link_local = UdpSocket(ip("fe80::1"), 53, 6, 0, 0, device=2)
    assert serving([link_local, ANY_V6], ip("fe80::1"), 53) == [link_local]


# Sockets to processes and cgroups.


@dataclass
class Host:
    """A made-up host. Processes and cgroups are added as a test goes on; time stands still until told."""

    root: Path
    sockets: list[UdpSocket] = field(default_factory=list)
    now: float = 100.0
    asked: list[int] = field(default_factory=list)
    scans: int = 0

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def mount(self) -> Path:
        return self.root / "cgroup"

    def cgroup(self, name: str) -> int:
        """Makes a cgroup; its id."""
        (self.mount / name).mkdir(parents=True, exist_ok=True)
        return (self.mount / name).stat().st_ino

    def process(
        self,
        pid: int,
        comm: str,
        *inodes: int,
        cgroup: str = "/system.slice/x.service",
        uid: int = 0,
        root: str = "host",
        namespace: int = 4026531836,
    ) -> None:
        descriptors = self.proc / str(pid) / "fd"
        descriptors.mkdir(parents=True)
        (descriptors / "0").symlink_to("/dev/null")
        (descriptors / "1").symlink_to("pipe:[1]")
        for number, inode in enumerate(inodes, 5):
            (descriptors / str(number)).symlink_to(f"socket:[{inode}]")
        (self.proc / str(pid) / "comm").write_text(f"{comm}\n")
        (self.proc / str(pid) / "status").write_text(f"Name:\t{comm}\nUid:\t0\t{uid}\t0\t0\nGid:\t0\n")
        (self.proc / str(pid) / "ns").mkdir()
        (self.proc / str(pid) / "ns" / "pid").symlink_to(f"pid:[{namespace}]")
        (self.root / "roots" / root).mkdir(parents=True, exist_ok=True)
        (self.proc / str(pid) / "root").symlink_to(self.root / "roots" / root)
        (self.proc / str(pid) / "cgroup").write_text(f"1:name=systemd:/other\n0::{cgroup}\n")

    def end(self, pid: int) -> None:
        (self.proc / str(pid)).rename(self.root / f"ended-{pid}")

    def listen(self, cookie: int, inode: int, address: str = "127.0.0.53", **more: int) -> None:
        """A socket, in the root cgroup unless told; `cgroup_id=0` as before Linux 5.9."""
        uid, cgroup_id = more.get("uid", 0), more.get("cgroup_id", self.mount.stat().st_ino) or None
        self.sockets.append(
            UdpSocket(ip(address), more.get("port", 53), cookie, uid, inode, 0, False, cgroup_id)
        )

    def finder(self) -> LocalFinder:
        return LocalFinder(self._list, self.proc, self.mount, lambda: self.now)

    def _list(self, port: int) -> list[UdpSocket]:
        self.asked.append(port)
        return [item for item in self.sockets if port in (0, item.port)]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    result = Host(tmp_path)
    result.mount.mkdir()
    result.proc.mkdir()
    for name in ("self", "sys", "4x"):
        (result.proc / name).mkdir()
    result.process(1, "systemd", cgroup="/init.scope")
    original = find_holders

    def counted(*arguments: object) -> object:
        result.scans += 1
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "find_holders", counted)
    monkeypatch.setattr(engines, "find_cgroup2_mount", lambda: result.mount)
    return result


def resolver(address: str = "127.0.0.53", port: int = 53, local_: bool = True) -> TrustedResolver:
    return TrustedResolver(ip(address), port, local_)


def only(found: list[LocalResolver]) -> LocalResolver:
    assert len(found) == 1
    return found[0]


def test_resolved(host: Host) -> None:
    cgroup = host.cgroup("system.slice/systemd-resolved.service")
    directory = host.mount / "system.slice/systemd-resolved.service"
    host.process(300, "systemd-resolve", 10, 11)
    host.listen(7, 11, uid=101, cgroup_id=cgroup)
    assert host.finder().find([resolver()]) == [
        LocalResolver(
            ip("127.0.0.53"),
            53,
            (7,),
            (directory,),
            101,
            "systemd-resolve",
            (LocalSocket(7, 101, directory, "systemd-resolve", 300),),
        )
    ]


def test_only_local_resolvers_in_their_order(host: Host) -> None:
    host.process(300, "dnsmasq", 11)
    host.listen(7, 11, "127.0.0.1")
    wanted = [resolver("10.0.0.53", local_=False), resolver("127.0.0.1"), resolver("127.0.0.53")]
    found = host.finder().find([*wanted, resolver("127.0.0.1", 5353)])
    assert [(str(item.address), item.port, item.cookies) for item in found] == [
        ("127.0.0.1", 53, (7,)),
        ("127.0.0.53", 53, ()),
        ("127.0.0.1", 5353, ()),
    ]
    assert found[1] == LocalResolver(ip("127.0.0.53"), 53, (), (), None, None)


def test_nothing_is_asked_without_a_local_resolver(host: Host) -> None:
    assert host.finder().find([resolver("10.0.0.53", local_=False)]) == []
    assert host.finder().find([]) == []
    assert host.asked == []


def test_one_port_is_asked_for_alone(host: Host) -> None:
    host.finder().find([resolver(), resolver("127.0.0.54")])
    host.finder().find([resolver(), resolver(port=5353)])
    assert host.asked == [53, 0]


def test_ipv4_mapped_addresses_are_ipv4_ones(host: Host) -> None:
    host.listen(7, 0)
    assert only(host.finder().find([resolver("::ffff:127.0.0.53")])).cookies == (7,)


def test_the_sockets_cgroup_is_the_kernels_word(host: Host) -> None:
    """systemd made the socket and handed it over: the hooks of its packets run in systemd's own cgroup."""
    cgroup = host.cgroup("init.scope")
    host.cgroup("system.slice/x.service")
    host.process(300, "dnsmasq", 11)
    host.listen(7, 11, cgroup_id=cgroup)
    found = only(host.finder().find([resolver()]))
    assert (found.cgroups, found.process) == ((host.mount / "init.scope",), "dnsmasq")


def test_without_the_kernels_word_the_process_tells(host: Host) -> None:
    host.process(300, "dnsmasq", 11, cgroup="/system.slice/dnsmasq.service")
    host.listen(7, 11, cgroup_id=0)
    found = only(host.finder().find([resolver()]))
    assert found.cgroups == (host.mount / "system.slice/dnsmasq.service",)


def test_an_owner_that_cannot_be_found(host: Host) -> None:
    """In another PID namespace, as WSL2's is, or of the kernel itself. Its cgroup is enough."""
    host.process(300, "bash", 5)
    host.listen(7, 11)
    host.listen(8, 0)
    found = only(host.finder().find([resolver()]))
    assert (found.cookies, found.cgroups, found.process, found.uid) == ((7, 8), (host.mount,), None, 0)


def test_the_root_cgroup(host: Host) -> None:
    host.listen(7, 0, cgroup_id=host.mount.stat().st_ino)
    assert only(host.finder().find([resolver()])).cgroups == (host.mount,)


def test_several_sockets(host: Host) -> None:
    first, second = host.cgroup("a"), host.cgroup("b")
    host.process(300, "unbound", 11, 12)
    host.process(301, "other", 13)
    host.listen(9, 11, uid=100, cgroup_id=second)
    host.listen(7, 12, uid=100, cgroup_id=second)
    found = only(host.finder().find([resolver()]))
    assert (found.cookies, found.uid, found.process) == ((7, 9), 100, "unbound")
    assert found.cgroups == (host.mount / "b",)
    host.listen(8, 13, uid=101, cgroup_id=first)
    found = only(host.finder().find([resolver()]))
    assert (found.cookies, found.uid, found.process) == ((7, 8, 9), None, None)
    assert found.cgroups == (host.mount / "a", host.mount / "b")
    assert found.sockets[1] == LocalSocket(8, 101, host.mount / "a", "other", 301)


# Which sockets are believed.

ENGINE, BUILD = "engine.service", "build.service"


@pytest.mark.parametrize(
    ("sockets", "believed"),
    [
        pytest.param({}, [], id="nobody"),
        pytest.param({5: "resolved"}, [5], id="one outside"),
        pytest.param({5: "resolved", 6: "resolved"}, [5, 6], id="several outside"),
        pytest.param({5: "resolved", 6: "other"}, [5, 6], id="others outside"),
        pytest.param({5: "resolved", 6: ENGINE}, [5], id="one inside beside"),
        pytest.param({5: ENGINE, 6: "resolved"}, [6], id="one inside that was there before"),
        pytest.param({5: f"{ENGINE}/child/of/that", 6: "resolved"}, [6], id="below what is governed"),
        pytest.param({5: f"{ENGINE}-2", 6: ENGINE}, [5], id="a name that begins alike"),
        pytest.param({5: ".", 6: BUILD}, [5], id="above what is governed"),
        pytest.param({5: ENGINE}, [], id="only one inside"),
        pytest.param({5: ENGINE, 6: BUILD}, [], id="only some inside"),
    ],
)
def test_what_is_governed_does_not_count(host: Host, sockets: dict[int, str], believed: list[int]) -> None:
    """What has it open is not to be seen, or in a container."""
    for cookie, name in sockets.items():
        host.listen(cookie, cookie + 100, cgroup_id=host.cgroup(name))
    governed = [host.mount / ENGINE, host.mount / BUILD]
    assert only(host.finder().find([resolver()], governed)).cookies == tuple(believed)
    for cookie in sockets:
        host.process(cookie, "contained", cookie + 100, root="container")
    assert only(host.finder().find([resolver()], governed)).cookies == tuple(believed)


@pytest.mark.parametrize(
    ("process", "port", "believed"),
    [
        pytest.param({}, 53, True, id="on the host"),
        pytest.param({"uid": 65534}, 53, True, id="that has become nobody"),
        pytest.param({"root": "container"}, 53, False, id="with a root directory of its own"),
        pytest.param({"namespace": 4026532000}, 53, False, id="in a PID namespace of its own"),
        pytest.param({}, 1024, False, id="with a port that anybody may have"),
    ],
)
def test_a_resolver_on_a_host_that_is_governed_as_a_whole(
    host: Host, process: dict[str, Any], port: int, believed: bool
) -> None:
    host.process(300, "dnsmasq", 11, **process)
    host.listen(7, 11, cgroup_id=host.cgroup("system.slice/dnsmasq.service"), port=port)
    found = only(host.finder().find([resolver(port=port)], [host.mount]))
    assert found.cookies == ((7,) if believed else ())


def test_process_1_may_not_be_looked_at(host: Host) -> None:
    """By a service without CAP_SYS_PTRACE: it is on the host itself."""
    (host.proc / "1/root").unlink()
    (host.proc / "self").rmdir()
    host.process(50, "ram-ebpf")
    (host.proc / "self").symlink_to(host.proc / "50")
    host.process(300, "dnsmasq", 11)
    host.process(301, "contained", 12, root="container")
    host.listen(7, 11)
    host.listen(8, 12)
    assert only(host.finder().find([resolver()], [host.mount])).cookies == (7,)


def test_what_is_governed_is_said_each_time(host: Host) -> None:
    host.process(300, "contained", 11, root="container")
    host.listen(7, 11, cgroup_id=host.cgroup(ENGINE))
    finder = host.finder()
    assert only(finder.find([resolver()])).cookies == (7,)
    assert only(finder.find([resolver()], [host.mount / ENGINE])).cookies == ()
    assert only(finder.find([resolver()], [host.mount / BUILD])).cookies == (7,)


@pytest.mark.parametrize(("uid", "believed"), [(0, True), (101, True), (999, True), (1000, False)])
def test_users(host: Host, uid: int, believed: bool) -> None:
    """SYS_UID_MAX of login.defs(5)."""
    host.listen(7, 0, uid=uid)
    assert only(host.finder().find([resolver()])).cookies == ((7,) if believed else ())


def test_an_unknown_cgroup_is_not_believed(host: Host) -> None:
    """Before Linux 5.9, of a process that is not to be seen: it may live in any."""
    host.listen(7, 11, cgroup_id=0)
    assert only(host.finder().find([resolver()])) == LocalResolver(ip("127.0.0.53"), 53, (), (), None, None)


def test_a_stranger_hides_nobody(host: Host) -> None:
    """The kernel prefers its socket for being bound more exactly. The resolver answers nothing meanwhile, and
    is believed at once when the other has gone."""
    host.listen(7, 0, "0.0.0.0", cgroup_id=host.cgroup("resolved"))
    host.listen(8, 0, "127.0.0.53", cgroup_id=host.cgroup(ENGINE))
    host.listen(9, 0, "127.0.0.53", uid=1000)
    assert only(host.finder().find([resolver()], [host.mount / ENGINE])).cookies == (7,)


def test_what_was_found_is_only_confirmed(host: Host) -> None:
    host.process(300, "dnsmasq", 11)
    host.listen(7, 11)
    finder = host.finder()
    first = finder.find([resolver()])
    for _ in range(3):
        assert finder.find([resolver()]) == first
    assert host.scans == 1


def test_a_resolver_that_is_started_anew(host: Host) -> None:
    """Its sockets, its process and its cgroup are new, whatever their names."""
    name = "system.slice/dnsmasq.service"
    old = host.cgroup(name)
    host.process(300, "dnsmasq", 11)
    host.listen(7, 11, cgroup_id=old)
    finder = host.finder()
    assert only(finder.find([resolver()])).cgroups == (host.mount / name,)
    host.end(300)
    (host.mount / name).rename(host.root / "old")
    new = host.cgroup(name)
    assert new != old
    # Somebody else has inherited the old socket, whose cgroup is no more.
    host.process(301, "dnsmasq", 12)
    host.process(302, "child", 11)
    host.listen(8, 12, cgroup_id=new)
    found = only(finder.find([resolver()]))
    assert found.sockets == (LocalSocket(8, 0, host.mount / name, "dnsmasq", 301),)
    assert found.cgroups == (host.mount / name,)
    assert found.process == "dnsmasq"


def test_an_owner_is_looked_for_again_after_a_while(host: Host) -> None:
    host.listen(7, 11)
    finder = host.finder()
    for _ in range(3):
        assert only(finder.find([resolver()])).process is None
    assert host.scans == 1
    host.process(300, "late", 11)
    host.now += 11
    assert only(finder.find([resolver()])).process == "late"
    assert host.scans == 2
    # A new socket is looked for at once.
    host.listen(8, 12)
    finder.find([resolver()])
    assert host.scans == 3


def test_a_removed_cgroup_is_looked_for_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.listen(7, 0, cgroup_id=2**40)
    finder = host.finder()
    assert only(finder.find([resolver()])).cgroups == ()
    monkeypatch.setattr(CgroupNames, "path", lambda *_: pytest.fail("walked again"))
    assert only(finder.find([resolver()])).cgroups == ()


def test_likely_processes_first_and_no_more_than_needed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (host.proc / "1" / "fd" / "5").symlink_to("socket:[11]")
    host.process(200, "bash")
    host.process(300, "systemd-resolve", 11)
    seen: list[str] = []
    entries: Callable[[str], list[str]] = local._entries

    def noted(directory: str) -> list[str]:
        seen.append(directory)
        return entries(directory)

    monkeypatch.setattr(local, "_entries", noted)
    assert find_holders([11], host.proc)[11].pid == 300
    assert seen == [str(host.proc), f"{host.proc}/300/fd"]


def test_processes_that_vanish(host: Host) -> None:
    (host.proc / "60").mkdir()
    (host.proc / "61").mkdir()
    (host.proc / "61" / "comm").write_bytes(b"\xff\xfe\n")
    host.process(62, "dnsmasq", 12)
    (host.proc / "62" / "fd" / "9").write_text("no link")
    found = find_holders([11, 12, 0], host.proc)
    assert {inode: holder.pid for inode, holder in found.items()} == {12: 62}
    assert find_holders([11], host.root / "nowhere") == {}


# Docker's resolver.

DOCKER = resolver("127.0.0.11")


def docker(cgroups: tuple[Path, ...]) -> LocalResolver:
    return LocalResolver(ip("127.0.0.11"), 53, (), cgroups, None, "dockerd" if cgroups else None)


def test_docker(host: Host) -> None:
    host.process(400, "dockerd", cgroup="/system.slice/docker.service")
    host.process(401, "containerd", cgroup="/system.slice/containerd.service")
    host.process(402, "dockerd", cgroup="/system.slice/docker-2.service")
    found = host.finder().find([DOCKER])
    both = (host.mount / "system.slice/docker-2.service", host.mount / "system.slice/docker.service")
    assert found == [docker(both)]
    assert host.asked == []  # its sockets are not in this namespace


def test_docker_beside_another_resolver(host: Host) -> None:
    host.listen(7, 0, "0.0.0.0")
    found = host.finder().find([DOCKER, resolver()])
    assert [item.cookies for item in found] == [(), (7,)]
    assert host.asked == [53]


def test_docker_comes_and_goes(host: Host) -> None:
    finder = host.finder()
    assert finder.find([DOCKER]) == [docker(())]
    host.process(400, "dockerd", cgroup="/docker.service")
    assert finder.find([DOCKER]) == [docker((host.mount / "docker.service",))]
    host.end(400)
    assert finder.find([DOCKER]) == [docker(())]
    host.process(401, "dockerd", cgroup="/docker.service")
    assert finder.find([DOCKER]) == [docker((host.mount / "docker.service",))]


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"root": "container"}, id="with a root directory of its own"),
        pytest.param({"namespace": 4026532000}, id="in a PID namespace of its own"),
        pytest.param({"uid": 1000}, id="of an ordinary user"),
    ],
)
def test_a_container_that_calls_itself_dockerd(host: Host, more: dict[str, Any]) -> None:
    """Any process may choose its name. The replies of a container's cgroup would be believed otherwise."""
    host.process(400, "dockerd", cgroup="/docker.service")
    host.process(401, "dockerd", cgroup="/docker-4711.scope", **more)
    assert host.finder().find([DOCKER]) == [docker((host.mount / "docker.service",))]


def test_asked_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LocalFinder] = []

    def make() -> LocalFinder:
        made.append(host.finder())
        return made[-1]

    monkeypatch.setattr(local, "LocalFinder", make)
    host.listen(7, 0)
    assert only(local.find_local([resolver()])).cookies == (7,)
    assert len(made) == 1
