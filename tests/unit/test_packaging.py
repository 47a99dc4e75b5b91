"""What is written down twice about installing says the same."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
UNIT = (ROOT / "packaging/systemd/ram-ebpf.service").read_text(encoding="utf-8")
# Of systemd.exec(5) and systemd.service(5), those that are no hardening and need no reason in the docs.
_PLAIN = re.compile(
    r"Type|NotifyAccess|Exec|Timeout|Restart(Sec|Prevent)?|KillMode|Limit(NOFILE)|.*Directory(Mode)?$"
)


@pytest.fixture(scope="module")
def bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle", ROOT / "packaging/bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wanted() -> list[Requirement]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    body = text.split("\ndependencies = [\n", 1)[1].split("\n]", 1)[0]
    return [Requirement(found) for found in re.findall(r'^ *"([^"]+)"', body, re.MULTILINE)]


def test_versions_to_bundle_are_those_that_are_wanted(bundle: ModuleType) -> None:
    pins = bundle.versions((ROOT / "packaging/versions.txt").read_text(encoding="utf-8"))
    assert len(wanted()) > 5
    for requirement in wanted():
        version = pins[bundle.canonical(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("pytest>=1", True, id="there"),
        pytest.param("pytest>=10000", False, id="too old"),
        pytest.param("no-such-distribution-of-anybody", False, id="missing"),
    ],
)
def test_what_will_do(bundle: ModuleType, text: str, expected: bool) -> None:
    assert bundle.is_met(Requirement(text)) is expected


def test_requirements_leave_extras_out(bundle: ModuleType) -> None:
    names = {bundle.canonical(requirement.name) for requirement in bundle.requirements("ram-ebpf")}
    here = [found for found in wanted() if found.marker is None or found.marker.evaluate()]
    assert names == {bundle.canonical(requirement.name) for requirement in here}


def test_a_build_on_a_host_has_what_debian_builds_with() -> None:
    control = (ROOT / "packaging/debian/control").read_text(encoding="utf-8")
    needed = set(re.findall(r"^ (python3-[\w-]+)", control.split("\n\n")[0], re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = re.findall(r"^DEB_PACKAGES := (.*)$", makefile, re.MULTILINE)
    assert needed <= set(line.split())


def test_each_directive_has_its_reason_in_the_docs() -> None:
    docs = (ROOT / "docs/systemd.md").read_text(encoding="utf-8")
    service = UNIT.split("[Service]")[1].split("[Install]")[0]
    names = dict.fromkeys(re.findall(r"^(\w+)=", service, re.MULTILINE))
    assert [name for name in names if name not in docs and not _PLAIN.match(name)] == []
    for capability in re.findall(r"CAP_\w+", service):
        assert capability in docs


def test_engines_are_behind_it() -> None:
    """All that ram_ebpf/scopes/engines.py looks for, and the socket by which podman is started."""
    from ram_ebpf.scopes import engines

    (before,) = re.findall(r"^Before=(.*)$", UNIT, re.MULTILINE)
    assert {*engines._UNITS.values(), "podman.socket"} <= set(before.split())
