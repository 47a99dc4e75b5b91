"""The adversarial DNS server tells each lie that a script asks for, and honest answers too."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import pytest

from . import topology
from .lab import Lab
from .rogue import RogueDns

ANSWERS = """
from tests.lab.dns_replies import Reply, name_of, respond

def answer(query, client):
    case = query.question[0].name.labels[0].decode()
    honest = respond(query, "10.77.0.20")
    if case == "silent":
        return
    if case == "wrong-id":
        honest.id ^= 1
    if case == "wrong-question":
        honest = respond(query, "10.77.0.20", name="other.registry.test")
    if case == "nul":
        honest = respond(query, "10.77.0.20", name=name_of(b"a\\0b.c", b"test"))
    if case == "other-source":
        yield Reply(honest.to_wire(), source="10.77.0.53", source_port=5353)
        return
    if case == "foreign-source":
        yield Reply(honest.to_wire(), source="192.0.2.1")
        return
    yield Reply(honest.to_wire())
    if case == "twice":
        yield Reply(respond(query, "10.77.0.30").to_wire(), delay=0.01)
    if case == "broken":
        raise ValueError("a broken script")
"""

# Asks one question and prints what comes within the time, with its source.
ASK = """
import json, socket, sys, dns.message
server, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
query = dns.message.make_query(name, "A", id=7)
with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.sendto(query.to_wire(), (server, 53))
    s.settimeout(seconds)
    try:
        while True:
            wire, source = s.recvfrom(65535)
            print(json.dumps([wire.hex(), source[:2]]), flush=True)
    except TimeoutError:
        pass
"""


@pytest.fixture(scope="module")
def rogue(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RogueDns]:
    script = tmp_path_factory.mktemp("rogue") / "answers.py"
    script.write_text(ANSWERS, encoding="utf-8")
    with RogueDns(lab.dns.node, script) as result:
        yield result


def ask(lab: Lab, case: str, server: str = topology.ROGUE_RESOLVER) -> list[tuple[Any, list[Any]]]:
    argv = [sys.executable, "-c", ASK, server, f"{case}.registry.test", "0.15"]
    lines = lab.client.run(argv).check().stdout.splitlines()
    return [(dns.message.from_wire(bytes.fromhex(wire)), source) for wire, source in map(json.loads, lines)]


def addresses(message: Any) -> list[str]:
    return [record.address for rrset in message.answer for record in rrset]


def test_honest_answer(lab: Lab, rogue: RogueDns) -> None:
    (message, source), *more = ask(lab, "honest")
    assert not more
    assert (message.id, addresses(message), source) == (7, [topology.ALLOWED], [topology.ROGUE_RESOLVER, 53])
    query = rogue.wait("query", where=lambda event: event["name"] == "honest.registry.test")
    assert (query["id"], query["type"], query["client"][0]) == (7, "A", topology.CLIENT)
    # The C library believes it too.
    name = "whatever.registry.test"
    found = lab.client.run(["getent", "ahostsv4", name], resolver=rogue.address).check()
    assert topology.ALLOWED in found.stdout


def test_no_answer(lab: Lab, rogue: RogueDns) -> None:
    assert ask(lab, "silent") == []


def test_wrong_id(lab: Lab, rogue: RogueDns) -> None:
    assert [message.id for message, _ in ask(lab, "wrong-id")] == [6]


def test_wrong_question(lab: Lab, rogue: RogueDns) -> None:
    ((message, _),) = ask(lab, "wrong-question")
    assert message.question[0].name.to_text() == "other.registry.test."


def test_labels_with_nul_and_dot(lab: Lab, rogue: RogueDns) -> None:
    ((message, _),) = ask(lab, "nul")
    assert message.answer[0].name.labels == (b"a\0b.c", b"test", b"")


def test_two_answers(lab: Lab, rogue: RogueDns) -> None:
    assert [addresses(message) for message, _ in ask(lab, "twice")] == [
        [topology.ALLOWED],
        [topology.BLOCKED],
    ]


def test_other_sources(lab: Lab, rogue: RogueDns) -> None:
    assert [source for _, source in ask(lab, "other-source")] == [[topology.RESOLVER, 5353]]
    assert [source for _, source in ask(lab, "foreign-source")] == [["192.0.2.1", 53]]


def test_unasked_datagram(lab: Lab, rogue: RogueDns) -> None:
    listen = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4444)); print(flush=True)"
    listener = lab.client.popen(
        [sys.executable, "-c", f"{listen}; s.settimeout(5); print(s.recvfrom(99))"], stdout=-1
    )
    with listener:
        assert listener.stdout is not None
        listener.stdout.readline()
        rogue.send(b"unasked", topology.CLIENT, 4444)
        assert listener.stdout.read().strip() == str((b"unasked", (topology.ROGUE_RESOLVER, 53)))


def test_error_of_a_script_is_raised(lab: Lab, rogue: RogueDns) -> None:
    ask(lab, "broken")
    with pytest.raises(RuntimeError, match="a broken script"):
        rogue.wait("ready", timeout=1)


def test_over_ipv6(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "answers.py"
    script.write_text(ANSWERS, encoding="utf-8")
    with RogueDns(lab.dns.node, script, listen=topology.ROGUE_RESOLVER_V6):
        ((message, source),) = ask(lab, "honest", topology.ROGUE_RESOLVER_V6)
    assert (addresses(message), source) == ([topology.ALLOWED], [topology.ROGUE_RESOLVER_V6, 53])


def test_missing_function_is_named(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "empty.py"
    script.write_text("", encoding="utf-8")
    with pytest.raises(RuntimeError, match="KeyError: 'answer'"):
        RogueDns(lab.dns.node, script).__enter__()
