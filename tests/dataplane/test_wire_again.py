"""What comes behind a ClientHello: another one, for HelloRetryRequest (RFC 8446 4.1.4), or anything else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason, Stage
from ram_ebpf.dataplane.tables import identity_of

from . import beginnings
from .beginnings import DATA, DENIED_NAMES, START, THERE, Connection, hello
from .hello_parts import Extension, Hello, in_records, record, server_name, with_names
from .hello_verdict import STAGES, verdict
from .support import Bench

__all__ = ["DENIED_NAMES"]  # read by the fixture that loads the plane
PLACE = "device"

REGISTRIES = f"""{beginnings.REGISTRIES}
  - host: quiet.test
    sni: optional
proxies:
  - host: proxy.test
    ports: [3128, 443]
"""
PROXY, QUIET = "198.51.100.9", "198.51.100.10"

FIRST = hello("registry.test")
EVIL = hello("a.evil.example")
NOBODY = hello(None)
OTHER = hello("x.one.test")
CHANGE = record(b"\1", b"\3\3", 20)
ALERT = record(b"\1\0", b"\3\3", 21)
KEY_EXCHANGE = record(b"\x10\0\0\x21" + b"k" * 33, b"\3\3")


@pytest.fixture
def opened(bench: Bench) -> Bench:
    beginnings.opened_at_device(bench)
    bench.open("learned", PROXY, (443, 3128), 3600, bench.rule_of("proxy.test"))
    bench.open("learned", QUIET, (443,), 3600, bench.rule_of("quiet.test"))
    return bench


def fresh(opened: Bench, there: str = THERE, port: int = 443, start: int = START) -> Connection:
    connection = Connection(opened, there, port, start)
    connection.forget()
    return connection.open()


@pytest.fixture
def connection(opened: Bench) -> Connection:
    """That has sent its first ClientHello."""
    connection = fresh(opened)
    assert connection.sends(FIRST)
    assert connection.exact_stage is Stage.NAMED
    opened.counted()
    return connection


def without_versions(sent: bytes) -> bytes:
    """Of a client that does not speak TLS 1.3."""
    made = Hello.of(sent)
    return bytes(replace(made, extensions=[part for part in made.extensions if part.kind != 43]))


def with_early_data(sent: bytes, last: bool) -> bytes:
    made = Hello.of(sent)
    part = Extension(42, b"")
    return bytes(replace(made, extensions=[*made.extensions, part] if last else [part, *made.extensions]))


GOES_ON = [
    pytest.param(DATA, id="TLS 1.3"),
    pytest.param(CHANGE + DATA, id="as if it were TLS 1.2"),
    pytest.param(ALERT + DATA, id="a warning"),
    pytest.param(KEY_EXCHANGE, id="TLS 1.2"),
    pytest.param(record(b"\x0b\0\0\3\0\0\0", b"\3\3"), id="TLS 1.2 with a certificate"),
    pytest.param(CHANGE + record(bytes(range(40)), b"\3\3"), id="TLS 1.2 once more, encrypted"),
    pytest.param(CHANGE + record(b"\1\3" + bytes(38), b"\3\3"), id="encrypted, almost a ClientHello"),
]
PAUSES = [
    pytest.param(CHANGE, id="nothing yet"),
    pytest.param(ALERT, id="an alert"),
    pytest.param(FIRST, id="the same"),
    pytest.param(CHANGE + FIRST, id="the same behind ChangeCipherSpec"),
    pytest.param(CHANGE + OTHER, id="another name that is allowed"),
    pytest.param(in_records(FIRST, 1, 2, 3, 50, 300), id="in records"),
]
REFUSED = [
    pytest.param(EVIL, Reason.NAME_MISMATCH, id="another name"),
    pytest.param(CHANGE + EVIL, Reason.NAME_MISMATCH, id="behind ChangeCipherSpec"),
    pytest.param(ALERT + CHANGE + ALERT + EVIL, Reason.NAME_MISMATCH, id="behind much"),
    pytest.param(CHANGE + FIRST + CHANGE + EVIL, Reason.NAME_MISMATCH, id="the third one"),
    pytest.param(in_records(EVIL, 1, 2, 3), Reason.NAME_MISMATCH, id="in records"),
    pytest.param(without_versions(EVIL), Reason.NAME_MISMATCH, id="of TLS 1.2"),
    pytest.param(
        with_names(NOBODY, b"registry.test", b"a.evil.example"), Reason.NAME_MISMATCH, id="two names"
    ),
    pytest.param(NOBODY, Reason.DENIED_NOT_NAMED, id="no name"),
    pytest.param(CHANGE + with_early_data(FIRST, True), Reason.DENIED_NOT_NAMED, id="early data"),
    pytest.param(record(b"\1", b"\3\3", 24), Reason.DENIED_NOT_NAMED, id="a heartbeat"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: registry.test\r\n\r\n", Reason.DENIED_NOT_NAMED, id="HTTP"),
    pytest.param(CHANGE + b"\x14\2\3\0\1\1", Reason.DENIED_NOT_NAMED, id="a version that is none"),
    pytest.param(record(b"", b"\3\3", 21) + EVIL, Reason.DENIED_NOT_NAMED, id="a record of nothing"),
    pytest.param(FIRST[:9] + b"\2" + FIRST[10:], Reason.DENIED_NOT_NAMED, id="SSL 2"),
]


@pytest.mark.parametrize("sent", GOES_ON)
def test_goes_on(connection: Connection, sent: bytes) -> None:
    """Nothing of it is read any more."""
    assert connection.sends(sent, len(FIRST))
    assert connection.exact_stage is Stage.DONE
    assert connection.bench.counted() == {Reason.ALLOWED_ESTABLISHED: 1}
    assert connection.sends(EVIL, len(FIRST + sent))


@pytest.mark.parametrize("sent", PAUSES)
def test_pauses(connection: Connection, sent: bytes) -> None:
    assert connection.sends(sent, len(FIRST))
    assert connection.exact_stage is Stage.NAMED
    assert not connection.sends(EVIL, len(FIRST + sent))
    assert connection.stage is Stage.CUT


@pytest.mark.parametrize(("sent", "reason"), REFUSED)
def test_refused(connection: Connection, sent: bytes, reason: Reason) -> None:
    assert not connection.sends(sent, len(FIRST))
    assert reason in connection.bench.counted()
    assert connection.stage is Stage.CUT
    assert not fresh(connection.bench).sends(FIRST + sent)


@pytest.mark.parametrize("behind", [CHANGE + EVIL, ALERT + FIRST + CHANGE + EVIL, in_records(EVIL, 1, 90)])
def test_every_split(opened: Bench, behind: bytes) -> None:
    """Of the first ClientHello and what follows: it never gets out to the other name's end."""
    sent = FIRST + behind
    for cut in range(1, len(sent)):
        connection = fresh(opened)
        first = connection.sends(sent[:cut])
        assert first is (STAGES[verdict(opened, sent[:cut])] is not Stage.CUT), cut
        assert not connection.sends(sent[cut:], cut), cut
        assert connection.stage is Stage.CUT, cut


