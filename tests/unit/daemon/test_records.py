"""From events to lines."""

from __future__ import annotations

import errno
import io
import ipaddress
import json
import re
from dataclasses import replace
from typing import Any

import dns.message
import dns.rrset
import pytest

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.records import (
    NOT_UNDERSTOOD,
    Describer,
    RecordWriter,
    event_name,
    human_line,
    rule_text,
)
from ram_ebpf.dataplane.abi import Hook, Reason, Verdict
from ram_ebpf.dataplane.events import Beginning
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.dns.response import Answer, read_message
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import compile_rules

from .samples import DNS_EVENT, EVENT

ip = ipaddress.ip_address
TCP, UDP = 6, 17
MESSAGE = "Ask it@corp.example."
POLICY = b"""version: 1
registries:
  - ghcr
  - host: registry.corp.example
    ports: [443, 5000]
  - address: 10.20.0.0/24
  - host: "**.corp.example"
  - host: again.sandbox.corp.example
denied:
  - public.corp.example
  - "*.sandbox.corp.example"
"""
RULES = compile_rules(parse_policy(POLICY, "/etc/policy.yaml"), load_catalogue())
TABLES = Tables(RULES, (1, 2, 3, 4))
RECORD = {
    "event": "denied",
    "verdict": "deny",
    "reason": "denied-unknown-address",
    "address": "192.0.2.1",
    "port": 443,
    "protocol": "tcp",
    "process": "docker",
    "pid": 42,
    "uid": 1000,
    "cgroup": "/docker",
    "explanation": "no trusted DNS reply gave this address for an allowed name",
}


def rank(pattern: str) -> int:
    return next(rule.rank for rule in RULES.names if rule.pattern.text == pattern)


def describer(message: str | None = MESSAGE, **names: str) -> Describer:
    """`names`: the history, with underscores for the dots of addresses and a letter in front."""
    history = NameHistory()
    for address, name in names.items():
        history.note(Answer(name, ((ip(address[1:].replace("_", ".")), 60),)))
    return Describer(lambda _: TABLES, history, {77: "/docker"}.get, message)


def wire(name: str, *addresses: str) -> bytes:
    response = dns.message.make_response(dns.message.make_query(name, "A"))
    for address in addresses:
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", address))
    return response.to_wire()


# --- the kind of line


@pytest.mark.parametrize(
    ("verdict", "name"),
    [(Verdict.ALLOW, "allowed"), (Verdict.DENY, "denied"), (Verdict.WOULD_DENY, "would-deny")],
)
def test_verdicts(verdict: Verdict, name: str) -> None:
    assert event_name(replace(EVENT, verdict=verdict)) == name


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_kind(reason: Reason) -> None:
    name = event_name(replace(DNS_EVENT, reason=reason))
    expected = {
        Reason.DNS_LEARNED: "learned",
        Reason.DNS_RECOGNISED: "recognised",
        Reason.DNS_NO_QUERY: "ignored-reply",
        Reason.DNS_WRONG_QUESTION: "ignored-reply",
        Reason.DNS_WRONG_INTERFACE: "ignored-reply",
        Reason.DNS_UNTRUSTED_SENDER: "ignored-reply",
        **dict.fromkeys(NOT_UNDERSTOOD, "not-understood"),
    }
    assert name == expected.get(reason, "dns")


def test_rule_text() -> None:
    assert rule_text(None) == ""
    assert rule_text(TABLES.rule(rank("ghcr.io"))) == "ghcr.io (ghcr)"
    assert rule_text(TABLES.rule(rank("registry.corp.example"))) == ("registry.corp.example (policy.yaml:4)")
    assert rule_text(TABLES.rule(len(RULES.names) + 1)) == "10.20.0.0/24 (policy.yaml:6)"
    assert rule_text(TABLES.rule(999)) == ""


# --- describing


def test_denied() -> None:
    assert describer().describe(EVENT, None) == {**RECORD, "message": MESSAGE}


