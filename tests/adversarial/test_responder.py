"""Attacks on the refusal responder, and by way of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from ram_ebpf.responder.process import MOST_FILES
from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import Field, Target, attempt, eventually, governed, tcp_connect
from tests.lab.daemon import Daemon
from tests.lab.lab import Lab
from tests.lab.test_responder import BLOCKED, POLICY, TEXT, wait_responder
from tests.lab.test_responder_life import processes_of
from tests.lab.test_status import ask

ADDRESS = "127.82.65.77"
MANY = 400  # connections, more than the responder has room for
IN_TIME = 5.0  # seconds; without an attack it is some hundredths


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        wait_responder(result)
        yield result


@pytest.fixture(scope="module")
def port(daemon: Daemon) -> int:
    (line,) = [line for line in daemon.lines() if line["event"] == "responder"]
    return int(line["explanation"].rpartition(":")[2])


@pytest.fixture
def field(lab: Lab, daemon: Daemon) -> Iterator[Field]:
    (process,) = processes_of(daemon)
    with Field(lab, daemon) as result:
        yield result
    assert processes_of(daemon) == [process], "the responder's process did not outlive the attack"


@pytest.fixture
def target(field: Field) -> Target:
    return field.target()


def answer_in_clear_text(lab: Lab) -> float:
    """The seconds until a client of the same scope has been told."""
    done = lab.client.run(["curl", "-sS", "--max-time", "20", f"http://{BLOCKED}/v2/"]).check()
    assert json.loads(done.stdout)["errors"][0]["message"] == TEXT
    return done.seconds


def test_the_responder_itself_is_no_way_out(lab: Lab, field: Field, port: int) -> None:
    for address, family in (
        (ADDRESS, socket.AF_INET),
        ("::1", socket.AF_INET6),
        (f"::ffff:{ADDRESS}", socket.AF_INET6),
    ):
        with pytest.raises(PermissionError):
            field.inside.socket(family, socket.SOCK_STREAM).connect((address, port))
        with pytest.raises(PermissionError):
            field.inside.socket(family, socket.SOCK_DGRAM).sendto(b"x", (address, port))
        with pytest.raises(PermissionError):
            field.inside.socket(family, socket.SOCK_DGRAM).connect((address, port))


def test_others_at_its_address(lab: Lab, field: Field) -> None:
    """What somebody else has at the address of the responder is as closed as ever."""
    server = field.outside.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((ADDRESS, 0))
    server.listen()
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, ADDRESS, server.port())
    tcp_connect(field.outside, ADDRESS, server.port())


def test_a_led_socket_that_connects_again(lab: Lab, field: Field, target: Target, port: int) -> None:
    """Having been led once opens nothing to the socket."""
    server = field.outside.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((ADDRESS, 0))
    server.listen()
    item = field.inside.socket(socket.AF_INET, socket.SOCK_STREAM)
    item.connect((target.v4, 443))
    item.disconnect()
    with pytest.raises(PermissionError):
        item.connect((ADDRESS, server.port()))
    with pytest.raises(PermissionError):
        item.connect((target.v4, 22))
    item.connect((target.v4, 443))
    assert field.arrived(target) == []


def test_data_in_the_first_packet(lab: Lab, field: Field, target: Target) -> None:
    """TCP Fast Open carries data before anybody has answered: it goes to the responder as well."""
    item = field.inside.socket(socket.AF_INET, socket.SOCK_STREAM)
    with contextlib.suppress(BlockingIOError):
        item.sendto(b"GET / HTTP/1.1\r\n\r\n", (target.v4, 443), socket.MSG_FASTOPEN)
    time.sleep(0.1)
    assert field.arrived(target) == []


def led(field: Field, target: Target) -> RemoteSocket:
    item = field.inside.socket(socket.AF_INET, socket.SOCK_STREAM)
    item.connect((target.v4, 443))
    return item


def test_clients_that_say_nothing(lab: Lab, field: Field, target: Target) -> None:
    """They have a place until others want it."""
    for _ in range(MANY):
        led(field, target)
    seconds = answer_in_clear_text(lab)
    print(f"answered in {seconds:.3f} s")
    assert seconds < IN_TIME
    field.inside.reset()


def test_clients_that_say_it_slowly(lab: Lab, field: Field, target: Target) -> None:
    """A byte now and then keeps nobody's place for longer than a client may take."""
    item = led(field, target)
    started = time.monotonic()
    failure = None
    while failure is None and time.monotonic() - started < 60:
        failure = attempt(field.inside, lambda actor, _: item.send(b"G"), target)
        time.sleep(0.3)
    assert failure is not None
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x40\x00" + bytes(16384), id="no ClientHello"),
        pytest.param(b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", id="a long one"),
        pytest.param((b"\x16\x03\x01\x00\x01\x01" + b"\x16\x03\x01\x00\x01\x00") * 8000, id="tiny records"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10000, id="fields without end"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: " + b"a." * 4000 + b"\r\n\r\n", id="a long host"),
        pytest.param(b'GET / HTTP/1.1\r\nHost: a"\\x00\x1b[31m\r\n\r\n', id="a host that is none"),
        pytest.param(os.urandom(60000), id="noise"),
    ],
)
def test_what_is_no_request(lab: Lab, field: Field, target: Target, data: bytes) -> None:
    for _ in range(20):
        item = led(field, target)
        with contextlib.suppress(OSError):
            for at in range(0, len(data), 8192):
                item.send(data[at : at + 8192])
    assert answer_in_clear_text(lab) < IN_TIME
    field.inside.reset()


