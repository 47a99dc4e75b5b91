"""What is kept of a policy that was read, and when it is believed."""

from __future__ import annotations

import dataclasses
import os
from contextlib import closing
from pathlib import Path

import pytest

from ram_ebpf.daemon import kept_reading, upgrade
from ram_ebpf.daemon.kept_reading import KeptReading, find, keep, open_reader, place_of
from ram_ebpf.daemon.reading import PolicyReader, Read, ReaderError, Wanted
from ram_ebpf.policy.choices import Posture
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.terms import STRICT, Terms

POLICY = "version: 1\nregistries: [ghcr, { host: a.example }]\n"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is kept; also by the process that reads."""
    directory = tmp_path / "state"
    monkeypatch.setenv("RAM_EBPF_STATE", str(directory))
    monkeypatch.setattr(find, "__defaults__", (directory,))
    return directory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def read_and_keep(wanted: Wanted, terms: list[Terms] | None = None) -> tuple[Read, dict[Terms, RuleSet]]:
    with PolicyReader(wanted) as reader:
        read = reader.read()
        return read, reader.rules(terms or [STRICT])


def found(wanted: Wanted, state: Path) -> KeptReading:
    result = find(wanted, state)
    assert result is not None
    return result


def test_is_what_was_read(state: Path, file: Path) -> None:
    wanted = Wanted(str(file), keep=True)
    assert find(wanted, state) is None
    read, rules = read_and_keep(wanted)
    with closing(found(wanted, state)) as kept:
        assert kept.read() == read
        assert kept.rules([STRICT, STRICT]) == rules
        assert kept.rules([STRICT])[STRICT].match("a.example") is not None
    assert state.stat().st_mode & 0o777 == 0o700
    assert place_of(wanted, state).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in state.iterdir()] == [place_of(wanted, state).name]


def test_by_a_reload_too(state: Path, file: Path) -> None:
    """At a start the last good policy would do, at a reload it would not: the file is the same."""
    read_and_keep(Wanted(str(file), keep=True))
    assert find(Wanted(str(file), or_last_good=True, keep=True), state) is not None


@pytest.mark.parametrize(
    "wanted",
    [Wanted(None, keep=True), Wanted("policy.yaml"), Wanted("policy.yaml", last_good_first=True, keep=True)],
    ids=["the built-in policy", "not asked to", "the last good one"],
)
def test_not_kept(state: Path, file: Path, monkeypatch: pytest.MonkeyPatch, wanted: Wanted) -> None:
    monkeypatch.chdir(file.parent)
    read_and_keep(Wanted(wanted.file, last_good_first=wanted.last_good_first, keep=wanted.keep))
    assert not state.exists() or not list(state.iterdir())
    assert find(wanted, state) is None


def test_not_kept_of_the_last_good_policy(state: Path, file: Path) -> None:
    from ram_ebpf.daemon import last_good
    from ram_ebpf.policy.loader import load_policy

    last_good.keep(load_policy(file), state)
    before = set(state.iterdir())
    file.write_text("version: 2\n")
    wanted = Wanted(str(file), or_last_good=True, keep=True)
    read, _ = read_and_keep(wanted)
    assert read.remarks
    assert set(state.iterdir()) == before
    assert find(wanted, state) is None


def test_not_kept_with_a_wrong_scope(state: Path, file: Path) -> None:
    wanted = Wanted(str(file), ("nonsense",), keep=True)
    read, _ = read_and_keep(wanted)
    assert read.problem is not None
    assert find(wanted, state) is None


def test_wrong_policy(state: Path, file: Path) -> None:
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    file.write_text("version: 2\n")
    assert find(wanted, state) is None
    with closing(open_reader(wanted)) as reader, pytest.raises(PolicyErrors):
        reader.read()


@pytest.mark.parametrize("how", ["file", "scopes", "posture", "directory", "code", "library", "python"])
def test_changed(state: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    scopes = ("cgroup:/a",)
    wanted = Wanted(str(file), scopes, Posture.STRICT, keep=True)
    read_and_keep(wanted)
    assert find(wanted, state) is not None
    if how == "file":
        file.write_text(POLICY + "# more\n")
    elif how == "scopes":
        wanted = dataclasses.replace(wanted, scopes=("cgroup:/b",))
    elif how == "posture":
        wanted = dataclasses.replace(wanted, posture=Posture.REGISTRIES)
    elif how == "directory":
        # The same file under another name is told of by that.
        monkeypatch.chdir(tmp_path)
        wanted = Wanted(file.name, scopes, Posture.STRICT, keep=True)
    elif how == "code":
        monkeypatch.setattr(upgrade, "digest_at_start", lambda: b"another")
    elif how == "library":
        monkeypatch.setattr(kept_reading, "_LIBRARIES", ("idna",))
    else:
        monkeypatch.setattr("sys.version", "4.0")
    assert find(wanted, state) is None


@pytest.mark.parametrize("cut", [0, 1, 64, 127, 128, 129, -1])
def test_cut_off(state: Path, file: Path, cut: int) -> None:
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    place = place_of(wanted, state)
    place.write_bytes(place.read_bytes()[:cut])
    assert find(wanted, state) is None


@pytest.mark.parametrize("at", [0, 64, 128, 140, -1])
def test_one_bit_is_wrong(state: Path, file: Path, at: int) -> None:
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    place = place_of(wanted, state)
    data = bytearray(place.read_bytes())
    data[at] ^= 1
    place.write_bytes(data)
    assert find(wanted, state) is None


@pytest.mark.parametrize("whose", ["file", "directory"])
def test_writable_by_others(state: Path, file: Path, caplog: pytest.LogCaptureFixture, whose: str) -> None:
    """Who may write there could have anything run: it is a pickle."""
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    place = place_of(wanted, state)
    (place if whose == "file" else state).chmod(0o722)
    assert find(wanted, state) is None
    assert f"ignoring {place}: it or its directory is writable by others than root" in caplog.text


def test_nowhere_to_keep_it(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wanted = Wanted(str(file), keep=True)
    with PolicyReader(Wanted(str(file))) as reader:
        read, rules = reader.read(), reader.rules([STRICT])
    there = tmp_path / "a file"
    there.write_text("")
    keep(wanted, read, rules, there)
    assert f"what was read of the policy is not kept in {there}: " in caplog.text
    assert find(wanted, there) is None


def test_special_file(state: Path, file: Path) -> None:
    """To open it must not wait for somebody."""
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    file.unlink()
    assert find(wanted, state) is None
    os.mkfifo(file)
    assert find(wanted, state) is None


def test_too_large(state: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    monkeypatch.setattr(kept_reading, "MAX_POLICY_BYTES", len(POLICY) - 1)
    assert find(wanted, state) is None


def test_other_terms(state: Path, file: Path) -> None:
    """They are asked for then, and kept from then on with those before."""
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    other = Terms(posture=Posture.REGISTRIES)
    with closing(found(wanted, state)) as kept:
        assert set(kept.rules([STRICT, other])) == {STRICT, other}
    with closing(found(wanted, state)) as kept:
        assert set(kept._unpack()[1]) == {STRICT, other}


def test_other_terms_of_a_file_that_has_changed(state: Path, file: Path) -> None:
    wanted = Wanted(str(file), keep=True)
    read_and_keep(wanted)
    kept = found(wanted, state)
    file.write_text(POLICY + "mode: audit\n")
    with pytest.raises(ReaderError, match="has changed during the start: start ram-ebpf again"):
        kept.rules([Terms(posture=Posture.REGISTRIES)])


def test_which_reader(state: Path, file: Path) -> None:
    wanted = Wanted(str(file), keep=True)
    with closing(open_reader(wanted)) as reader:
        assert isinstance(reader, PolicyReader)
        reader.read()
        reader.rules([STRICT])
    with closing(open_reader(wanted)) as reader:
        assert isinstance(reader, KeptReading)
