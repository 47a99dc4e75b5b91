"""What a service manager receives, on a socket such as systemd's."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ram_ebpf.daemon.notify import ServiceManager
from tests.lab.service_manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@ram-ebpf-{secrets.token_hex(8)}"
    with closing(Manager(address)) as made:
        yield made


def test_from_start_to_end(manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "OTHER": "stays"}
    with closing(ServiceManager.of_environment(environment)) as told:
        assert environment == {"OTHER": "stays"}
        told.status("loading")
        told.status("loading")
        told.ready("governing 1 place")
        told.status("governing 1 place")
        told.status("governing\n2 places")
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        told.reloading()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        told.ready("governing 2 places")
        told.stopping()
        told.alive()  # which nobody wants to know
    received = manager.received()
    assert before <= int(received[3].pop("MONOTONIC_USEC")) <= after
    assert received == [
        {"STATUS": "loading"},
        {"READY": "1", "STATUS": "governing 1 place"},
        {"STATUS": "governing 2 places"},
        {"RELOADING": "1"},
        {"READY": "1", "STATUS": "governing 2 places"},
        {"STOPPING": "1"},
    ]


@pytest.mark.parametrize("process", ["", str(os.getpid())], ids=["any process", "this process"])
def test_watchdog_is_fed_in_time_and_not_in_each_turn(manager: Manager, process: str) -> None:
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "600000"}
    if process:
        environment["WATCHDOG_PID"] = process
    with closing(ServiceManager.of_environment(environment)) as told:
        assert told.watches
        assert environment == {}
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            told.alive()
            time.sleep(0.01)
    received = manager.received()
    assert received == [{"WATCHDOG": "1"}] * len(received)
    assert 2 <= len(received) <= 3  # one each 0.2 s


@pytest.mark.parametrize(
    ("microseconds", "process"), [("600000", "1"), ("0", ""), ("", ""), ("-5", ""), ("soon", ""), ("²", "")]
)
def test_no_watchdog_of_ours(manager: Manager, microseconds: str, process: str) -> None:
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": microseconds,
        "WATCHDOG_PID": process,
    }
    with closing(ServiceManager.of_environment(environment)) as told:
        assert not told.watches
        told.alive()
        told.ready("")
    assert manager.received() == [{"READY": "1", "STATUS": ""}]


def test_manager_with_no_time_holds_nobody_up(manager: Manager) -> None:
    with closing(ServiceManager(manager.address, 0.03)) as told:
        manager.fill()
        started = time.monotonic()
        told.alive()
        assert time.monotonic() - started < 0.5
        manager.received()
        told.alive()  # it was not told, so it is in the next turn
        assert manager.received() == [{"WATCHDOG": "1"}]


def test_what_it_must_know_waits_for_room_but_not_for_ever(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ram_ebpf.daemon.notify._PATIENCE", 0.2)
    with closing(ServiceManager(manager.address)) as told:
        manager.fill()
        started = time.monotonic()
        told.ready("")
        assert 0.15 < time.monotonic() - started < 2
    assert f"the service manager at {manager.address} cannot be told anything" in caplog.text


def test_nobody() -> None:
    with closing(ServiceManager.of_environment({"WATCHDOG_USEC": "1000"})) as told:
        assert not told.watches
        told.ready("")
        told.reloading()
        told.alive()
        told.stopping()


def test_manager_that_is_gone_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        with closing(ServiceManager(str(tmp_path / "gone"), 0.001)) as told:
            for _ in range(3):
                told.ready("")
                told.alive()
                time.sleep(0.002)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"the service manager at {tmp_path}/gone cannot be told anything: ")
    assert "No such file" in said


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative"])
def test_other_kinds_of_sockets(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with closing(ServiceManager.of_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"})) as told:
        told.ready("")
        assert not told.watches
    assert address in caplog.text
