"""Python and the libraries that ram-ebpf is built on, by what its own package says that it needs."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well

_DISTRIBUTION = "ram-ebpf"
_OLDEST = (3, 10)
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:>=([0-9.]+))?")
_CURE = "install ram-ebpf anew with pip, into a virtual environment made with --system-site-packages"


def examine(case: Case) -> Iterator[Finding]:
    """The interpreter, and each requirement."""
    if sys.version_info[:2] < _OLDEST:
        yield failure(
            Check.PYTHON, f"Python {platform.python_version()} is too old", "take Python 3.10 or later"
        )
        return
    try:
        requirements = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield warning(
            Check.PYTHON,
            f"Python {platform.python_version()}; ram-ebpf is not installed as a package, "
            "so its libraries are not known",
            _CURE,
        )
        return
    problems = [problem for text in requirements if (problem := problem_with(text))]
    if problems:
        yield failure(Check.PYTHON, f"Python {platform.python_version()}: {'; '.join(problems)}", _CURE)
    else:
        needed = sum("extra ==" not in text for text in requirements)
        yield well(Check.PYTHON, f"Python {platform.python_version()} and {needed} libraries, all new enough")


def problem_with(requirement: str) -> str:
    """What is wrong with a requirement such as `pyyaml>=6.0` here; empty: nothing, or it is optional."""
    text, _, condition = requirement.partition(";")
    found = _REQUIREMENT.match(text.strip())
    if found is None or condition.strip():
        return ""
    name, oldest = found[1], found[2]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is missing"
    if oldest and is_older(version, oldest):
        return f"{name} {version} is older than {oldest}"
    return ""


def is_older(version: str, oldest: str) -> bool:
    """Whether a version comes before another one."""
    return _numbers(version) < _numbers(oldest)


def _numbers(version: str) -> tuple[int, ...]:
    """Those that order releases (PEP 440), up to the first part that is none: 7.1.0+dfsg counts as 7.1."""
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in release[0].split(".")] if release else [0]
    while numbers[-1:] == [0]:
        numbers.pop()
    return tuple(numbers)
