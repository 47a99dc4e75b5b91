"""The instances of ram-ebpf that run on this host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ram_ebpf import __version__
from ram_ebpf.daemon import kept_files
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.policy.words import plural


def examine(case: Case) -> Iterator[Finding]:
    """Each that answers. For root."""
    try:
        answers = case.instances
    except TimeoutError:
        yield failure(
            Check.INSTANCE,
            "an instance of ram-ebpf does not answer: what it has attached goes on deciding",
            "see what its log says last, and restart it: systemctl restart ram-ebpf",
        )
        return
    digest = case.policy.source.digest if case.policy is not None else ""
    yield from of_instances(answers, case.file, digest)


def of_instances(answers: Sequence[dict[str, Any]], file: str | None, digest: str = "") -> Iterator[Finding]:
    """`answers` to `status`; `file`: the policy that is looked at here, None for the built-in one.

    `digest`: of that file, empty where it is wrong.
    """
    if not answers and file is not None:
        yield warning(
            Check.INSTANCE,
            "no instance of ram-ebpf runs, so nobody follows what comes and goes",
            f"start it: ram-ebpf run --policy {file}",
        )
    elif not answers:
        yield well(Check.INSTANCE, "no instance of ram-ebpf runs yet")
    for answer in answers:
        yield _of_instance(answer, file, digest)


def _of_instance(answer: dict[str, Any], file: str | None, digest: str) -> Finding:
    pid = str(answer["instance"])
    if "error" in answer:
        return warning(
            Check.INSTANCE,
            f"pid {pid} answers: {answer['error']}",
            "ask again; else see what its log says",
            pid,
        )
    who = f"ram-ebpf {answer['version']} (pid {pid}) enforces {answer['policy']} ({answer['mode']})"
    if answer["version"] != __version__:
        return warning(
            Check.INSTANCE,
            f"{who}, and {__version__} is what is installed",
            "restart it, which leaves no gap: systemctl restart ram-ebpf",
            pid,
        )
    if Path(answer["policy"]).parent == kept_files.DIRECTORY:
        return warning(
            Check.INSTANCE,
            f"{who}, the last good one, as the policy was wrong when it started",
            "correct the policy (ram-ebpf check FILE), then ram-ebpf reload",
            pid,
        )
    if file is not None and not _is_same(answer["policy"], file):
        return warning(
            Check.INSTANCE,
            f"{who}, and not {file}, which was looked at here",
            f"look at that one: ram-ebpf doctor --policy {answer['policy']}",
            pid,
        )
    # An older version says no digest.
    if file is not None and digest and (answer.get("digest") or digest) != digest:
        return warning(
            Check.INSTANCE,
            f"{who} as it was before its last change",
            "ram-ebpf reload, which leaves no gap; the log says it if that is refused",
            pid,
        )
    places = sum(len(scope["cgroups"]) + len(scope["devices"]) for scope in answer["scopes"])
    if not places:
        return warning(
            Check.INSTANCE,
            f"{who} and governs nothing, as none of its scopes is there",
            "see what the check scope says",
            pid,
        )
    return well(Check.INSTANCE, f"{who} at {plural(places, 'place')}", pid)


def _is_same(one: str, other: str) -> bool:
    """A relative name of another process's may be of another directory."""
    return (
        Path(one).name == Path(other).name
        if not Path(one).is_absolute()
        else Path(one) == Path(other).absolute()
    )