def test_denied_with_a_name() -> None:
    record = describer(a192_0_2_1="evil.example").describe(EVENT, None)
    assert record["host"] == "evil.example"
    assert record["explanation"] == "evil.example is not in the policy"


@pytest.mark.parametrize(
    ("name", "by"),
    [
        pytest.param("public.corp.example", "public.corp.example (policy.yaml:10)", id="by its name"),
        pytest.param("x.sandbox.corp.example", "*.sandbox.corp.example (policy.yaml:11)", id="by a pattern"),
    ],
)
@pytest.mark.parametrize("reason", [Reason.DENIED_UNKNOWN_ADDRESS, Reason.DNS_NOT_LISTED])
def test_a_name_that_the_policy_denies(reason: Reason, name: str, by: str) -> None:
    """It is in the policy, so "not in the policy" would send the reader the wrong way."""
    base = EVENT if reason is Reason.DENIED_UNKNOWN_ADDRESS else DNS_EVENT
    message = None if base is EVENT else wire(f"{name}.", "192.0.2.1")
    event = replace(base, reason=reason, dns_message=message)
    answer = read_message(message) if message is not None else None
    record = describer(a192_0_2_1=name).describe(event, answer)
    assert record["host"] == name
    assert record["explanation"] == f"{name} is denied by {by}"


def test_an_exception_from_what_is_denied() -> None:
    name = "again.sandbox.corp.example"
    assert "denied" not in describer(a192_0_2_1=name).describe(EVENT, None)["explanation"]


RECOGNISING = Tables(
    compile_rules(parse_policy(POLICY, "/etc/policy.yaml"), load_catalogue(), recognising=True),
    (1, 2, 3, 4),
    (443, 8080),
)


def recognising(**names: str) -> Describer:
    made = describer(**names)
    made.tables_of = lambda _: RECOGNISING
    return made


@pytest.mark.parametrize("reason", [Reason.DENIED_REGISTRY, Reason.DNS_RECOGNISED])
@pytest.mark.parametrize(
    ("name", "explanation"),
    [
        pytest.param("quay.io", "quay.io is a registry and not in the policy", id="of the catalogue"),
        pytest.param("new.example", "new.example is a registry and not in the policy", id="found"),
        pytest.param(
            "public.corp.example",
            "public.corp.example is denied by public.corp.example (policy.yaml:10)",
            id="denied",
        ),
    ],
)
def test_a_registry(reason: Reason, name: str, explanation: str) -> None:
    message = wire(f"{name}.", "192.0.2.1") if reason is Reason.DNS_RECOGNISED else None
    event = replace(EVENT if message is None else DNS_EVENT, reason=reason, dns_message=message)
    record = recognising(a192_0_2_1=name).describe(
        event, read_message(message) if message is not None else None
    )
    assert record["host"] == name
    assert record["explanation"].removesuffix(", so its addresses are refused") == explanation


def test_rules_against_registries() -> None:
    known = RECOGNISING.rules.match("quay.io")
    assert rule_text(known) == "quay.io (quay)"
    found = RECOGNISING.rule(RECOGNISING.number_of_found({443}))
    assert rule_text(found) == "found by asking it"
    event = replace(EVENT, reason=Reason.DENIED_REGISTRY, rule=RECOGNISING.number_of_found({443}))
    assert recognising(a192_0_2_1="new.example").describe(event, None)["rule"] == "found by asking it"


def test_events_are_understood_by_the_rules_of_their_scope() -> None:
    made = describer(a192_0_2_1="quay.io")
    made.tables_of = {3: RECOGNISING, 4: TABLES}.__getitem__
    event = replace(EVENT, reason=Reason.DENIED_REGISTRY, rule=1)
    first = [made.describe(replace(event, scope=scope), None)["rule"] for scope in (3, 4)]
    assert first == [rule_text(RECOGNISING.rule(1)), rule_text(TABLES.rule(1))]
    assert len(set(first)) == 2


