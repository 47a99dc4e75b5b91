"""The time of day, by which certificates are judged and the log is read. Enforcement does without."""

from __future__ import annotations

import ctypes
import datetime
import time
from collections.abc import Iterator

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.policy.catalogue import Catalogue

_STA_UNSYNC = 0x0040  # include/uapi/linux/timex.h
_YEARS = 5  # after which the catalogue is old, or the clock is wrong
_libc = ctypes.CDLL(None, use_errno=True)


class _Timex(ctypes.Structure):
    """The head of struct timex, with room for the rest (adjtimex(2))."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    ]


def examine(case: Case) -> Iterator[Finding]:
    """Against the date of what comes with ram-ebpf. Needs no rights."""
    yield of_clock(time.time(), is_synchronised(), latest_date(case.catalogue))


def latest_date(catalogue: Catalogue) -> datetime.date:
    """When the catalogue was last confirmed: today cannot be before that."""
    return max(host.date for _, host in catalogue.hosts())


def is_synchronised() -> bool:
    """Whether somebody keeps the clock right. Asks only, and sets nothing."""
    answer = _Timex()
    return _libc.adjtimex(ctypes.byref(answer)) >= 0 and not answer.status & _STA_UNSYNC


def of_clock(now: float, synchronised: bool, known: datetime.date) -> Finding:
    """`now`: seconds since 1970; `known`: a date that is past."""
    today = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    says = f"the clock says {today:%Y-%m-%d %H:%M} UTC"
    kept = "kept right by somebody" if synchronised else "kept right by nobody (adjtimex)"
    cure = "set it: timedatectl set-ntp true, or date -s"
    # A day, as dates have no time zone.
    if today.date() < known - datetime.timedelta(days=1):
        return failure(
            Check.CLOCK,
            f"{says}, before {known}, when the catalogue was made: no certificate of a registry is valid yet",
            cure,
        )
    if today.date() > known + datetime.timedelta(days=365 * _YEARS):
        return warning(
            Check.CLOCK,
            f"{says}, {_YEARS} years after the catalogue was made, on {known}",
            f"update ram-ebpf; or, if that is not the time, {cure}",
        )
    return well(Check.CLOCK, f"{says}, {kept}")