def test_every_split_of_what_is_allowed(opened: Bench) -> None:
    sent = FIRST + CHANGE + OTHER + CHANGE + DATA
    for cut in range(1, len(sent)):
        connection = fresh(opened)
        assert connection.sends(sent[:cut]), cut
        assert connection.sends(sent[cut:], cut), cut
        assert connection.exact_stage is Stage.DONE, cut


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_many_pieces(opened: Bench, size: int) -> None:
    for last, stage in ((OTHER + CHANGE + DATA, Stage.DONE), (EVIL, Stage.CUT)):
        sent = FIRST + CHANGE + last
        connection = fresh(opened)
        for at in range(0, len(sent), size):
            connection.sends(sent[at : at + size], at)
        assert connection.exact_stage is stage


def test_in_the_rest_of_a_record(opened: Bench) -> None:
    """No client may do that (RFC 8446 5.1)."""
    for behind, stage in ((EVIL[5:], Stage.CUT), (OTHER[5:], Stage.NAMED)):
        connection = fresh(opened)
        connection.sends(record(FIRST[5:] + behind))
        assert connection.stage is stage


def test_long_ones(opened: Bench) -> None:
    """Each may take as many bytes as the first."""
    for name, stage in (("registry.test", Stage.NAMED), ("a.evil.example", Stage.CUT)):
        connection = fresh(opened)
        at = 0
        for sent in (hello("registry.test"), CHANGE, hello("registry.test"), hello(name)):
            made = sent if sent is CHANGE else bytes(Hello.of(sent).padded(3000))
            for begin in range(0, len(made), 1460):
                connection.sends(made[begin : begin + 1460], at + begin)
            at += len(made)
        assert connection.stage is stage