def query(name: str, protocol: int) -> bytes:
    """A query as it is in a packet: over TCP a length goes before it."""
    plain = dns.message.make_query(name, "A").to_wire()
    return plain if protocol == UDP else len(plain).to_bytes(2, "big") + plain


@pytest.mark.parametrize("protocol", [pytest.param(UDP, id="UDP"), pytest.param(TCP, id="TCP")])
@pytest.mark.parametrize(
    ("name", "explanation"),
    [
        ("evil.example", "evil.example is not in the policy, and other names may not be asked for"),
        ("public.corp.example", "public.corp.example is denied by public.corp.example (policy.yaml:10)"),
    ],
)
def test_denied_query(name: str, explanation: str, protocol: int) -> None:
    """It is about the name asked for; the address is the resolver's, which nobody looked up."""
    event = replace(
        EVENT,
        reason=Reason.DENIED_QUERY_NAME,
        hook=Hook.INET_EGRESS,
        address=ip("10.0.0.53"),
        port=53,
        protocol=protocol,
        dns_message=query(name, protocol),
    )
    record = describer(a10_0_0_53="dns.example").describe(event, None)
    assert (record["event"], record["host"], record["explanation"]) == ("denied", name, explanation)
    assert (record["address"], record["port"], record["message"]) == ("10.0.0.53", 53, MESSAGE)
    assert "resolver" not in record


@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("message", [b"", b"x", b"garbage that is none", b"\xff" * 40])
def test_denied_packet_that_is_no_query(message: bytes, protocol: int) -> None:
    event = replace(
        EVENT,
        reason=Reason.DENIED_NOT_A_QUERY,
        address=ip("10.0.0.53"),
        protocol=protocol,
        dns_message=message,
    )
    record = describer().describe(event, None)
    assert record["event"] == "denied"
    assert record["explanation"] == "only queries for names of the policy may go to the resolver"


def test_a_query_over_tcp() -> None:
    event = replace(
        DNS_EVENT,
        reason=Reason.DNS_OVER_TCP,
        hook=Hook.INET_EGRESS,
        protocol=TCP,
        dns_message=query("ghcr.io", TCP),
        rule=rank("ghcr.io"),
        detail=1,
    )
    record = describer().describe(event, None)
    assert (record["event"], record["host"], record["protocol"]) == ("dns", "ghcr.io", "tcp")
    assert record["resolver"] == "10.0.0.53#53"


def test_private_address() -> None:
    event = replace(EVENT, reason=Reason.DENIED_PRIVATE_ADDRESS, rule=rank("ghcr.io"), address=ip("10.1.2.3"))
    record = describer(a10_1_2_3="ghcr.io").describe(event, None)
    assert record["explanation"] == (
        "ghcr.io is allowed by ghcr.io (ghcr), but this address is a private one; "
        "write private: true there if that is meant"
    )
    assert record["rule"] == "ghcr.io (ghcr)"
    assert record["message"] == MESSAGE


def test_reply_with_private_addresses_alone() -> None:
    message = wire("ghcr.io.", "10.1.2.3")
    event = replace(DNS_EVENT, reason=Reason.DNS_PRIVATE_ADDRESS, dns_message=message, rule=rank("ghcr.io"))
    record = describer().describe(event, read_message(message))
    assert record["event"] == "not-understood"
    assert record["addresses"] == ["10.1.2.3"]
    assert record["explanation"] == (
        "ghcr.io has only private addresses, which ghcr.io (ghcr) does not expect"
    )


def test_denied_port() -> None:
    event = replace(EVENT, reason=Reason.DENIED_PORT, port=8443, rule=rank("ghcr.io"))
    record = describer(a192_0_2_1="ghcr.io").describe(event, None)
    assert record["rule"] == "ghcr.io (ghcr)"
    assert record["explanation"] == "ghcr.io is allowed by ghcr.io (ghcr), but not on port 8443"
    assert record["message"] == MESSAGE


