"""Docker's own commands, where dockerd asks ram-ebpf first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.field import eventually, wait_line

from .docker import Docker
from .docker_authorization import (
    ALLOWED,
    BLOCKED,
    POLICY,
    PULL_ONLY,
    SETTINGS,
    authorized,
    refusal,
)
from .docker_daemon import HostDaemon, governed
from .lab import Lab
from .processes import Finished

pytestmark = pytest.mark.root

IMAGE = "lab/hello:1"
PULL_ONLY_RULE = f"{PULL_ONLY} (policy.yaml:7), for pull alone"


@pytest.fixture(scope="module")
def both(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Docker, HostDaemon]]:
    with authorized(lab, tmp_path_factory.mktemp("asking")) as result:
        yield result


@pytest.fixture(scope="module")
def docker(both: tuple[Docker, HostDaemon]) -> Docker:
    return both[0]


@pytest.fixture(scope="module")
def daemon(both: tuple[Docker, HostDaemon]) -> HostDaemon:
    return both[1]


def assert_told(finished: Finished, message: str) -> None:
    """The whole of it, behind what Docker says before every answer of its daemon."""
    assert finished.returncode != 0
    told = [line for line in finished.stderr.splitlines() if message in line]
    assert told, finished.stderr
    assert told[0].removeprefix("docker: ") == f"Error response from daemon: {message}"


def test_where_it_is(docker: Docker, daemon: HostDaemon) -> None:
    (ready,) = [line for line in daemon.lines() if line["event"] == "ready"]
    assert ready["docker_plugin"] == str(docker.plugins / "ram-ebpf.sock")


def test_allowed(docker: Docker, daemon: HostDaemon) -> None:
    start = len(daemon.lines())
    docker.command("pull", f"{ALLOWED}/{IMAGE}").check()
    docker.command("pull", f"{PULL_ONLY}/{IMAGE}").check()
    docker.command("create", f"{ALLOWED}/{IMAGE}").check()
    docker.command("tag", f"{ALLOWED}/{IMAGE}", f"{ALLOWED}/lab/pushed:1").check()
    docker.command("push", f"{ALLOWED}/lab/pushed:1").check()
    docker.command("login", "--username=a", "--password-stdin", ALLOWED, stdin="b").check()
    assert not [line for line in daemon.lines()[start:] if line["event"] == "denied"]


@pytest.mark.parametrize(
    "words",
    [
        ("pull", f"{BLOCKED}/{IMAGE}"),
        ("pull", "--all-tags", f"{BLOCKED}/lab/hello"),
        ("push", f"{BLOCKED}/{IMAGE}"),
        ("run", f"{BLOCKED}/{IMAGE}"),  # which is there already
        ("create", "--pull=always", f"{BLOCKED}/{IMAGE}"),
        ("import", f"https://{BLOCKED}/x.tar"),
        ("search", f"{BLOCKED}/x"),
        ("plugin", "install", "--grant-all-permissions", f"{BLOCKED}/lab/plugin"),
        ("service", "create", f"{BLOCKED}/{IMAGE}"),
        ("build", f"--cache-from={BLOCKED}/{IMAGE}", "-"),
    ],
    ids=" ".join,
)
def test_refused(docker: Docker, daemon: HostDaemon, words: tuple[str, ...]) -> None:
    start = len(daemon.lines())
    assert_told(docker.command(*words, stdin="FROM scratch\nLABEL a=b\n"), refusal(BLOCKED))
    line = wait_line(daemon, start, lambda line: "method" in line, "the refusal")
    assert (line["reason"], line["registry"]) == ("denied-image", BLOCKED)
    assert line["method"]
    assert line["path"].startswith("/v1.41/")


def test_login(docker: Docker, daemon: HostDaemon) -> None:
    """This version shows a plugin where somebody logs in; where one does not, the kernel is left to judge."""
    told = docker.command("login", "--username=a", "--password-stdin", BLOCKED, stdin="secret")
    assert_told(told, refusal(BLOCKED))
    assert "secret" not in str(daemon.lines())


def test_push_where_only_pull_is_allowed(lab: Lab, docker: Docker, daemon: HostDaemon) -> None:
    docker.command("tag", f"{ALLOWED}/{IMAGE}", f"{PULL_ONLY}/{IMAGE}").check()
    start, connections = len(daemon.lines()), lab.allowed.counters()["Tcp.PassiveOpens"]
    assert_told(
        docker.command("push", f"{PULL_ONLY}/{IMAGE}"), refusal(PULL_ONLY, PULL_ONLY_RULE, "Pushing to")
    )
    line = wait_line(daemon, start, lambda line: "method" in line, "the refusal")
    assert (line["reason"], line["action"], line["image"]) == (
        "denied-action",
        "push",
        f"{PULL_ONLY}/lab/hello",
    )
    assert lab.allowed.counters()["Tcp.PassiveOpens"] == connections


def test_image_by_its_identifier(docker: Docker) -> None:
    """Nothing is pulled for it, and it names no registry."""
    (identifier,) = docker.command("images", "--quiet", f"{BLOCKED}/{IMAGE}").check().stdout.split()
    docker.command("create", identifier).check()


def test_mirror(docker: Docker) -> None:
    """It would have the image, and may be connected to; but the image is Docker Hub's."""
    mirror = {"registry-mirrors": [f"https://{ALLOWED}"]}
    try:
        docker.reload(mirror)
        docker.command("pull", IMAGE).check()
        docker.reload({**SETTINGS, **mirror})
        assert_told(docker.command("pull", IMAGE), refusal("docker.io"))
        assert_told(docker.command("run", IMAGE), refusal("docker.io"))
    finally:
        docker.reload(SETTINGS)