@pytest.mark.parametrize("last", [False, True])
def test_early_data(opened: Bench, last: bool) -> None:
    """Behind it another ClientHello could come that is not found."""
    assert not fresh(opened).sends(with_early_data(FIRST, last))
    assert opened.counted() == {Reason.DENIED_NOT_NAMED: 1}
    sent = with_early_data(FIRST, last)
    connection = fresh(opened)
    assert not all(connection.sends(sent[at : at + 50], at) for at in range(0, len(sent), 50))
    assert connection.stage is Stage.CUT


def test_client_of_tls_1_2(opened: Bench) -> None:
    """It cannot be asked to begin again."""
    connection = fresh(opened)
    assert connection.sends(without_versions(FIRST))
    assert connection.exact_stage is Stage.DONE


def test_name_that_need_not_be_there(opened: Bench) -> None:
    for second, stage in ((NOBODY, Stage.NAMED), (hello("quiet.test"), Stage.NAMED), (EVIL, Stage.CUT)):
        connection = fresh(opened, QUIET)
        assert connection.sends(NOBODY)
        assert connection.exact_stage is Stage.NAMED
        connection.sends(second, len(NOBODY))
        assert connection.stage is stage


@pytest.mark.parametrize("port", [3128, 443])
def test_tunnel(opened: Bench, port: int) -> None:
    begun = b"CONNECT registry.test:443 HTTP/1.1\r\n\r\n" + FIRST
    for second, stage in ((CHANGE + OTHER, Stage.TUNNELLED), (CHANGE + EVIL, Stage.CUT), (DATA, Stage.DONE)):
        connection = fresh(opened, PROXY, port)
        assert connection.sends(begun)
        assert connection.exact_stage is Stage.TUNNELLED
        connection.sends(second, len(begun))
        assert connection.exact_stage is stage
        connection = fresh(opened, PROXY, port)
        connection.sends(begun + second)
        assert connection.exact_stage is stage


def test_tunnel_to_a_private_address(opened: Bench) -> None:
    """Where it leads is for the proxy to find out, the second time too."""
    begun = b"CONNECT private.test:443 HTTP/1.1\r\n\r\n" + hello("private.test")
    connection = fresh(opened, PROXY, 3128)
    assert connection.sends(begun)
    assert connection.sends(hello("private.test"), len(begun))


# --- segments


def test_sent_again(connection: Connection) -> None:
    """Before it is acknowledged, and with what follows it."""
    assert connection.sends(FIRST)
    assert connection.sends(FIRST[100:], 100)
    assert connection.sends(FIRST + CHANGE + DATA)
    assert connection.exact_stage is Stage.DONE


def test_replaced(connection: Connection) -> None:
    changed = FIRST.replace(b"registry.test", b"evilistry.tst")
    assert not connection.sends(changed)
    assert not connection.sends(changed + DATA)
    assert not connection.sends(FIRST + EVIL)


