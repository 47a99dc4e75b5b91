"""The beginning of a connection in pieces, out of order, twice, replaced: no other name gets out."""

from __future__ import annotations

import struct

import pytest

from ram_ebpf.dataplane import clock
from ram_ebpf.dataplane.abi import Reason, Stage
from ram_ebpf.dataplane.settings import Settings

from .beginnings import DATA, DENIED_NAMES, REGISTRIES, URGENT, Connection, fresh, hello
from .hello_parts import Hello, in_records
from .support import Bench

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane
PLACE = "device"

ALLOWED, REFUSED = hello("registry.test"), hello("a.evil.example")
NAME_ENDS = ALLOWED.index(b"registry.test") + len(b"registry.test")


def test_every_split_of_what_is_allowed(opened: Bench) -> None:
    for cut in range(1, len(ALLOWED)):
        connection = fresh(opened)
        stages = []
        for piece, at in ((ALLOWED[:cut], 0), (ALLOWED[cut:], cut)):
            assert connection.sends(piece, at), cut
            stages.append(connection.stage)
        assert stages == [Stage.UNNAMED, Stage.NAMED], cut


def test_every_split_of_what_is_refused(opened: Bench) -> None:
    ends = REFUSED.index(b"a.evil.example") + len(b"a.evil.example")
    for cut in range(1, len(REFUSED)):
        connection = fresh(opened)
        assert connection.sends(REFUSED[:cut]) is (cut < ends), cut
        assert not connection.sends(REFUSED[cut:], cut), cut
        assert connection.stage is Stage.CUT, cut


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64])
def test_many_pieces(opened: Bench, size: int) -> None:
    for sent, stage in ((ALLOWED, Stage.NAMED), (REFUSED, Stage.CUT)):
        connection = fresh(opened)
        for at in range(0, len(sent), size):
            connection.sends(sent[at : at + size], at)
        assert connection.stage is stage


def test_numbers_that_go_round(opened: Bench) -> None:
    for start in (2**32 - 2, 2**32 - 1, 2**32 - 100, 2**31 - 5):
        connection = fresh(opened, start)
        assert connection.sends(ALLOWED[:90])
        assert connection.sends(ALLOWED[90:], 90)
        assert connection.stage is Stage.NAMED
        connection = fresh(opened, start)
        assert connection.sends(REFUSED[:90])
        assert not connection.sends(REFUSED[90:], 90)


def test_every_split_into_records(opened: Bench) -> None:
    first = ALLOWED.index(b"registry.test") - 5
    last = first + len(b"registry.test")
    for cut in range(1, len(ALLOWED) - 5):
        connection = fresh(opened)
        assert connection.sends(in_records(ALLOWED, cut)) is not (first <= cut < last), cut
        assert not fresh(opened).sends(in_records(REFUSED, cut)), cut


def test_records_of_a_byte_each(opened: Bench) -> None:
    first = ALLOWED.index(b"registry.test") - 5
    many = in_records(ALLOWED, *range(1, first), first + 13)
    assert fresh(opened).sends(many)
    connection = fresh(opened)
    for at in range(0, len(many), 11):
        assert connection.sends(many[at : at + 11], at)
    assert connection.stage is Stage.NAMED


def test_later_piece_first(connection: Connection) -> None:
    assert not connection.sends(ALLOWED[60:], 60)
    assert connection.bench.counted() == {Reason.DENIED_SEGMENT: 1}
    assert connection.sends(ALLOWED[:60])
    assert connection.sends(ALLOWED[60:], 60)
    assert connection.stage is Stage.NAMED


def test_allowed_name_in_front_of_the_beginning(connection: Connection) -> None:
    assert not connection.sends(ALLOWED, -len(ALLOWED))
    assert not connection.sends(b"x" + ALLOWED, -1)
    assert not connection.sends(ALLOWED, 2**31)
    assert connection.stage is Stage.UNNAMED


def test_same_piece_again(connection: Connection) -> None:
    for _ in range(3):
        assert connection.sends(ALLOWED[:60])
    assert connection.sends(ALLOWED[20:50], 20)
    assert connection.sends(ALLOWED[30:], 30)
    assert connection.stage is Stage.NAMED
    for begin, end in ((0, None), (0, 1), (60, None), (100, 110), (0, 60)):
        assert connection.sends(ALLOWED[begin:end], begin)
    assert connection.sends(b"\x17\x03\x03anything", len(ALLOWED))
    assert connection.stage is Stage.NAMED


def test_replaced_piece(connection: Connection) -> None:
    """Of a piece that was let through, the other end may have received this or that."""
    assert connection.sends(ALLOWED[:60])
    for at in range(60):
        changed = bytearray(ALLOWED[:60])
        changed[at] ^= 1
        assert not connection.sends(bytes(changed)), at
        assert not connection.sends(bytes(changed) + ALLOWED[60:]), at
        assert not connection.sends(bytes(changed[at:]), at), at
    assert connection.sends(ALLOWED[60:], 60)


