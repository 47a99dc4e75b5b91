"""A builder without a daemon: Buildah, in a strict control group and on a host that is a scope."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.adversarial.field import governed, wait_line

from . import docker_image
from .daemon import Daemon
from .dns import Addresses
from .lab import Lab
from .processes import Finished
from .servers import aside

pytestmark = pytest.mark.root

REPOSITORY = "lab/tools"
IMAGE = f"allowed.registry.test/{REPOSITORY}:1"
KNOWN, KNOWN_V6 = "203.0.114.41", "2001:db8:1::41"
POLICY = f"""\
version: 1
organization: acme
registries:
  - host: allowed.registry.test
    private: true
resolvers: [{Lab.resolver}]
refusals:
  responder: off
"""


@dataclass
class Buildah:
    """With storage of its own."""

    lab: Lab
    directory: Path

    def build(self, cgroup: Path, *lines: str) -> Finished:
        """Builds an image, in the network of the client."""
        program = aside.find("buildah")
        (self.directory / "Containerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (self.directory / "policy.json").write_text(
            json.dumps({"default": [{"type": "insecureAcceptAnything"}]}), encoding="utf-8"
        )
        (self.directory / "registries.conf").touch()
        env = {
            **program.env,
            "HOME": str(self.directory),
            "CONTAINERS_REGISTRIES_CONF": str(self.directory / "registries.conf"),
        }
        storage = [f"--root={self.directory}/root", f"--runroot={self.directory}/run", "--storage-driver=vfs"]
        options = ["--isolation=chroot", f"--signature-policy={self.directory}/policy.json"]
        return self.lab.client.run(
            [str(program.path), *storage, "build", *options, "--no-cache", str(self.directory)],
            cgroup=cgroup,
            env=env,
            timeout=60,
        )


@pytest.fixture(scope="module")
def buildah(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    directory = tmp_path_factory.mktemp("buildah")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    yield Buildah(lab, directory)
    shutil.rmtree(directory)


def wait_denied_host(daemon: Daemon, start: int, host: str) -> None:
    wait_line(
        daemon, start, lambda line: line["event"] == "denied" and line.get("host") == host, f"{host} denied"
    )


def test_in_a_control_group(lab: Lab, scope: Path, buildah: Buildah) -> None:
    """Each stage is held to the policy."""
    with governed(lab, POLICY, scopes=[scope]) as daemon:
        buildah.build(scope, f"FROM {IMAGE}", "COPY Containerfile /").check()
        start = len(daemon.lines())
        second = buildah.build(
            scope,
            "FROM blocked.registry.test/lab/hello:1 AS other",
            f"FROM {IMAGE}",
            "COPY --from=other /hello /hello",
        )
        assert not second.ok
        assert "operation not permitted" in second.stderr
        wait_denied_host(daemon, start, "blocked.registry.test")


def test_on_a_host(lab: Lab, buildah: Buildah) -> None:
    """It has no daemon and no control group of its own."""
    root = lab.new_cgroup("host-of-buildah")
    inside = root / "somewhere"
    inside.mkdir()
    lab.blocked.node.add_addresses(KNOWN, KNOWN_V6)
    lab.dns.update({"quay.io": Addresses((KNOWN, KNOWN_V6), 60)})
    with governed(lab, POLICY, "--cgroup-root", str(root), scopes=["host"]) as daemon:
        buildah.build(inside, f"FROM {IMAGE}").check()
        start = len(daemon.lines())
        refused = buildah.build(inside, "FROM quay.io/lab/hello:1")
        assert not refused.ok
        assert "operation not permitted" in refused.stderr
        wait_denied_host(daemon, start, "quay.io")
