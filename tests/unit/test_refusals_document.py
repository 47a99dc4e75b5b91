"""docs/refusals.md has a row for each client that `make refusals` knows, and what writes it is right."""

from __future__ import annotations

import pytest

from tests.engines import refusal_lines, refusals_document
from tests.engines.refusal_clients import CLIENTS
from tests.engines.refusal_kinds import KINDS, Kind
from tests.engines.refusals_document import BEGIN, END, Cell, Section, insert, render, versions_by_client
from tests.engines.trees import SUITES

DOCUMENT = refusals_document.DOCUMENT.read_text(encoding="utf-8")
CELLS = (
    Cell("docker pull", "20.10.24", 'Get "https://H/v2/": a | b', 0.2, 0.05),
    Cell("docker pull", "26.1.5", 'Get "https://H/v2/": a | b', 0.3, 0.011),
    Cell("docker pull", "28.5.2", "some `other` line", 0.1, None),
)
FRAME = f"before\n{BEGIN}\nold\n{END}\nafter\n"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_each_client_of_each_kind_has_its_row(kind: Kind) -> None:
    found = versions_by_client(DOCUMENT)
    of_kind = {client: versions for (title, client), versions in found.items() if title == kind.title}
    assert set(of_kind) == {client.name for client in kind.clients}, "run `make refusals`"
    assert {len(set(versions)) for versions in of_kind.values()} == {len(SUITES)}, "run `make refusals`"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_what_is_slow_is_explained(kind: Kind) -> None:
    section = DOCUMENT.partition(f"### {kind.title}\n")[2].partition("\n### ")[0]
    assert kind.note in section, "run `make refusals`"
    for client in kind.slow:
        assert client.split()[0] in kind.note


def test_kinds_and_clients_are_told_apart() -> None:
    assert len({kind.key for kind in KINDS}) == len({kind.title for kind in KINDS}) == len(KINDS)
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)
    for kind in KINDS:
        assert set(kind.slow) <= {client.name for client in kind.clients}


def test_what_is_written_can_be_read() -> None:
    text = render([Section("A kind", "About it.", CELLS, "It is slow.")], "H is a host.")
    assert (
        '| docker pull | 20.10.24, 26.1.5 | `Get "https://H/v2/": a \\| b` | 0.20 to 0.30 | 0.01 to 0.05 |'
        in text
    )
    assert "| docker pull | 28.5.2 | `` some `other` line `` | 0.10 | not asked |" in text
    assert text.endswith("\n\nIt is slow.\n")
    written = insert(FRAME, text)
    assert written.startswith(f"before\n{BEGIN}\n\nH is a host.\n\n### A kind\n")
    assert written.endswith(f"{END}\nafter\n")
    assert insert(written, text) == written
    assert versions_by_client(written) == {("A kind", "docker pull"): ["20.10.24", "26.1.5", "28.5.2"]}


@pytest.mark.parametrize("document", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n"])
def test_a_document_without_a_place_for_it(document: str) -> None:
    with pytest.raises(ValueError, match="between which the table belongs"):
        insert(document, "text")


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("", ""),
        ("first\n\n  last of h.test at 192.0.2.1:443 \n\n", "last of H at ADDRESS:443"),
        ('time="2026-01-02T03:04:05Z" level=fatal msg="x"', 'time="…" level=fatal msg="x"'),
        ("read tcp 10.77.0.150:40000->192.0.2.1:443: reset", "read tcp CLIENT->ADDRESS:443: reset"),
        (
            "x509: certificate is valid for "
            "blocked-by-registry-access-policy.ask-platform.registry.test, not h.test",
            "x509: certificate is valid for NAME, not H",
        ),
        (
            "denied: Access to h.test is blocked by acme's registry policy (rule: none). "
            "Ask platform@registry.test to allow it.",
            "denied: TEXT",
        ),
    ],
)
def test_what_is_another_each_time(output: str, line: str) -> None:
    assert refusal_lines.last_line(output, "h.test", "192.0.2.1") == line


@pytest.mark.parametrize("text", ["i/o timeout", "Connection timed out", "time-out", "TLS handshake Timeout"])
def test_timeouts(text: str) -> None:
    assert refusal_lines.speaks_of_a_timeout(f"error: {text}\n")
    assert not refusal_lines.speaks_of_a_timeout("operation not permitted")
