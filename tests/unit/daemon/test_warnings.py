"""What status says is wrong for the time being."""

from __future__ import annotations

from ram_ebpf.daemon.warnings import Warnings


def test_the_last_one_of_each_kind() -> None:
    warnings = Warnings()
    for event, explanation in (
        ("ready", "governing"),
        ("unpinned", "first"),
        ("denied", "evil.example"),
        ("unpinned", "second"),
    ):
        warnings.note(event, explanation)
    assert warnings.current() == {"unpinned": "second"}


def test_a_reload_that_succeeds() -> None:
    """It ends the failure of the last one, and nothing else."""
    warnings = Warnings()
    warnings.note("events-lost", "3 events")
    warnings.note("reload-failed", "line 3")
    assert warnings.current() == {"events-lost": "3 events", "reload-failed": "line 3"}
    warnings.note("reloaded", "enforced now")
    assert warnings.current() == {"events-lost": "3 events"}


def test_another_policy() -> None:
    """What is still wrong with it is said again."""
    warnings = Warnings()
    warnings.note("no-plugin", "not served")
    warnings.note("no-control", "no directory")
    warnings.begin_again()
    assert warnings.current() == {"no-control": "no directory"}