@pytest.mark.parametrize("buildkit", [False, True], ids=["classic", "BuildKit"])
def test_build(docker: Docker, buildkit: bool) -> None:
    """What a Dockerfile names is not shown to a plugin, and the kernel refuses it."""
    built = docker.command("build", "--pull", "-", stdin=f"FROM {BLOCKED}/{IMAGE}\n", buildkit=buildkit)
    assert built.returncode != 0
    assert "connect: operation not permitted" in built.stderr
    docker.command("build", "--pull", "-", stdin=f"FROM {ALLOWED}/{IMAGE}\n", buildkit=buildkit).check()


def test_away(lab: Lab, tmp_path: Path) -> None:
    """Nothing is done that was not judged: dockerd tries again for 15 seconds, and then refuses."""
    with Docker(lab, tmp_path / "away", "away") as docker:
        with HostDaemon(lab, docker, POLICY, [docker.cgroup]):
            docker.reload(SETTINGS)
        # Killed. Its socket is there, and nobody listens.
        assert (docker.plugins / "ram-ebpf.sock").is_socket()
        answers: dict[str, int] = {}

        def pull(registry: str) -> None:
            query = f"/images/create?fromImage={registry}/lab/hello&tag=1"
            head = f"POST {query} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n"
            answers[registry] = docker.raw(head.encode())[0]

        threads = [threading.Thread(target=pull, args=(registry,)) for registry in (ALLOWED, BLOCKED)]
        for thread in threads:
            thread.start()
        assert eventually(lambda: docker.log().count("Unable to connect to plugin") >= 2)
        time.sleep(0.3)
        assert answers == {}
        with governed(lab, docker, POLICY, docker.cgroup):
            for thread in threads:
                thread.join()
            # On a slow machine it has not come back in time for these.
            assert answers[ALLOWED] in (200, 500)
            assert answers[BLOCKED] in (403, 500)
            for registry in (ALLOWED, BLOCKED):
                pull(registry)
            docker.reload({})
        assert answers == {ALLOWED: 200, BLOCKED: 403}
