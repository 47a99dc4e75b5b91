"""Scopes that ram-ebpf finds by itself: the engine by its process, and a container by Docker's word."""

from __future__ import annotations

from tests.lab.docker_daemon import governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from .dockerd import Dockerd
from .judge import Judge
from .names import POLICY, Names, reference

AT_ONCE = 1.0  # seconds; docker takes the container and its network down after it


def test_engine(lab: Lab, names: Names, docker: Dockerd, judge: Judge) -> None:
    def pull(host: str) -> Finished:
        return docker.run("pull", reference(host))

    with governed(lab, docker, POLICY, "engine:docker") as daemon:
        judge.allows(daemon, "pull, engine:docker", pull)
        line = judge.refuses(daemon, "pull, engine:docker", pull)
        assert line["cgroup"].endswith(f"/{docker.cgroup.relative_to(docker.machine.top.parent)}")


def test_container(lab: Lab, names: Names, docker: Dockerd, judge: Judge) -> None:
    """One that is started when ram-ebpf runs already."""
    image = reference(names.allowed())
    docker.run("pull", image).check()

    # Its device is held until Docker has said what it is. A query that is lost in that time is repeated after
    # five seconds only, so it waits first.
    def connect(host: str) -> Finished:
        return docker.run(
            *("run", "--rm", "--label=team=builds", image),
            *("sh", "-c", f"busybox sleep 1; busybox nc -w 5 {host} 443 </dev/null"),
        )

    with governed(lab, docker, POLICY, "container:label=team=builds") as daemon:
        judge.allows(daemon, "run, container:label", connect)
        line = judge.refuses(daemon, "run, container:label", connect, at_once=AT_ONCE)
        assert line["scope"] == "container label=team=builds"
