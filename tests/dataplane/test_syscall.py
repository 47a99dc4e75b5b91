"""bpf(2) itself: what the other tests of this folder do not use on their way."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ram_ebpf.dataplane import features, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map, raise_memlock_limit
from ram_ebpf.dataplane.syscall import AttachType, MapType, ProgramType

_libc = ctypes.CDLL(None, use_errno=True)
_RETURN_1 = syscall.instructions((0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0))


@pytest.fixture(autouse=True)
def _memory() -> None:
    raise_memlock_limit()


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpf file system of its own: the host need not have one mounted."""
    if _libc.mount(b"bpf", os.fsencode(tmp_path), b"bpf", 0, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(tmp_path))
    yield tmp_path
    _libc.umount2(os.fsencode(tmp_path), 2)  # MNT_DETACH


@pytest.fixture
def numbers() -> Iterator[Map]:
    made = Map("numbers", MapShape(MapType.HASH, 4, 8, 4, 0))
    yield made
    made.close()


def test_a_pinned_map_is_found_again_with_its_contents(bpffs: Path, numbers: Map) -> None:
    key, value = struct.pack("=I", 7), struct.pack("=Q", 42)
    numbers[key] = value
    syscall.object_pin(str(bpffs / "numbers"), numbers.fd)
    again = syscall.object_get(str(bpffs / "numbers"))
    try:
        assert syscall.map_info(again) == syscall.map_info(numbers.fd)
        assert syscall.map_lookup(again, key, 8) == value
    finally:
        os.close(again)


def test_a_pinned_program_outlives_its_descriptor(bpffs: Path) -> None:
    fd, _ = syscall.program_load("ram_pin", ProgramType.CGROUP_SKB, _RETURN_1, AttachType.INET_EGRESS)
    identifier = syscall.program_info(fd).id
    syscall.object_pin(str(bpffs / "program"), fd)
    os.close(fd)
    again = syscall.object_get(str(bpffs / "program"))
    try:
        assert syscall.program_info(again).id == identifier
        assert syscall.program_info(again).name == "ram_pin"
        assert syscall.program_test_run(again, bytes(64)).retval == 1
    finally:
        os.close(again)


def test_pinning_outside_a_bpf_file_system_is_refused_with_the_command_s_name(
    tmp_path: Path, numbers: Map
) -> None:
    with pytest.raises(PermissionError, match="OBJ_PIN"):
        syscall.object_pin(str(tmp_path / "numbers"), numbers.fd)


def test_a_full_hash_refuses_one_more(numbers: Map) -> None:
    for index in range(4):
        numbers[struct.pack("=I", index)] = bytes(8)
    with pytest.raises(OSError, match="MAP_UPDATE_ELEM") as caught:
        numbers[struct.pack("=I", 99)] = bytes(8)
    assert caught.value.errno == errno.E2BIG


def test_many_values_at_once_equal_many_single_ones() -> None:
    made = Map("many", MapShape(MapType.HASH, 4, 4, 10_000, 0))
    pairs = {struct.pack("=I", index): struct.pack("=I", index * 3) for index in range(9_000)}
    made.update(pairs.items())
    assert dict(made.items()) == pairs
    made.clear()
    assert dict(made.items()) == {}
    made.close()


def test_a_refused_program_comes_with_the_verifier_s_words() -> None:
    fall_off_the_end = syscall.instructions((0xB7, 1, 0, 0, 1), (0x95, 0, 0, 0, 0))  # r0 is never set
    with pytest.raises(syscall.VerifierError) as caught:
        syscall.program_load("ram_bad", ProgramType.CGROUP_SKB, fall_off_the_end, AttachType.INET_EGRESS)
    assert "R0 !read_ok" in caught.value.log
    assert "ram_bad" in str(caught.value)


def test_a_refused_program_leaves_no_log_behind() -> None:
    """Which is 16 MB each time; the daemon collects no garbage of what it does at its start."""
    gc.collect()
    gc.disable()
    try:
        before = resident()
        for _ in range(8):
            assert not features.has_helper(ProgramType.CGROUP_SKB, AttachType.INET_EGRESS, 9999)
        assert resident() - before < 2 * syscall.LOG_SIZE
    finally:
        gc.enable()


def resident() -> int:
    """Bytes of this process's own that are in memory."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) * 1024


def test_helpers_are_told_apart_by_trying() -> None:
    map_lookup, no_such_helper = 1, 9999
    for helper, there in ((map_lookup, True), (no_such_helper, False)):
        found = features.has_helper(ProgramType.CGROUP_SOCK_ADDR, AttachType.INET4_CONNECT, helper)
        assert found is there


INNER = MapShape(MapType.LRU_HASH, 4, 8, 64, 0)


@pytest.fixture
def places() -> Iterator[Map]:
    made = Map("places", MapShape(MapType.ARRAY_OF_MAPS, 4, 4, 8, 0), INNER)
    yield made
    made.close()


def test_a_map_of_maps_gives_the_identity_of_what_was_put_there(places: Map) -> None:
    inner = Map("inner", INNER)
    place = struct.pack("=I", 3)
    assert places.get(place) is None
    places[place] = struct.pack("=I", inner.fd)
    identity = places[place]
    inner.close()
    assert places[place] == identity  # it lives on as long as it is there
    places.discard(place)
    assert places.get(place) is None


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(MapShape(MapType.HASH, 4, 8, 64, 0), id="another type"),
        pytest.param(MapShape(MapType.LRU_HASH, 8, 8, 64, 0), id="other keys"),
        pytest.param(MapShape(MapType.LRU_HASH, 4, 16, 64, 0), id="other values"),
    ],
)
def test_a_map_of_maps_takes_maps_of_its_shape_alone(places: Map, shape: MapShape) -> None:
    other = Map("other", shape)
    try:
        with pytest.raises(OSError, match="MAP_UPDATE_ELEM") as caught:
            places[struct.pack("=I", 0)] = struct.pack("=I", other.fd)
        assert caught.value.errno == errno.EINVAL
    finally:
        other.close()


_TURNS = 100_000
# A loop that the verifier walks turn by turn (Linux 5.3 and later).
_LONG = syscall.instructions(
    (0xB7, 0, 0, 0, 0),  # r0 = 0
    (0x07, 0, 0, 0, 1),  # r0 += 1
    (0xA5, 0, 0, -2, _TURNS),  # if r0 < _TURNS: back to there
    (0xB7, 0, 0, 0, 1),
    (0x95, 0, 0, 0, 0),
)


def test_a_signal_while_a_program_is_verified_only_costs_time() -> None:
    """The verifier gives up where one is pending: one that stops us, a debugger's, the freezer's."""
    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    thread: list[int] = []
    begun = threading.Event()

    def load() -> int:
        thread.append(threading.get_ident())
        begun.set()
        return syscall.program_load("ram_long", ProgramType.CGROUP_SKB, _LONG, AttachType.INET_EGRESS)[0]

    try:
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(load)
            assert begun.wait(30)
            for _ in range(4):
                time.sleep(0.005)
                signal.pthread_kill(thread[0], signal.SIGUSR2)
            os.close(loading.result())
    finally:
        signal.signal(signal.SIGUSR2, before)