@pytest.mark.parametrize("name", ["ghcr.io", "registry.corp.example"])
def test_a_name_of_the_policy_is_not_said_to_be_missing_there(name: str) -> None:
    """Its address was forgotten by the kernel (the cleaning, a full map), but not by the history."""
    explanation = describer(a192_0_2_1=name).describe(EVENT, None)["explanation"]
    assert "is not in the policy" not in explanation


def test_would_deny() -> None:
    record = describer().describe(replace(EVENT, verdict=Verdict.WOULD_DENY), None)
    assert record == {**RECORD, "event": "would-deny", "verdict": "would-deny", "message": MESSAGE}


def test_allowed() -> None:
    event = replace(
        EVENT, verdict=Verdict.ALLOW, reason=Reason.ALLOWED_LEARNED, rule=rank("ghcr.io"), address=ip("::1")
    )
    record = describer().describe(event, None)
    assert (record["event"], record["verdict"]) == ("allowed", "allow")
    assert record["rule"] == "ghcr.io (ghcr)"
    assert "message" not in record


def test_no_message() -> None:
    assert describer(None).describe(EVENT, None) == RECORD


def test_what_is_unknown_is_left_out() -> None:
    event = replace(EVENT, pid=None, process=None, uid=None, cgroup_id=None)
    unknown = ("process", "pid", "uid", "cgroup")
    assert describer(None).describe(event, None) == {k: v for k, v in RECORD.items() if k not in unknown}
    assert "cgroup" not in describer().describe(replace(EVENT, cgroup_id=5), None)


def test_root_is_not_left_out() -> None:
    assert describer().describe(replace(EVENT, uid=0), None)["uid"] == 0


@pytest.mark.parametrize(
    ("number", "name"), [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "icmpv6"), (132, "132"), (0, "0")]
)
def test_protocols(number: int, name: str) -> None:
    assert describer().describe(replace(EVENT, protocol=number), None)["protocol"] == name


def test_learned() -> None:
    message = wire("ghcr.io.", "192.0.2.1", "192.0.2.2")
    event = replace(DNS_EVENT, dns_message=message, rule=rank("ghcr.io"))
    assert describer().describe(event, read_message(message)) == {
        "event": "learned",
        "reason": "dns-learned",
        "host": "ghcr.io",
        "protocol": "udp",
        "cgroup": "/docker",
        "rule": "ghcr.io (ghcr)",
        "explanation": "addresses of ghcr.io are allowed by ghcr.io (ghcr)",
        "resolver": "10.0.0.53#53",
        "addresses": ["192.0.2.1", "192.0.2.2"],
    }


def test_a_reply_that_ends_early() -> None:
    message = wire("ghcr.io.", "192.0.2.1")[:-5]
    event = replace(DNS_EVENT, reason=Reason.DNS_MALFORMED, dns_message=message)
    record = describer().describe(event, read_message(message))
    assert (record["event"], record["host"]) == ("not-understood", "ghcr.io")
    assert "addresses" not in record


@pytest.mark.parametrize("message", [None, b"", b"garbage", b"\xff" * 40])
def test_a_reply_that_says_nothing(message: bytes | None) -> None:
    event = replace(DNS_EVENT, reason=Reason.DNS_MALFORMED, dns_message=message)
    record = describer().describe(event, None)
    assert "host" not in record
    assert record["resolver"] == "10.0.0.53#53"


def test_the_history_says_nothing_of_a_resolver() -> None:
    record = describer(a10_0_0_53="dns.example").describe(DNS_EVENT, None)
    assert "host" not in record


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("verdict", list(Verdict))
def test_everything_can_be_described_and_written(verdict: Verdict, reason: Reason) -> None:
    for base in (EVENT, DNS_EVENT):
        record = describer().describe(replace(base, verdict=verdict, reason=reason), None)
        assert None not in record.values()
        json.dumps(record)
        human_line(record)


# --- lines for people


