"""Docker Engine's authorization plugin: whether the policy, Docker's settings and who serves it agree."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.authorization.server import DIRECTORY, NAME, is_served
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.engine_settings import DOCKER_FILE, DockerSettings, SettingsError, docker_processes
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well

_RELOAD = "then systemctl reload docker"


def examine(case: Case) -> Iterator[Finding]:
    """Of each Docker Engine that runs, or else of the settings with which one would. For root."""
    assert case.policy is not None
    wanted = case.policy.docker.authorization
    served = is_served(DIRECTORY / f"{NAME}.sock")
    dockers = docker_processes(case.engines)
    if dockers == [None] and not DOCKER_FILE.exists():
        yield well(Check.DOCKER_PLUGIN, "no Docker Engine is here to be asked")
        return
    for process in dockers:
        subject = f"docker (pid {process.pid})" if process is not None else "docker"
        try:
            settings = DockerSettings.of(process)
        except SettingsError as error:
            yield failure(
                Check.DOCKER_PLUGIN,
                f"Docker's settings cannot be read: {error}",
                "mend the file: Docker does not start with it, or does not read it anew",
                subject,
            )
        else:
            yield of_docker(subject, settings.file, wanted, NAME in settings.plugins, served)


def of_docker(subject: str, file: Path, wanted: bool, asked: bool, served: bool) -> Finding:
    """`wanted` by the policy, `asked` by Docker, and `served` by somebody."""
    if wanted and not asked:
        # A Docker that is told to ask somebody who is not there ends, at a reload as well.
        first = "" if served else "start ram-ebpf with this policy; then "
        return warning(
            Check.DOCKER_PLUGIN,
            f"{subject} does not ask the plugin that the policy wants (docker: authorization)",
            f'{first}write "authorization-plugins": ["{NAME}"] into {file}, {_RELOAD}; see docs/docker.md',
            subject,
        )
    if asked and not served:
        what = f"{subject} asks the plugin {NAME}, which nobody serves: it refuses every request"
        if wanted:
            return failure(
                Check.DOCKER_PLUGIN,
                what,
                "start ram-ebpf with this policy, before Docker (Before=docker.service in its unit)",
                subject,
            )
        return failure(
            Check.DOCKER_PLUGIN,
            f"{what}; the policy does not want it either",
            f"write docker: {{ authorization: true }} in the policy, or take {NAME} out of {file}, {_RELOAD}",
            subject,
        )
    if asked and not wanted:
        return warning(
            Check.DOCKER_PLUGIN,
            f"{subject} asks the plugin {NAME}, which this policy does not want: "
            "once it holds, every request is refused",
            f"write docker: {{ authorization: true }} in the policy, or take {NAME} out of {file}, {_RELOAD}",
            subject,
        )
    if asked:
        return well(Check.DOCKER_PLUGIN, f"{subject} asks the plugin {NAME}, and somebody serves it", subject)
    return well(
        Check.DOCKER_PLUGIN, f"{subject} asks no plugin {NAME}, and the policy does not want it", subject
    )
