"""The policy file: whether it is right, who may change it, and what it allows that it should not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.dns.encrypted import load_encrypted_resolvers
from ram_ebpf.dns.encrypted_names import EncryptedNames
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.permissions import writable_by_others
from ram_ebpf.policy.model import Mode
from ram_ebpf.policy.words import plural

_SHOWN = 5


def examine(case: Case) -> Iterator[Finding]:
    """As `ram-ebpf check` does it, and the file itself. Needs no rights."""
    if case.policy is None:
        first, more = case.errors[0], len(case.errors) - 1
        place = f"{first.file}:{first.line}" if first.line else first.file
        where = f"{first.where}: " if first.where else ""
        rest = f", and {plural(more, 'more error')}" if more else ""
        yield failure(
            Check.POLICY,
            f"{place}: {where}{first.problem}{rest}; what depends on the policy is not checked",
            f"{first.cure}; ram-ebpf check {case.file or ''} shows all".rstrip(),
        )
        return
    name = case.file or "the built-in policy (no file is there)"
    count = plural(sum(len(rules.names) + len(rules.addresses) for rules in case.rules.values()), "rule")
    scopes = plural(len(case.policy.scopes), "scope")
    if case.policy.mode is Mode.AUDIT:
        yield warning(
            Check.POLICY,
            f"{name}: {count}, {scopes}; it only reports what it would refuse (mode: audit)",
            "once the log says nothing that should pass, write mode: enforce",
        )
    else:
        yield well(Check.POLICY, f"{name}: {count}, {scopes}")


def examine_file(case: Case) -> Iterator[Finding]:
    """Who may write to it. Needs no rights but to get there."""
    if case.file is not None and (path := Path(case.file)).exists():
        yield of_file(path)


def of_file(path: Path) -> Finding:
    """Whoever may write to it, or put another one in its place, decides what is allowed."""
    other = writable_by_others(path)
    if other is None:
        return well(Check.POLICY_FILE, f"nobody but root may change {path}")
    return warning(
        Check.POLICY_FILE,
        f"others than root may change {other}, and so decide what is allowed",
        f"chown root {other} && chmod go-w {other}; or keep the policy in /etc/ram-ebpf",
    )


def examine_encrypted(case: Case) -> Iterator[Finding]:
    """Whether it allows well-known encrypted resolvers. Needs no rights."""
    yield of_encrypted(case, load_encrypted_resolvers().known)


def of_encrypted(case: Case, known: EncryptedNames) -> Finding:
    """What resolves names where nobody sees the answers."""
    names = [name for name in known.names if any(not rule.deny for rule in case.rules_for(name))]
    addresses = [address for address in known.addresses if case.allows_address(address, 443)]
    allowed = [*sorted(names), *sorted(map(str, addresses))]
    if not allowed:
        return well(Check.ENCRYPTED_RESOLVERS, "the policy allows no well-known encrypted resolver")
    shown = ", ".join(allowed[:_SHOWN]) + (f" and {len(allowed) - _SHOWN} more" if allowed[_SHOWN:] else "")
    return warning(
        Check.ENCRYPTED_RESOLVERS,
        f"the policy allows encrypted resolvers, whose answers nobody here reads: {shown}",
        "narrow the pattern or network that covers them, or list the names under denied:",
    )
