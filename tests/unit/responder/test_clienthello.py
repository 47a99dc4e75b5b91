"""The ClientHello is read to its end, in whatever pieces, and nothing else is taken for one."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.responder.clienthello import (
    MOST_BYTES,
    ClientHello,
    ClientHelloError,
    ClientHelloReader,
    looks_like_tls,
    read_client_hello,
)

from . import hellos

NAME = "evil.example"
PLAIN = hellos.records(hellos.message(hellos.body(hellos.server_name(NAME.encode()))))
REAL = hellos.of_openssl(NAME, ["h2", "http/1.1"])


@pytest.mark.parametrize("data", [PLAIN, REAL], ids=["by hand", "of OpenSSL"])
def test_every_beginning_of_it(data: bytes) -> None:
    for end in range(len(data)):
        assert read_client_hello(data[:end]) is None
    assert read_client_hello(data) == ClientHello(NAME)
    assert read_client_hello(data + b"more") == ClientHello(NAME)


@given(cuts=st.lists(st.integers(0, len(REAL)), max_size=6), size=st.integers(1, 600))
def test_in_pieces(cuts: list[int], size: int) -> None:
    """As it comes: of any length each, also in the middle of a record's header."""
    data = hellos.records(REAL[5:], size)
    edges = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    reader = ClientHelloReader()
    found = [reader.take(data[start:end]) for start, end in itertools.pairwise(edges)]
    assert found == [*[None] * (len(edges) - 2), ClientHello(NAME)]


@given(size=st.integers(1, 600))
def test_in_records_of_any_size(size: int) -> None:
    handshake = hellos.message(hellos.body(hellos.server_name(NAME.encode())))
    assert read_client_hello(hellos.records(handshake, size)) == ClientHello(NAME)


@pytest.mark.parametrize(
    "extensions",
    [
        pytest.param(None, id="no extensions"),
        pytest.param(b"", id="an empty list of them"),
        pytest.param(hellos.extension(0x0A0A, b""), id="GREASE alone"),
        pytest.param(hellos.extension(0xFE0D, bytes(300)), id="ECH without an outer name"),
    ],
)
def test_no_name(extensions: bytes | None) -> None:
    assert read_client_hello(hellos.records(hellos.message(hellos.body(extensions)))) == ClientHello(None)


def test_no_name_of_openssl() -> None:
    assert read_client_hello(hellos.of_openssl(None)) == ClientHello(None)


@given(
    before=st.lists(
        st.tuples(st.integers(1, 0xFFFF), st.binary(max_size=50)), max_size=8, unique_by=lambda i: i[0]
    ),
    at=st.integers(0, 8),
    session=st.binary(max_size=32),
    suites=st.lists(st.binary(min_size=2, max_size=2), min_size=1, max_size=40),
)
def test_extensions_in_any_order(
    before: list[tuple[int, bytes]], at: int, session: bytes, suites: list[bytes]
) -> None:
    made = [hellos.extension(kind, content) for kind, content in before]
    made.insert(at, hellos.server_name(NAME.encode()))
    body = hellos.body(b"".join(made), session, b"".join(suites))
    assert read_client_hello(hellos.records(hellos.message(body))) == ClientHello(NAME)


def test_a_large_one() -> None:
    """Post-quantum key shares may take it over more than one record."""
    extensions = hellos.extension(51, bytes(20000)) + hellos.server_name(NAME.encode())
    data = hellos.records(hellos.message(hellos.body(extensions)))
    assert len(data) > 16384 + 5
    assert read_client_hello(data) == ClientHello(NAME)


def of(extensions: bytes | None) -> bytes:
    return hellos.records(hellos.message(hellos.body(extensions)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"GET / HTTP/1.1", "not a handshake record", id="HTTP"),
        pytest.param(b"\x16\x02", "not a handshake record", id="another version"),
        pytest.param(hellos.records(b"\1\0\0\0", kind=23), "not a handshake record", id="data"),
        pytest.param(b"\x16\x03\x01\0\0", "a record of 0 bytes", id="an empty record"),
        pytest.param(b"\x16\x03\x01\x40\x01", "a record of 16385", id="too long a record"),
        pytest.param(hellos.records(hellos.message(b"", kind=2)), "message 2", id="a ServerHello"),
        pytest.param(hellos.records(b"\1\xff\xff\xff"), "longer than", id="too long a message"),
        pytest.param(hellos.records(hellos.message(bytes(33))), "announced", id="cut off inside"),
        pytest.param(
            hellos.records(hellos.message(hellos.body(b"", suites=b""))), "cipher", id="no cipher suites"
        ),
        pytest.param(
            hellos.records(hellos.message(hellos.body(b"", compression=b""))),
            "compression",
            id="no compression",
        ),
        pytest.param(
            hellos.records(hellos.message(hellos.body(b"") + b"x")), "behind", id="something behind it"
        ),
        pytest.param(of(hellos.server_name(b"a") * 2), "twice", id="the extension twice"),
        pytest.param(of(hellos.server_name(b"a", b"b")), "two host names", id="two names"),
        pytest.param(of(hellos.server_name(b"")), "0 bytes", id="an empty name"),
        pytest.param(of(hellos.server_name(b"a" * 256)), "256 bytes", id="too long a name"),
        pytest.param(of(hellos.server_name(b"\xe4.example")), "not ASCII", id="not ASCII"),
        pytest.param(of(hellos.server_name(b"a\n.example")), "not ASCII", id="a control character"),
        pytest.param(of(hellos.server_name(b"a", kind=1)), "type 1", id="another type of name"),
        pytest.param(of(hellos.extension(0, b"")), "announced", id="no list of names"),
        pytest.param(of(hellos.extension(0, b"\0\0")), "empty", id="an empty list of names"),
        pytest.param(of(b"\0\0\xff\xff"), "announced", id="an extension cut off"),
    ],
)
def test_what_is_none(data: bytes, words: str) -> None:
    with pytest.raises(ClientHelloError, match=words):
        read_client_hello(data)


def test_one_that_never_ends() -> None:
    """Bytes that are announced do not have to be waited for without end."""
    data = hellos.records(b"\1\0\xff\xf0" + bytes(65000), size=1)
    with pytest.raises(ClientHelloError, match="longer"):
        read_client_hello(data[:MOST_BYTES])


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    try:
        found = read_client_hello(data)
    except ClientHelloError:
        return
    assert found is None or isinstance(found, ClientHello)


@given(st.data())
def test_mutations(data: st.DataObject) -> None:
    """A real one with some bytes changed, removed or doubled raises nothing else, and never reads past it."""
    mutated = bytearray(REAL)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        kind = data.draw(st.sampled_from(["change", "remove", "double"]))
        if kind == "change":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "remove":
            del mutated[at : at + data.draw(st.integers(1, 9))]
        else:
            mutated[at:at] = mutated[at : at + data.draw(st.integers(1, 9))]
        if not mutated:
            return
    try:
        found = read_client_hello(bytes(mutated))
    except ClientHelloError:
        return
    if found is not None and found.server_name is not None:
        assert found.server_name.encode("ascii") in bytes(mutated)


def test_what_looks_like_tls() -> None:
    assert looks_like_tls(REAL[0])
    assert not any(looks_like_tls(method[0]) for method in (b"GET", b"HEAD", b"POST", b"PRI", b"put"))
