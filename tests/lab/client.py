"""The lab's client: a namespace and a control group in which images are pulled."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import topology
from .namespaces import Namespace
from .node import Node
from .processes import Finished


class Client(Node):
    """A node whose commands (`run`, `pull`) run in the client's control group; `popen`'s do not.

    So a daemon started by `popen` watches the client from outside; a program that is to be watched and
    to run in the background is started with `popen(…, cgroup=client.cgroup)`.
    """

    def __init__(
        self,
        role: topology.Role,
        namespace: Namespace,
        services: Path,
        directory: Path,
        ca: Path,
        cgroup: Path,
    ) -> None:
        super().__init__(role, namespace, services, directory, ca)
        self.cgroup = cgroup
        # Told that it has no root, skopeo caches below HOME, not in the machine's /var/lib.
        self.env["_CONTAINERS_ROOTLESS_UID"] = "65534"

    def run(
        self,
        argv: Sequence[str],
        *,
        cgroup: Path | None = None,
        hosts: Mapping[str, str] | None = None,
        resolver: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdin: str | None = None,
        timeout: float = 30.0,
    ) -> Finished:
        """Run a program as the client: in its control group unless another one is named."""
        return super().run(
            argv,
            cgroup=cgroup or self.cgroup,
            hosts=hosts,
            resolver=resolver,
            env=env,
            cwd=cwd,
            stdin=stdin,
            timeout=timeout,
        )

    def pull(
        self,
        reference: str,
        *,
        cgroup: Path | None = None,
        hosts: Mapping[str, str] | None = None,
        resolver: str | None = None,
        timeout: float = 30.0,
    ) -> Finished:
        """Pull an image, such as allowed.registry.test/lab/hello:1, with skopeo and drop what it got."""
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="pull-") as target:
            # Not --tls-verify=false: a client that trusts nobody but the lab's own CA is part of the test.
            argv = [
                "skopeo",
                "--insecure-policy",
                "copy",
                "--quiet",
                f"docker://{reference}",
                f"dir:{target}",
            ]
            return self.run(argv, cgroup=cgroup, hosts=hosts, resolver=resolver, timeout=timeout)
