"""Two hundred containers at once, each of which connects with its first process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.adversarial.field import Sniffer
from tests.lab.docker_daemon import governed
from tests.lab.lab import Lab

from .dockerd import Dockerd
from .names import POLICY, Names, reference

_COUNT = 200
_AT_ONCE = 16


@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", ["trixie"], indirect=True, scope="session")
def test_first_packet_of_each(lab: Lab, names: Names, docker: Dockerd) -> None:
    image = reference(names.allowed())
    docker.run("pull", image).check()
    targets = [names.refused() for _ in range(_COUNT)]
    sniffer = Sniffer(lab.blocked.node)

    def run(number: int) -> str:
        words = ("nc", "-w", "3", targets[number].address, "443")
        started = docker.run(
            *("run", "--detach", "--label=team=builds", image, "busybox", *words), timeout=300
        ).check()
        return started.stdout.strip()

    try:
        with governed(lab, docker, POLICY, "container:label=team=builds") as daemon:
            connections = lab.blocked.counters()["Tcp.PassiveOpens"]
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                containers = list(pool.map(run, range(_COUNT)))
            codes = docker.run("wait", *containers, timeout=300).check().stdout.split()
            assert len(codes) == _COUNT
            assert "0" not in codes, "one of them got through"
            assert lab.blocked.counters()["Tcp.PassiveOpens"] == connections
            wanted = {bytes(map(int, target.address.split("."))) for target in targets}
            assert not [packet for packet in sniffer.packets() if packet[16:20] in wanted]
            assert not [line for line in daemon.lines() if line["event"] == "unknown-device"]
            docker.run("rm", "--force", *containers, timeout=300).check()
    finally:
        sniffer.close()