def test_connections_without_end(lab: Lab, field: Field, target: Target, tmp_path: Path) -> None:
    """One process that does nothing but connect: others are still told."""
    until = tmp_path / "until"
    field.inside.start("hammer", target.v4, 443, str(until))
    try:
        time.sleep(1)
        seconds = [answer_in_clear_text(lab) for _ in range(3)]
    finally:
        until.touch()
        outcomes = field.inside.finish()
    print(f"answered in {max(seconds):.3f} s beside {outcomes}")
    assert max(seconds) < IN_TIME
    assert set(outcomes) <= {"connected", "EPERM", "EADDRNOTAVAIL"}
    assert outcomes["connected"] > 100


def memory(pid: int) -> int:
    """The most that a process has ever had in memory, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


def files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_thousands_of_connections(
    lab: Lab, daemon: Daemon, field: Field, target: Target, tmp_path: Path
) -> None:
    """Four processes that open them as fast as they can, begin TLS on each, never read, and keep a thousand
    each: neither the daemon nor the responder's process grows, and both go on with their work."""
    until = tmp_path / "until"
    (process,) = processes_of(daemon)
    before, its_files = memory(daemon.pid), files(daemon.pid)
    most_files = 0
    asked, refused = [], []
    with contextlib.ExitStack() as stack:
        actors = [stack.enter_context(Actor(lab.client, lab.client_cgroup)) for _ in range(4)]
        for actor in actors:
            actor.start("greet", target.v4, 443, 1000, str(until))
        try:
            for _ in range(10):
                started = time.monotonic()
                assert ask(lab, "status").returncode == 0
                asked.append(time.monotonic() - started)
                argv = ["curl", "-sS", "--max-time", "20", f"http://{BLOCKED}/v2/"]
                refused.append(lab.client.run(argv).seconds)  # it is told, or loses its place
                most_files = max(most_files, files(process))
            lab.client.pull(f"allowed.registry.test/{lab.image_name}").check()
        finally:
            until.touch()
            counts = [actor.finish() for actor in actors]
    print(
        f"{sum(counts)} connections; the daemon had {memory(daemon.pid)} MiB at most, {before} before; "
        f"the responder {memory(process)} MiB and {most_files} files; "
        f"a refusal took {max(refused):.2f} s and status {max(asked):.2f} s"
    )
    assert sum(counts) > 4000
    assert memory(daemon.pid) < before + 32
    assert files(daemon.pid) <= its_files + 2
    assert memory(process) < 128
    assert most_files < MOST_FILES
    # Beside four that want all of the processors.
    assert median(refused) < IN_TIME
    assert max(refused) < IN_TIME * 3
    assert max(asked) < IN_TIME * 3
    # Those that were cut off just now are not all cleared away yet.
    argv = ["curl", "-sS", "--max-time", "20", f"http://{BLOCKED}/v2/"]
    assert eventually(lambda: lab.client.run(argv).returncode == 0)
    assert answer_in_clear_text(lab) < IN_TIME
    assert field.arrived(target) == []


def test_a_place_that_was_its_own(lab: Lab, field: Field, target: Target, port: int) -> None:
    """Who takes the port in another network namespace is not taken for the responder."""
    with Actor(lab.dns.node) as impostor:
        server = impostor.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind((ADDRESS, port))
        server.listen()
        with Actor(lab.dns.node, lab.client_cgroup) as elsewhere:
            for _ in range(3):
                with pytest.raises(PermissionError):
                    tcp_connect(elsewhere, target.v4)
                time.sleep(1)
