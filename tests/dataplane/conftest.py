"""Gives each module of this folder a loaded plane for the policy that the module states."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.register_assert_rewrite(*(f"{__package__}.{name}" for name in ("beginnings", "exchanges", "support")))

from ram_ebpf.dataplane.abi import Posture  # noqa: E402
from ram_ebpf.dataplane.devices import BEHIND  # noqa: E402
from ram_ebpf.dataplane.settings import Settings  # noqa: E402

from .beginnings import Connection, opened_at_device  # noqa: E402 - its assertions are to be rewritten
from .support import Bench, rules_of  # noqa: E402

Load = Callable[[str, str, Settings | None], Bench]


@pytest.fixture(scope="package")
def load() -> Iterator[Load]:
    """Planes by the lists of registries and denied names; modules with the same policy share one."""
    benches: dict[tuple[str, str, Settings | None], Bench] = {}

    def loaded(registries: str, denied: str, recognition: Settings | None) -> Bench:
        key = (registries, denied, recognition)
        if key not in benches:
            recognising = recognition is not None
            posture = Posture.REGISTRIES if recognising else Posture.STRICT
            rules = rules_of(registries, denied, recognising)
            benches[key] = Bench(rules, recognition, posture=posture)
        return benches[key]

    yield loaded
    for bench in benches.values():
        bench.plane.close()


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest, load: Load) -> Bench:
    """The plane for REGISTRIES and, if there are any, DENIED_NAMES of the module.

    A module with RECOGNITION has them in posture registries.
    """
    module = request.module
    return load(module.REGISTRIES, getattr(module, "DENIED_NAMES", ""), getattr(module, "RECOGNITION", None))


# What is about sockets and cgroups themselves, or about what only devices remember in a test run.
_OF_ONE_KIND = frozenset(
    {
        "test_senders",
        "test_sockets",
        "test_scopes",
        "test_syscall",
        "test_devices",
        "test_device_attachments",
        "test_responder",
        "test_wire_again",
        "test_wire_corpus",
        "test_wire_mutations",
        "test_wire_names",
        "test_wire_proxies",
        "test_wire_recognised",
        "test_wire_requests",
        "test_wire_sockets",
        "test_wire_splits",
        "test_wire_variants",
    }
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Devices decide as cgroups do: what holds for the ones is tried with the others."""
    name = metafunc.module.__name__.rpartition(".")[2]
    if "bench" in metafunc.fixturenames and name not in _OF_ONE_KIND:
        of_device = pytest.param("device", marks=pytest.mark.heavy)
        metafunc.parametrize("place", ["cgroup", of_device], indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """Whose programs a test asks: in a module with PLACE those."""
    chosen: str = getattr(request, "param", getattr(request.module, "PLACE", "cgroup"))
    return chosen


@pytest.fixture
def bench(loaded: Bench, place: str) -> Bench:
    """The module's plane, with nothing left of other tests."""
    loaded.device = BEHIND if place == "device" else None
    loaded.reset()
    return loaded


@pytest.fixture
def opened(bench: Bench) -> Bench:
    """For a module with the policy of beginnings.py."""
    return opened_at_device(bench)


@pytest.fixture
def connection(opened: Bench) -> Connection:
    """Open, with nothing sent."""
    return Connection(opened).open()
