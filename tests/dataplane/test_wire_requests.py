"""HTTP/1.1 in clear text: the names in the first request of a connection."""

from __future__ import annotations

import pytest

from ram_ebpf.dataplane.abi import Reason, Stage

from .beginnings import DENIED_NAMES, REGISTRIES, fresh
from .support import Bench

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane
PLACE = "device"


CLIENT = b"GET /v2/ HTTP/1.1\r\nHost: registry.test:5000\r\nUser-Agent: docker/28.5\r\n\r\n"
EVIL = CLIENT.replace(b"registry.test", b"evil.example")

ALLOWED = [
    pytest.param(CLIENT, id="docker"),
    pytest.param(b"GET / HTTP/1.0\r\nHost: registry.test\r\n\r\n", id="HTTP/1.0"),
    pytest.param(b"PUT /v2/x HTTP/1.1\r\nhOsT:registry.test\r\n", id="another case, no space"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: \t REGISTRY.test.\r\n", id="tabs, a dot at the end"),
    pytest.param(b"GET / HTTP/1.1\nHost: registry.test\n", id="line feeds alone"),
    pytest.param(b"GET / HTTP/1.1\r\nX-Host: evil.example\r\nHost: registry.test\r\n", id="behind X-Host"),
    pytest.param(b"GET /?Host:evil HTTP/1.1\r\nA: Host: evil\r\nHost: registry.test\r\n", id="in a value"),
    pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: registry.test\r\n", id="asterisk-form"),
    pytest.param(b"M-SEARCH / HTTP/1.1\r\nHost: registry.test\r\n", id="a rare method"),
    pytest.param(b"GET http://registry.test/x HTTP/1.1\r\nHost: registry.test\r\n", id="absolute-form"),
    pytest.param(b"GET HTTP://registry.test:5000?x HTTP/1.1\r\nHost: registry.test\r\n", id="its port"),
    pytest.param(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: registry.test\r\n", id="a long target"),
    pytest.param(b"GET / HTTP/1.1\r\nA: " + b"a" * 3000 + b"\r\nHost: registry.test\r\n", id="a long field"),
]
MISMATCH = [
    pytest.param(EVIL, id="another name"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: 198.51.100.7:5000\r\n", id="an address"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: registry.test@evil.example\r\n", id="user information"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: registry.test.evil.example\r\n", id="a longer name"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: registry.test,evil\r\n", id="a comma"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: a.one.test\r\n", id="allowed on another port"),
    pytest.param(b"GET http://evil.example/ HTTP/1.1\r\nHost: registry.test\r\n", id="in the target"),
    pytest.param(b"GET http://registry.test/ HTTP/1.1\r\nHost: evil.example\r\n", id="behind the target's"),
    pytest.param(
        b"GET http://registry.test@evil.example/ HTTP/1.1\r\nHost: registry.test\r\n", id="target's user"
    ),
]
STRANGE = [
    pytest.param(b"GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n", id="an IPv6 address"),
    pytest.param(b"GET / HTTP/1.1\r\nHost : registry.test\r\n", id="a space in front of the colon"),
    pytest.param(b"GET / HTTP/1.1\r\n Host: registry.test\r\n", id="a space in front of the name"),
    pytest.param(b"GET / HTTP/1.1\r\nA: b\r\n c\r\nHost: registry.test\r\n", id="a folded field"),
    pytest.param(b"GET / HTTP/1.1\r\nA: b\rHost: registry.test\r\n", id="CR alone"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: registry.test x\r\n", id="more in Host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: registry.test:80x\r\n", id="more in the port"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: \r\n", id="an empty Host"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: :80\r\n", id="a port alone"),
    pytest.param(b"GET / HTTP/1.1\r\nA: b\r\n\r\nHost: registry.test\r\n", id="none"),
    pytest.param(b"GET / HTTP/1.1\r\nHost\r\n\r\n", id="no colon"),
    pytest.param(b"GET /\r\nHost: registry.test\r\n", id="HTTP/0.9"),
    pytest.param(b"GET / HTTP/2.0\r\nHost: registry.test\r\n", id="another version"),
    pytest.param(b"GET / HTTP/1.1 \r\nHost: registry.test\r\n", id="more in the version"),
    pytest.param(b"GET  / HTTP/1.1\r\nHost: registry.test\r\n", id="two spaces"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
    pytest.param(b"CONNECT registry.test:5000 HTTP/1.1\r\nHost: registry.test\r\n", id="CONNECT"),
    pytest.param(b"GET https://registry.test/ HTTP/1.1\r\nHost: registry.test\r\n", id="another scheme"),
    pytest.param(b"GET registry.test HTTP/1.1\r\nHost: registry.test\r\n", id="no form at all"),
    pytest.param(b"GEt / HTTP/1.1\r\nHost: registry.test\r\n", id="a method in lower case"),
    pytest.param(b"EHLO registry.test\r\n", id="SMTP"),
    pytest.param(b"GET / HTTP/1.1\r\nHost: " + b"a" * 254 + b"\r\n", id="a name too long"),
]


@pytest.mark.parametrize("sent", ALLOWED)
def test_allowed(opened: Bench, sent: bytes) -> None:
    connection = fresh(opened, port=5000)
    assert connection.sends(sent)
    assert opened.counted() == {Reason.ALLOWED_NAME: 1}
    assert connection.stage is Stage.NAMED


@pytest.mark.parametrize("sent", MISMATCH)
def test_mismatch(opened: Bench, sent: bytes) -> None:
    connection = fresh(opened, port=5000)
    assert not connection.sends(sent)
    assert opened.counted() == {Reason.NAME_MISMATCH: 1}
    assert connection.stage is Stage.CUT


@pytest.mark.parametrize("sent", STRANGE)
def test_strange(opened: Bench, sent: bytes) -> None:
    connection = fresh(opened, port=5000)
    assert not connection.sends(sent)
    assert opened.counted() == {Reason.DENIED_NOT_NAMED: 1}
    assert connection.stage is Stage.CUT


@pytest.mark.parametrize(
    ("sent", "stage"),
    [
        (CLIENT, Stage.NAMED),
        (EVIL, Stage.CUT),
        (b"GET http://registry.test:5000/ HTTP/1.1\r\nHost: registry.test\r\n\r\n", Stage.NAMED),
        (b"GET http://registry.test:5000/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", Stage.CUT),
    ],
)
def test_every_split(opened: Bench, sent: bytes, stage: Stage) -> None:
    for cut in range(1, len(sent)):
        connection = fresh(opened, port=5000)
        passed = connection.sends(sent[:cut]), connection.sends(sent[cut:], cut)
        assert all(passed) is (stage is Stage.NAMED), cut
        assert connection.stage is stage, cut
    connection = fresh(opened, port=5000)
    for at in range(len(sent)):
        connection.sends(sent[at : at + 1], at)
    assert connection.stage is stage


def test_host_too_far_behind(opened: Bench) -> None:
    sent = b"GET / HTTP/1.1\r\nA: " + b"a" * 4096 + b"\r\nHost: registry.test\r\n"
    connection = fresh(opened, port=5000)
    passed = [connection.sends(sent[at : at + 1000], at) for at in range(0, len(sent), 1000)]
    assert passed == [True, True, True, True, False]
    assert connection.stage is Stage.CUT


@pytest.mark.parametrize(
    "sent", [CLIENT, CLIENT.replace(b":5000", b""), CLIENT.replace(b"GET ", b"GET http://registry.test")]
)
def test_replaced_behind_the_name(opened: Bench, sent: bytes) -> None:
    """What ends the name was judged as well: lost on purpose, a longer one could come in its place."""
    connection = fresh(opened, port=5000)
    assert connection.sends(sent)
    assert connection.exact_stage is Stage.DONE
    name = sent.rindex(b"registry.test") + len(b"registry.test")
    line = sent.index(b"\r\nUser-Agent")
    for at in (0, name, line):
        assert not connection.sends(sent[at:name] + b".evil.example\r\n" + sent[name:], at)
    assert connection.sends(sent)
    assert connection.sends(sent[name:], name)
    assert connection.sends(b"\nwhat is behind is free", line + 1)