REQUEST = {"event": "denied", "method": "POST", "path": "/auth", "explanation": "x"}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            RECORD,
            "DENIED 192.0.2.1:443 tcp by docker[42] in /docker: "
            "no trusted DNS reply gave this address for an allowed name",
        ),
        (
            {**RECORD, "host": "evil.example", "explanation": "x", "message": MESSAGE},
            f"DENIED evil.example (192.0.2.1:443) tcp by docker[42] in /docker: x. {MESSAGE}",
        ),
        (
            {**RECORD, "address": "2001:db8::1", "explanation": "x"},
            "DENIED [2001:db8::1]:443 tcp by docker[42] in /docker: x",
        ),
        (
            {**RECORD, "host": "evil.example", "address": "2001:db8::1", "explanation": "x", "repeated": 9},
            "DENIED evil.example ([2001:db8::1]:443) tcp by docker[42] in /docker: x"
            " (9 more like this before)",
        ),
        (
            {"event": "would-deny", "address": "192.0.2.1", "port": 53, "protocol": "udp"},
            "WOULD-DENY 192.0.2.1:53 udp",
        ),
        (
            {"event": "denied", "address": "192.0.2.1", "port": 53, "protocol": "udp", "pid": 7},
            "DENIED 192.0.2.1:53 udp by ?[7]",
        ),
        (
            {"event": "learned", "host": "ghcr.io", "addresses": ["192.0.2.1", "::1"], "explanation": "y"},
            "LEARNED ghcr.io 192.0.2.1 ::1: y",
        ),
        ({"event": "not-understood", "explanation": "z"}, "NOT-UNDERSTOOD: z"),
        (
            {**REQUEST, "action": "push", "image": "evil.example/x", "user": "alice", "message": MESSAGE},
            f"DENIED push evil.example/x by alice of Docker (POST /auth): x. {MESSAGE}",
        ),
        (
            {**REQUEST, "action": "login", "registry": "evil.example"},
            "DENIED login evil.example by a client of Docker (POST /auth): x",
        ),
        (REQUEST, "DENIED by a client of Docker (POST /auth): x"),
        (
            {"event": "stopped", "explanation": "detached from /x", "counters": {}},
            "STOPPED: detached from /x",
        ),
    ],
)
def test_human_line(record: dict[str, Any], line: str) -> None:
    assert human_line(record) == line


def written(record: dict[str, Any], as_json: bool = False) -> str:
    stream = io.StringIO()
    RecordWriter(as_json, stream).write(record)
    return stream.getvalue()


def test_the_time_is_in_front() -> None:
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z READY: governing /x\n",
        written({"event": "ready", "explanation": "governing /x"}),
    )


@pytest.mark.parametrize(
    "character",
    ["\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\u202e", "\ufeff", "\ud800"],
)
def test_control_characters_are_replaced(character: str) -> None:
    for key in ("host", "process", "cgroup", "explanation", "message"):
        line = written({**RECORD, "host": "h", "message": MESSAGE, key: f"a{character}b"})
        assert "a\N{REPLACEMENT CHARACTER}b" in line
        assert line.removesuffix("\n").isprintable()


def test_letters_of_all_scripts_stay() -> None:
    assert written({"event": "x", "explanation": "zürich 東京 é"}).endswith("X: zürich 東京 é\n")


# --- JSON


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    writer = RecordWriter(True, stream)
    records: list[dict[str, Any]] = [
        RECORD,
        {"event": "x", "explanation": 'a\nb\r\u2028\x85"\\', "counters": {"dns-late": 3}},
        {"event": "y", "process": "\N{REPLACEMENT CHARACTER}\x1b[2J"},
    ]
    for record in records:
        writer.write(record)
    lines = stream.getvalue().splitlines()  # at every character that ends a line in some reader's eyes
    assert len(lines) == 3
    assert stream.getvalue().isascii()
    for line, record in zip(lines, records, strict=True):
        read = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read.pop("time"))
        assert read == record