def test_replaced_behind(connection: Connection) -> None:
    """Once there is more, the first ClientHello is not sent again: it was answered."""
    assert connection.sends(CHANGE, len(FIRST))
    assert connection.sends(OTHER[:90], len(FIRST + CHANGE))
    assert not connection.sends(FIRST.replace(b"registry.test", b"evilistry.tst"))
    assert not connection.sends(OTHER[:89] + bytes([OTHER[89] ^ 1]), len(FIRST + CHANGE))
    assert connection.sends(OTHER[:90], len(FIRST + CHANGE))
    assert connection.sends(OTHER[50:], len(FIRST + CHANGE) + 50)
    assert connection.sends(DATA, len(FIRST + CHANGE + OTHER))
    assert not connection.sends(EVIL, len(FIRST + CHANGE))


def test_replaced_application_data(connection: Connection) -> None:
    """Which ended the reading: lost on purpose, a ClientHello could come in its place."""
    assert connection.sends(DATA, len(FIRST))
    assert connection.exact_stage is Stage.DONE
    assert not connection.sends(EVIL, len(FIRST))
    assert not connection.sends(EVIL[:1], len(FIRST))
    assert connection.sends(DATA, len(FIRST))
    assert connection.sends(DATA[1:], len(FIRST) + 1)


def test_gap(connection: Connection) -> None:
    """What lies in it could come later."""
    assert not connection.sends(DATA, len(FIRST) + len(EVIL))
    assert connection.exact_stage is Stage.NAMED
    assert not connection.sends(EVIL, len(FIRST))


def test_many_that_wait_for_an_answer(opened: Bench) -> None:
    """More than there is room for bytes: those of a ClientHello that was judged are not needed."""
    connections = []
    for number in range(400):
        connection = Connection(opened, start=number << 16)
        connection.source_port = 10000 + number
        connection.forget()
        connections.append(connection.open())
        assert connection.sends(FIRST)
    for number, connection in enumerate(connections):
        assert connection.sends(DATA if number % 2 else OTHER, len(FIRST))
        assert connection.exact_stage is (Stage.DONE if number % 2 else Stage.NAMED)


def test_server_name_of_a_second_extension(connection: Connection) -> None:
    """The other implementation agrees."""
    made = Hello.of(NOBODY)
    for extensions in (
        [*made.extensions, server_name(b"a.evil.example")],
        [server_name(b"a.evil.example"), *made.extensions],
    ):
        sent = FIRST + CHANGE + bytes(replace(made, extensions=extensions))
        assert verdict(connection.bench, sent) is Reason.NAME_MISMATCH
        assert not connection.sends(sent[len(FIRST) :], len(FIRST))


class TestNewerProgram:
    """Attached beside this one while it takes over, it writes its own numbers of the same rules down."""

    @staticmethod
    def _renumber(connection: Connection, pattern: str, identity: int | None = None) -> int:
        """Makes the number that of another rule; returns what tells the rule in all policies."""
        established = connection.bench.map("established")
        known = abi.Connection.from_buffer_copy(established[connection.key])
        known.generation += 1
        known.rule = connection.bench.rule_of(pattern)
        if identity is not None:
            known.identity = identity
        established[connection.key] = bytes(known)
        return int(known.identity)

    @staticmethod
    def _known(connection: Connection) -> abi.Connection:
        return abi.Connection.from_buffer_copy(connection.bench.map("established")[connection.key])

    @pytest.mark.parametrize("sent", GOES_ON)
    def test_connection_keeps_its_rule(self, connection: Connection, sent: bytes) -> None:
        identity = self._renumber(connection, "*.one.test")
        assert connection.sends(sent, len(FIRST))
        known = self._known(connection)
        assert (known.identity, known.stage) == (identity, Stage.DONE)
        rule = connection.bench.scope.view.tables.rule(known.rule)
        assert rule is not None
        assert identity_of(rule) == identity

    def test_rule_of_connection_without_name(self, opened: Bench) -> None:
        """The number alone would be that of a rule under which a connection must say whom it is for."""
        connection = fresh(opened, QUIET)
        identity = self._renumber(connection, "registry.test")
        assert connection.sends(hello(None))
        assert self._known(connection).identity == identity

    def test_rule_that_is_not_known_here(self, connection: Connection) -> None:
        self._renumber(connection, "registry.test", 0xF00D)
        assert connection.sends(DATA, len(FIRST))
        assert self._known(connection).identity == 0xF00D
