"""Which name an address was last given for."""

from __future__ import annotations

import ipaddress

import pytest

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.dns.response import Answer

ip = ipaddress.ip_address


def answer(name: str, *addresses: str) -> Answer:
    return Answer(name, tuple((ip(address), 60) for address in addresses))


def test_the_last_name_counts() -> None:
    history = NameHistory()
    assert history.name_of(ip("192.0.2.1")) is None
    history.note(answer("a.example", "192.0.2.1", "2001:db8::1"))
    history.note(answer("b.example", "192.0.2.1"))
    assert history.name_of(ip("192.0.2.1")) == "b.example"
    assert history.name_of(ip("2001:db8::1")) == "a.example"
    assert history.name_of(ip("192.0.2.2")) is None


def test_an_answer_without_addresses() -> None:
    history = NameHistory()
    history.note(answer("a.example"))
    assert history.name_of(ip("192.0.2.1")) is None


def test_the_bound() -> None:
    history = NameHistory(most=3)
    for number in range(1, 6):
        history.note(answer(f"n{number}.example", f"192.0.2.{number}"))
    assert [history.name_of(ip(f"192.0.2.{number}")) for number in range(1, 6)] == [
        None, None, "n3.example", "n4.example", "n5.example",
    ]  # fmt: skip


def test_what_is_noted_again_stays() -> None:
    history = NameHistory(most=2)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"):
        history.note(answer("a.example", address))
    assert history.name_of(ip("192.0.2.1")) == "a.example"
    assert history.name_of(ip("192.0.2.2")) is None


def test_an_answer_larger_than_the_bound() -> None:
    history = NameHistory(most=2)
    history.note(answer("a.example", "192.0.2.1", "192.0.2.2", "192.0.2.3"))
    assert history.name_of(ip("192.0.2.1")) is None
    assert history.name_of(ip("192.0.2.3")) == "a.example"


def test_the_usual_bound() -> None:
    history = NameHistory()
    first = int(ip("10.0.0.0"))
    history.note(Answer("a.example", tuple((ip(first + n), 60) for n in range(16385))))
    assert history.name_of(ip("10.0.0.0")) is None
    assert history.name_of(ip("10.0.0.1")) == "a.example"


def test_names_that_were_looked_up_before(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {0.0: "old", 5.0: "blobs", 14.0: "registry", 15.0: "auth", 16.0: "blobs", 17.0: "later"}
    clock = iter(names)
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    history = NameHistory()
    for name in names.values():
        history.note(answer(name))
    assert history.before("blobs") == [(1.0, "auth"), (2.0, "registry")]
    assert history.before("old") == []
    assert history.before("never") == []


def test_what_the_daemon_asks_by_itself_is_nobodys_lookup() -> None:
    history = NameHistory()
    history.note(answer("ghcr.example", "192.0.2.1"), own=True)
    history.note(answer("evil.example", "192.0.2.2"))
    assert history.before("evil.example") == []
    assert history.name_of(ip("192.0.2.1")) == "ghcr.example"
