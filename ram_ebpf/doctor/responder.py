"""The refusal responder's authority, by which it can answer HTTPS with the reason of a refusal."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, warning, well
from ram_ebpf.policy.refusals import Switch
from ram_ebpf.responder import authority, certificates
from ram_ebpf.responder.trust_store import TrustStore

_SOON = datetime.timedelta(days=30)


def examine(case: Case) -> Iterator[Finding]:
    """Where the policy wants a responder. For root, who alone may read the key."""
    assert case.policy is not None
    with contextlib.suppress(OSError):  # which instances.py tells of
        yield from of_running(case.instances)
    if case.policy.refusals.responder is Switch.OFF:
        yield well(Check.RESPONDER, "the policy wants no refusal responder")
        return
    try:
        found = authority.load()
    except authority.AuthorityError as error:
        yield warning(
            Check.RESPONDER,
            f"{error}: clients of HTTPS get a certificate whose name is the message, and nothing more",
            "mend that, or make a new one: ram-ebpf ca uninstall, remove its directory, ram-ebpf ca init",
        )
        return
    now = datetime.datetime.now(datetime.timezone.utc)
    end = certificates.end_of(found.certificate) if found is not None else None
    yield of_authority(end, now, TrustStore().installed())


def of_running(answers: Iterable[dict[str, Any]]) -> Iterator[Finding]:
    """`answers` to `status`: those of instances whose responder does not run."""
    for answer in answers:
        state = answer.get("responder") or {}
        if state.get("state") == "failed":
            yield warning(
                Check.RESPONDER,
                f"the responder of pid {answer['instance']} does not run, so refusals say nothing: "
                f"{state.get('why')}",
                "see docs/refusals.md; it is tried again, unless what it needs is not installed",
                str(answer["instance"]),
            )


def of_authority(end: datetime.datetime | None, now: datetime.datetime, installed: list[Path]) -> Finding:
    """`end`: of the authority's certificate, if there is any; `installed`: where clients find it."""
    if end is None:
        return well(
            Check.RESPONDER,
            "there is no authority: clients of HTTPS are told by a certificate whose name is the message",
        )
    if end - now < _SOON:
        return warning(
            Check.RESPONDER,
            f"the authority is valid until {end:%Y-%m-%d} only",
            "make a new one: ram-ebpf ca uninstall, remove its directory, ram-ebpf ca init, and install",
        )
    if not installed:
        return warning(
            Check.RESPONDER,
            "the authority is not installed: clients do not trust it, and print an error of certificates",
            "ram-ebpf ca install",
        )
    return well(Check.RESPONDER, f"the authority is valid until {end:%Y-%m-%d}, and this host trusts it")
