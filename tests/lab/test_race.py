"""What a client resolves it can reach at once, however often it tries: no name and no address comes twice."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.adversarial.field import governed

from .daemon import Daemon
from .lab import Lab
from .race import POLICY, Race

FEW = 2_000  # for a guest without hardware acceleration
MANY = 100_000
UNASKED = 100
PATIENCE = 60.0  # seconds for the daemon's end, before which it tells of all events that still wait


@pytest.fixture(scope="module")
def race(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Race]:
    with Race(lab, tmp_path_factory.mktemp("race")) as result:
        yield result


@pytest.fixture
def daemon(lab: Lab, race: Race) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        yield result


@pytest.mark.parametrize(
    "cycles",
    [
        pytest.param(FEW, id="2 000", marks=pytest.mark.core),
        pytest.param(MANY, id="100 000"),
    ],
)
def test_resolve_and_connect_at_once(
    race: Race, daemon: Daemon, cycles: int, record_property: Callable[[str, object], None]
) -> None:
    """Half of the cycles open a TCP connection, half send a datagram."""
    # The same without having asked: it is the reply that opens an address, and nothing else does.
    assert race.run(UNASKED, "blind").errors == {errno.EPERM: UNASKED}
    before = Counter(race.arrived())
    outcome = race.run(cycles)
    arrived = Counter(race.arrived()) - before
    record_property("cycles_per_second", outcome.per_second)
    print(f"{cycles} cycles in {outcome.seconds:.1f} s, {outcome.repeated} queries sent again")
    assert outcome.errors == {0: cycles}
    # Nor was anything lost on the way without the client being told.
    assert arrived["Tcp.PassiveOpens"] == cycles // 2
    assert arrived["Udp.InDatagrams"] + arrived["Udp.InErrors"] == cycles // 2
    assert race.run(UNASKED, "blind").errors == {errno.EPERM: UNASKED}
    assert daemon.terminate(PATIENCE) == 0
    daemon.wait(lambda lines: lines[-1]["event"] == "stopped", PATIENCE)
    counters = daemon.lines()[-1]["counters"]
    assert counters["dns-learned"] >= cycles
    assert counters["denied-unknown-address"] == 2 * UNASKED
