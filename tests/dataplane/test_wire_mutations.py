"""ClientHellos of real clients, changed at random and sent in pieces: none gets out with another name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import hypothesis
from hypothesis import strategies as st

from ram_ebpf.dataplane.abi import Stage

from .beginnings import DENIED_NAMES, REGISTRIES, fresh
from .capture import FOLDER
from .clients import NAME
from .hello_parts import SERVER_NAME, Hello, in_records, record, server_name
from .hello_verdict import STAGES, is_allowed, verdict
from .support import Bench
from .tls_tolerant import names

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane
PLACE = "device"

HELLOS = [Hello.of(path.read_bytes()) for path in sorted(FOLDER.glob("*.bin"))]
ALLOWED = (NAME.encode(), b"A.B.deep.TEST", b"x.one.test.")
REFUSED = (b"evil.example", b"x" + NAME.encode(), b"other.test", b"")
EXAMPLES = hypothesis.settings(
    max_examples=300, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], deadline=None
)

# server_name: hardly ever another one, or nothing would ever be let through.
BETWEEN = st.sampled_from([b"", record(b"\1", b"\3\3", 20), record(b"\1\0", b"\3\3", 21)])
LISTS = st.sampled_from(
    [[ALLOWED[0]]] * 6 + [[name] for name in (*ALLOWED, *REFUSED)] + [[ALLOWED[0], REFUSED[0]]]
)
OF_HELLO = st.sampled_from([1] * 6 + [0, 2, 3])


@st.composite
def hellos(draw: st.DrawFn) -> Hello:
    """A real client's, with its extensions in any order, and one name, none, or several."""
    hello = draw(st.sampled_from(HELLOS))
    extensions = [part for part in hello.extensions if part.kind != SERVER_NAME]
    if draw(st.booleans()):
        draw(st.randoms(use_true_random=False)).shuffle(extensions)
    for _ in range(draw(OF_HELLO)):
        extensions.insert(draw(st.integers(0, len(extensions))), server_name(*draw(LISTS)))
    return replace(hello, extensions=extensions)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.sampled_from(["flip", "set", "cut", "insert"]),
        st.binary(min_size=1, max_size=4),
    ),
    max_size=3,
)


def changed(sent: bytes, changes: Sequence[tuple[int, str, bytes]]) -> bytes:
    """With bytes flipped, replaced, deleted or inserted."""
    for place, how, data in changes:
        at = place % len(sent)
        behind = at if how == "insert" else at + len(data)
        if how == "flip":
            data = bytes(old ^ new for old, new in zip(sent[at:behind], data, strict=False))
        sent = sent[:at] + (b"" if how == "cut" else data) + sent[behind:]
    return sent


def in_pieces(sent: bytes, cuts: Sequence[int]) -> list[tuple[int, int]]:
    """Where each begins and ends."""
    return list(itertools.pairwise(sorted({0, len(sent), *(cut % len(sent) for cut in cuts)})))


PLACES = st.lists(st.integers(0, 2000), max_size=3)  # from 1 to 4 pieces


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """One ClientHello, or as many as a HelloRetryRequest brings, in records, and changed."""
    sent = in_records(bytes(draw(hellos())), *draw(PLACES))
    if draw(st.booleans()):
        # Not longer than what is read of both: a client says less when it begins again.
        small = draw(hellos().filter(lambda hello: len(bytes(hello)) < 600))
        sent += draw(BETWEEN) + draw(BETWEEN) + in_records(bytes(small), *draw(PLACES))
    return changed(sent, draw(CHANGES))


@EXAMPLES
@hypothesis.given(sent=streams(), cuts=PLACES)
def test_mutations(opened: Bench, sent: bytes, cuts: list[int]) -> None:
    """Each piece is judged as the second implementation judges what was sent until then."""
    hypothesis.assume(not b"A" <= sent[:1] <= b"Z")  # which is for the reader of requests
    connection, out = fresh(opened), b""
    expected = Stage.UNNAMED
    for begin, end in in_pieces(sent, cuts):
        if connection.exact_stage is not Stage.DONE:
            expected = STAGES[verdict(opened, sent[:end])]
        passed = connection.sends(sent[begin:end], begin)
        assert passed is (expected is not Stage.CUT)
        assert connection.stage is expected
        if not passed:
            break
        out += sent[begin:end]
    # What has left is not to the end, or the most tolerant server finds nothing in it but allowed names.
    found = names(out)
    assert found is None or (found and all(is_allowed(opened, name) for name in found))


@EXAMPLES
@hypothesis.given(
    hello=hellos(),
    cuts=PLACES,
    order=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()), max_size=8),
    differs=st.integers(0, 2000),
)
def test_segments_of_two_streams(
    opened: Bench, hello: Hello, cuts: list[int], order: list[tuple[int, int, bool]], differs: int
) -> None:
    """Whichever of the segments that have left arrive: they are what was judged, and have no other name."""
    sent = bytes(hello)
    judged = hello.without_last if hello.extensions else len(sent)
    other = changed(sent.replace(ALLOWED[0], b"x" + ALLOWED[0][1:]), [(differs % judged, "flip", b"\1")])
    hypothesis.assume(not b"A" <= other[:1] <= b"Z")
    pieces = in_pieces(sent, cuts)
    connection = fresh(opened)
    out: list[tuple[int, bytes]] = []
    in_order = [(at, 1, False) for at in range(len(pieces))]
    for first, count, of_other in (*order, *in_order, *order):
        chosen = pieces[first : first + count]
        if chosen:
            begin, end = chosen[0][0], chosen[-1][1]
            piece = (other if of_other else sent)[begin:end]
            if connection.sends(piece, begin):
                out.append((begin, piece))
    arrived: dict[int, int] = {}
    for begin, piece in out:
        for at, byte in enumerate(piece, begin):
            assert arrived.setdefault(at, byte) == byte or at >= judged, at
    missing = next((at for at in range(len(sent)) if at not in arrived), len(sent))
    found = names(bytes(arrived[at] for at in range(missing)))
    assert found is None or (found and all(is_allowed(opened, name) for name in found))
