"""What real clients send first (hellos/, captured by capture.py), whole, in pieces and with another name."""

from __future__ import annotations

import json

import pytest

from ram_ebpf.dataplane.abi import Stage

from .beginnings import DENIED_NAMES, REGISTRIES, Connection, opened_at_device
from .capture import FOLDER
from .clients import NAME
from .support import Bench
from .tls_reference import server_name

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

HELLOS = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.bin"))}
CLIENTS = pytest.mark.parametrize("client", HELLOS)


@pytest.fixture
def place() -> str:
    return "device"


@pytest.fixture
def opened(bench: Bench) -> Bench:
    return opened_at_device(bench)


def fresh(opened: Bench) -> Connection:
    connection = Connection(opened)
    connection.forget()
    return connection.open()


def refused(sent: bytes) -> bytes:
    """The same with a name of that length that is not allowed."""
    return sent.replace(NAME.encode(), b"x" + NAME.encode()[1:])


def test_each_is_known() -> None:
    assert set(json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))) == set(HELLOS)
    assert any(len(sent) > 1460 for sent in HELLOS.values())  # with a key share of ML-KEM


@CLIENTS
def test_second_implementation(client: str) -> None:
    assert server_name(HELLOS[client]) == NAME.encode()


@CLIENTS
def test_whole(opened: Bench, client: str) -> None:
    connection = fresh(opened)
    assert connection.sends(HELLOS[client])
    assert connection.stage is Stage.NAMED
    assert not fresh(opened).sends(refused(HELLOS[client]))


@pytest.mark.heavy
@CLIENTS
def test_every_split(opened: Bench, client: str) -> None:
    for sent, stage in ((HELLOS[client], Stage.NAMED), (refused(HELLOS[client]), Stage.CUT)):
        for cut in range(1, len(sent)):
            connection = fresh(opened)
            passed = connection.sends(sent[:cut]), connection.sends(sent[cut:], cut)
            assert connection.stage is stage, cut
            assert all(passed) is (stage is Stage.NAMED), cut
