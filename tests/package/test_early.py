"""ram-ebpf-boot.service under a real systemd: what is governed is so before it starts."""

from __future__ import annotations

import pytest

from . import outside
from .conftest import Package
from .installed import installed
from .machine import Machine
from .outside import ALLOWED, BLOCKED

pytestmark = pytest.mark.timeout(1800)

EARLY, BOOT, MAIN = "early.service", "ram-ebpf-boot.service", "ram-ebpf.service"
POLICY = f"""\
version: 1
registries: [{{ host: {ALLOWED}, private: true }}]
resolvers: [{outside.RESOLVER}]
scopes: [{{ unit: {EARLY} }}]
refusals: {{ responder: off }}
"""
_UNIT = """\
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""


def _moment(machine: Machine, unit: str, field: str) -> int:
    """In microseconds since the start of the host."""
    return int(machine.run(f"systemctl show --property={field} --value {unit}"))


def test_a_unit_is_governed_before_it_starts(
    package: Package, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Though nobody has started the daemon, which takes that over when somebody does."""
    directory = tmp_path_factory.mktemp(f"early-{package.suite}")
    with installed(package, directory, POLICY) as layer:
        units = layer.root / "etc/systemd/system"
        (units / EARLY).write_text(_UNIT, encoding="utf-8")
        (units / "multi-user.target.wants" / EARLY).symlink_to(f"../{EARLY}")
        with Machine(layer.root, f"early-{package.suite}") as machine:
            outside.plug(machine)
            assert _moment(machine, BOOT, "ActiveEnterTimestampMonotonic") <= _moment(
                machine, EARLY, "ExecMainStartTimestampMonotonic"
            )
            assert outside.connect(machine, BLOCKED, EARLY) == "PermissionError"
            assert outside.connect(machine, ALLOWED, EARLY) == "connected"
            assert outside.connect(machine, BLOCKED) == "connected"  # of another unit
            machine.run(f"systemctl start {MAIN}")
            said = machine.run(f"journalctl --unit={MAIN} --output=cat")
            assert "REPLACED: 6 programs left by an earlier instance" in said
            assert outside.connect(machine, BLOCKED, EARLY) == "PermissionError"
            assert outside.connect(machine, ALLOWED, EARLY) == "connected"