def test_replaced_name(connection: Connection) -> None:
    """What was judged may have been lost on its way: what comes in its place is not another name."""
    assert connection.sends(ALLOWED)
    for at in range(len(ALLOWED)):
        changed = bytearray(ALLOWED)
        changed[at] ^= 1
        assert not connection.sends(bytes(changed)), at
        assert not connection.sends(bytes(changed[at:]), at), at
    assert not connection.sends(REFUSED)
    assert not connection.sends(REFUSED[50:], 50)
    assert connection.sends(ALLOWED)
    assert connection.stage is Stage.NAMED


def test_replaced_when_nothing_is_kept_any_more(connection: Connection) -> None:
    assert connection.sends(ALLOWED)
    connection.bench.map("beginnings").clear()
    assert not connection.sends(REFUSED)
    assert connection.sends(DATA, len(ALLOWED))


def test_much_data(connection: Connection) -> None:
    """Sequence numbers go round, and the beginning stays what it was."""
    assert connection.sends(ALLOWED)
    for at in range(0, 3 * 2**32, 2**29):
        assert connection.sends(DATA, len(ALLOWED) + at), at
    assert not connection.sends(DATA, len(ALLOWED) + 3 * 2**32 - 2**29 - 2**30 - 100)


def test_urgent_data(opened: Bench) -> None:
    """Unless it asks for that inline, a server reads all but the byte that the urgent pointer is at."""
    for payload in (ALLOWED, ALLOWED[:60], b""):
        connection = fresh(opened)
        assert not connection.sends(payload, 0, URGENT)
        assert connection.bench.counted() == {Reason.DENIED_NOT_NAMED: 1}
        assert connection.stage is Stage.UNNAMED
        assert connection.sends(ALLOWED[:60])
        assert not connection.sends(payload, 60, URGENT)
        assert connection.sends(ALLOWED[60:], 60)
        assert not connection.sends(ALLOWED[60:], 60, URGENT)
        assert connection.sends(DATA, len(ALLOWED))
        assert connection.exact_stage is Stage.DONE
        assert not connection.sends(ALLOWED[60:], 60, URGENT)
        assert not connection.sends(b"", 60, URGENT)
        assert connection.sends(DATA, len(ALLOWED + DATA), URGENT)


def test_data_in_the_syn(opened: Bench) -> None:
    """TCP Fast Open: the client's system sends the SYN again without data."""
    connection = Connection(opened)
    assert not connection.syn(ALLOWED)
    assert opened.counted() == {Reason.DENIED_SEGMENT: 1}
    assert connection.stage is None
    assert connection.open().sends(ALLOWED)


def test_data_before_an_answer(opened: Bench) -> None:
    connection = Connection(opened)
    assert connection.syn()
    assert not connection.sends(ALLOWED)
    connection.answer(ack=connection.start)
    connection.answer(ack=connection.start + 2)
    assert not connection.sends(ALLOWED)
    connection.answer()
    assert connection.sends(ALLOWED)


def test_second_syn(connection: Connection) -> None:
    """The other end reads on from the first one: a name elsewhere is read by nobody."""
    other = Connection(connection.bench, start=connection.start + 5000)
    assert other.syn()
    assert not other.sends(ALLOWED)
    assert not connection.sends(REFUSED)


def test_same_syn_again(connection: Connection) -> None:
    assert connection.syn()
    assert connection.sends(ALLOWED)
    assert connection.syn()
    assert not connection.sends(REFUSED)
    assert connection.sends(ALLOWED)


def test_ports_used_again(connection: Connection) -> None:
    assert not connection.sends(REFUSED)
    again = Connection(connection.bench, start=connection.start + 5000).open()
    assert again.sends(ALLOWED)
    once_more = Connection(connection.bench, start=connection.start + 9000).open()
    assert not once_more.sends(REFUSED)


def test_beginning_that_was_not_seen(opened: Bench) -> None:
    connection = Connection(opened)
    earlier, key = opened.scope.view.device_side.maps["earlier"], struct.pack("=I", opened.scope.number)
    earlier[key] = struct.pack("=Q", clock.now_ns() + clock.NANOSECONDS)
    assert connection.sends(b"in the middle")  # a device that has just been governed
    connection.forget()
    earlier[key] = struct.pack("=Q", 1)
    assert not connection.sends(b"in the middle")
    assert connection.sends(b"")  # an acknowledgement alone says nothing, and is not remembered
    assert not connection.sends(ALLOWED)


def test_earlier_connections_are_cut(opened: Bench) -> None:
    with opened.configured(Settings(cut_earlier=True)):
        assert not Connection(opened).sends(b"in the middle")


def test_name_far_behind(opened: Bench) -> None:
    for padding in (0, 1000, 2000, 3000, 3500, 4500, 9000):
        sent = bytes(Hello.of(ALLOWED).padded(padding))
        fits = Hello.of(sent).without_last <= 4096
        if len(sent) < 3800:  # what a test run takes
            assert fresh(opened).sends(sent), padding
            assert not fresh(opened).sends(bytes(Hello.of(REFUSED).padded(padding))), padding
        connection = fresh(opened)
        passed = [connection.sends(sent[at : at + 1460], at) for at in range(0, len(sent), 1460)]
        assert all(passed) is fits, padding
