"""What real clients send first (hellos/, captured by capture.py), whole, in pieces and with another name."""

from __future__ import annotations

import json

import pytest

from ram_ebpf.dataplane.abi import Reason, Stage

from .beginnings import DENIED_NAMES, REGISTRIES, fresh
from .capture import FOLDER
from .clients import NAME
from .hello_parts import Hello, in_records
from .splits import in_two
from .support import Bench
from .tls_reference import server_names
from .tls_tolerant import names

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane
PLACE = "device"

HELLOS = {path.stem: path.read_bytes() for path in sorted(FOLDER.glob("*.bin"))}
CLIENTS = pytest.mark.parametrize("client", HELLOS)


def refused(sent: bytes) -> bytes:
    """The same with a name of that length that is not allowed."""
    return sent.replace(NAME.encode(), b"x" + NAME.encode()[1:])


def test_each_is_known() -> None:
    assert set(json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))) == set(HELLOS)


def test_what_there_is_among_them() -> None:
    """Key shares of ML-KEM, ECH, GREASE, names in front of all else and behind it, an order of each time."""
    kinds = {client: [part.kind for part in Hello.of(sent).extensions] for client, sent in HELLOS.items()}
    assert sum(len(sent) > 1460 for sent in HELLOS.values()) > 10
    assert {"chromium", "firefox", "wolfssl"} <= {
        client.partition("@")[0] for client, found in kinds.items() if 0xFE0D in found
    }
    assert any(kind & 0x0F0F == 0x0A0A for kind in kinds["chromium@sid.1"])
    places = {found.index(0) / (len(found) - 1) for found in kinds.values()}
    assert min(places) == 0
    assert max(places) > 0.8
    assert len({tuple(found) for client, found in kinds.items() if client.startswith("chromium")}) == 5


@CLIENTS
def test_second_implementation(client: str) -> None:
    assert list(server_names(HELLOS[client])) == [NAME.encode()]
    assert names(HELLOS[client]) == {NAME.encode()}
    assert bytes(Hello.of(HELLOS[client])) == HELLOS[client]


@CLIENTS
def test_whole(opened: Bench, client: str) -> None:
    connection = fresh(opened)
    assert connection.sends(HELLOS[client])
    assert connection.stage is Stage.NAMED
    assert not fresh(opened).sends(refused(HELLOS[client]))


@CLIENTS
def test_every_split(opened: Bench, client: str) -> None:
    sent = HELLOS[client]
    for cut, first, second in in_two(opened, sent):
        assert (first, second) == (True, True), cut
    assert opened.counted()[Reason.ALLOWED_NAME] == len(sent) - 1

    sent = refused(sent)
    name_ends = sent.index(refused(NAME.encode())) + len(NAME)
    for cut, first, second in in_two(opened, sent):
        assert (first, second) == (cut < name_ends, False), cut
    # Once for each, and again for what comes behind the piece that was refused.
    assert opened.counted()[Reason.NAME_MISMATCH] == len(sent) - 1 + len(sent) - name_ends


@CLIENTS
def test_small_records(opened: Bench, client: str) -> None:
    """But for the name, in front of which none may end either."""
    begins = HELLOS[client].index(NAME.encode()) - 5
    inside = range(begins, begins + len(NAME))
    for size in (7, 100):
        for sent, stage in ((HELLOS[client], Stage.NAMED), (refused(HELLOS[client]), Stage.CUT)):
            many = in_records(sent, *(end for end in range(size, len(sent), size) if end not in inside))
            connection = fresh(opened)
            for at in range(0, len(many), 1400):
                connection.sends(many[at : at + 1400], at)
            assert connection.stage is stage