def test_json_with_half_a_surrogate_pair() -> None:
    """Names of cgroups are bytes; what is not UTF-8 in them becomes such."""
    line = written({"event": "x", "cgroup": "/\udcff"}, as_json=True)
    assert line.isascii()
    assert json.loads(line)["cgroup"] == "/\udcff"


# --- streams


def test_by_default_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    RecordWriter(False).write({"event": "x"})
    assert capsys.readouterr().out.endswith(" X\n")


def test_each_line_at_once() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(_Raw(raw)), encoding="utf-8")
    writer = RecordWriter(False, stream)
    for count in (1, 2):
        writer.write({"event": "x"})
        assert raw.getvalue().count(b"\n") == count


class _Raw(io.RawIOBase):
    """Passes on what reaches it."""

    def __init__(self, target: io.BytesIO) -> None:
        self._target = target

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._target.write(bytes(data))


class _Failing(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def flush(self) -> None:
        raise self.error


def test_a_closed_stream() -> None:
    stream = io.StringIO()
    writer = RecordWriter(False, stream)
    stream.close()
    writer.write(RECORD)


def test_a_reader_that_has_gone() -> None:
    RecordWriter(False, _Failing(BrokenPipeError())).write(RECORD)


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.ENOSPC, errno.EIO, errno.EAGAIN])
def test_a_log_that_cannot_be_written_does_not_end_enforcement(number: int) -> None:
    """Standard output may be a socket (the journal), a file on a full disk, or a terminal that went."""
    RecordWriter(False, _Failing(OSError(number, "no"))).write(RECORD)


def test_a_stream_that_cannot_hold_every_character_loses_no_line() -> None:
    """What chose the character may be what is denied: it must not make its denial vanish."""
    raw = io.BytesIO()
    writer = RecordWriter(False, io.TextIOWrapper(raw, encoding="ascii"))
    writer.write({**RECORD, "process": "\N{REPLACEMENT CHARACTER}\x1b"})
    writer.write(RECORD)
    assert raw.getvalue().count(b"DENIED 192.0.2.1:443") == 2


def test_both_names_of_a_connection() -> None:
    """What was looked up, and what the connection said itself."""
    history = NameHistory()
    beginning = Beginning(ip("10.0.0.2"), 40000, b"evil.example", "evil.example")
    event = replace(EVENT, reason=Reason.NAME_MISMATCH, beginning=beginning)
    record = Describer(lambda number: TABLES, history, lambda identifier: None).describe(event, None)
    assert record["name"] == "evil.example"
    assert record["address"] == "192.0.2.1"
    assert "evil.example" in record["explanation"]


def test_hint_at_a_host_of_blobs_that_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a person would find it in the log: an allowed name was looked up just before."""
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    made = describer(a10_0_0_1="ghcr.io", a192_0_2_1="cdn.moved.example")
    record = made.describe(EVENT, None)
    assert record["hint"].startswith("cdn.moved.example was looked up 0 s after ghcr.io, which ")
    assert record["hint"].endswith("if so, add it there under `also`")
    assert record["hint"] in human_line(record)
    assert (record["after"], record["after_rule"]) == ("ghcr.io", "ghcr.io")


@pytest.mark.parametrize(
    "names",
    [
        {"a192_0_2_1": "cdn.moved.example"},
        {"a192_0_2_1": "cdn.moved.example", "a10_0_0_1": "ghcr.io"},
        {"a10_0_0_1": "public.corp.example", "a192_0_2_1": "cdn.moved.example"},
        {"a10_0_0_1": "ghcr.io", "a192_0_2_1": "public.corp.example"},
        {"a10_0_0_1": "ghcr.io"},
    ],
    ids=["alone", "afterwards", "after a denied one", "denied itself", "no name"],
)
def test_no_hint(names: dict[str, str]) -> None:
    assert not {"hint", "after", "after_rule"} & describer(**names).describe(EVENT, None).keys()
