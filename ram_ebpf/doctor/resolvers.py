"""The resolvers whose answers are believed: whether they answer, who serves those on this host, and how
programs get at them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ram_ebpf.authorization.server import is_served
from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.local import LocalResolver, find_local
from ram_ebpf.dns.reach import Reached
from ram_ebpf.dns.resolvers import (
    RESOLV_CONF,
    is_resolved_stub,
    parse_nameservers,
    parse_words,
    read_resolv_conf,
)
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.policy.model import Policy

_SLOW = 1.0  # seconds
NSSWITCH = Path("/etc/nsswitch.conf")
NSCD_CONF = Path("/etc/nscd.conf")
NSCD_SOCKETS = (Path("/run/nscd/socket"), Path("/var/run/nscd/socket"))


def examine(case: Case) -> Iterator[Finding]:
    """Asks each. Needs no rights."""
    yield from of_reached(case.reached)


def of_reached(reached: Sequence[Reached]) -> Iterator[Finding]:
    """One for each resolver. That one of several does not answer only costs time."""
    answering = [item for item in reached if not item.udp.problem]
    for item in reached:
        yield _of_resolver(item, bool(answering))


def _of_resolver(item: Reached, others_answer: bool) -> Finding:
    name = describe(item.resolver)
    subject = endpoint(item.resolver)
    if item.udp.problem:
        title = f"{name} does not answer over UDP: {item.udp.problem}"
        cure = "see whether it is up and whether a firewall lets port 53 pass, or name another in the policy"
        if isinstance(item.resolver.address, ipaddress.IPv6Address) and item.resolver.address.is_link_local:
            cure = "link-local resolvers are asked without their interface: name another one in the policy"
        if others_answer:
            return warning(Check.RESOLVER, f"{title}; others do", cure, subject)
        return failure(Check.RESOLVER, f"{title}; nor do others: no name can be learned", cure, subject)
    if item.tcp.problem:
        return warning(
            Check.RESOLVER,
            f"{name} does not answer over TCP ({item.tcp.problem}): names with long answers are not resolved",
            "let TCP to port 53 pass on the way there",
            subject,
        )
    milliseconds = item.udp.seconds * 1000
    if item.udp.seconds > _SLOW:
        return warning(
            Check.RESOLVER,
            f"{name} takes {milliseconds:.0f} ms to answer, for which every pull waits",
            "name a resolver that is nearer in the policy, or first in /etc/resolv.conf",
            subject,
        )
    return well(Check.RESOLVER, f"{name} answers in {milliseconds:.0f} ms, over TCP as well", subject)


def endpoint(resolver: TrustedResolver) -> str:
    """Its address, with the port where that is not 53."""
    return str(resolver.address) if resolver.port == 53 else f"{resolver.address}#{resolver.port}"


def describe(resolver: TrustedResolver) -> str:
    """The same with what is special about it."""
    if is_resolved_stub(resolver.address):
        return f"{endpoint(resolver)} (systemd-resolved's stub)"
    return f"{endpoint(resolver)} (on this host)" if resolver.local else endpoint(resolver)


def examine_local(case: Case) -> Iterator[Finding]:
    """Who serves those on this host. For root, who sees the sockets of others."""
    assert case.policy is not None
    yield from of_local(find_local(case.resolvers))


def of_local(found: Iterable[LocalResolver]) -> Iterator[Finding]:
    """Those that nobody serves who could be believed cost a question each."""
    for item in found:
        subject = str(item.address) if item.port == 53 else f"{item.address}#{item.port}"
        if item.cgroups:
            who = item.process or "several processes"
            yield well(
                Check.LOCAL_RESOLVER, f"{subject} is served by {who}, whose replies are recognised", subject
            )
        else:
            yield warning(
                Check.LOCAL_RESOLVER,
                f"{subject} is on this host, but no process of root or a system user that can be seen from "
                "here serves it: what it replies is asked again, one by one",
                "start it as a system user, run ram-ebpf where it sees that process, or name the resolvers "
                "behind it in the policy",
                subject,
            )


def examine_resolv_conf(case: Case) -> Iterator[Finding]:
    """What is in it that programs mind. Needs no rights."""
    assert case.policy is not None
    yield from of_resolv_conf(read_resolv_conf(), case.policy)


def of_resolv_conf(text: str, policy: Policy) -> Iterator[Finding]:
    """`text`: of resolv.conf(5)."""
    found = list(_of_resolv_conf(text, policy))
    yield from found or [well(Check.RESOLV_CONF, f"nothing in {RESOLV_CONF} is in the way")]


def _of_resolv_conf(text: str, policy: Policy) -> Iterator[Finding]:
    search = parse_words(text, "search")
    if search and policy.dns.allowed_names_only:
        yield warning(
            Check.RESOLV_CONF,
            f"{RESOLV_CONF} has search domains ({' '.join(search)}), and the policy refuses queries for "
            "names that it does not list: what clients ask for with such a domain added is refused",
            f"take `search` out of {RESOLV_CONF}, or write dns: {{ allowed_names_only: false }}",
            "search",
        )
    if "use-vc" in parse_words(text, "options"):
        yield warning(
            Check.RESOLV_CONF,
            f"{RESOLV_CONF} has programs ask over TCP (use-vc): each name takes 0.2 seconds longer",
            f"take use-vc out of the options in {RESOLV_CONF}",
            "use-vc",
        )
    if policy.resolvers != "auto" and (others := _not_listed(text, policy)):
        yield warning(
            Check.RESOLV_CONF,
            f"{RESOLV_CONF} names resolvers that the policy does not trust ({', '.join(map(str, others))}): "
            "strict scopes are refused there",
            "list them under resolvers: in the policy, or write resolvers: auto",
            "nameserver",
        )


def _not_listed(text: str, policy: Policy) -> list[IPAddress]:
    assert not isinstance(policy.resolvers, str)
    trusted = {resolver.address for resolver in policy.resolvers if resolver.port == 53}
    return [address for address in parse_nameservers(text) if address not in trusted]


def examine_name_service(case: Case) -> Iterator[Finding]:
    """Ways to an address that no DNS packet shows. Needs no rights."""
    wildcards = any(
        rule.pattern.kind.value != "exact" and not rule.deny
        for rules in case.rules.values()
        for rule in rules.names
    )
    hosts = nss_modules(_text(NSSWITCH))
    cached = next((str(path) for path in NSCD_SOCKETS if _answers(path)), None)
    yield of_name_service(hosts, cached if nscd_keeps_hosts(_text(NSCD_CONF)) else None, wildcards)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _answers(path: Path) -> bool:
    try:
        return is_served(path)
    except OSError:
        return True


def nss_modules(text: str) -> list[str]:
    """What is asked for hosts, in its order (nsswitch.conf(5)); what is done between is left out."""
    for line in text.splitlines():
        database, colon, rest = line.partition("#")[0].partition(":")
        if colon and database.strip() == "hosts":
            return re.sub(r"\[[^\]]*\]", " ", rest).split()
    return []


def nscd_keeps_hosts(text: str) -> bool:
    """Whether nscd.conf(5) has it keep hosts, as it does when nothing is said."""
    kept = "yes"
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:2] == ["enable-cache", "hosts"] and len(words) == 3:
            kept = words[2]
    return kept == "yes"


def of_name_service(modules: Sequence[str], nscd: str | None, wildcards: bool) -> Finding:
    """`modules` of the C library for hosts; `nscd`: the socket of one that keeps hosts; `wildcards`: whether
    the policy has any, whose names nobody can look up beforehand."""
    unseen = []
    if nscd is not None:
        unseen.append((f"nscd keeps hosts (at {nscd})", "write `enable-cache hosts no` in /etc/nscd.conf"))
    before_dns = modules[: modules.index("dns")] if "dns" in modules else modules
    if "resolve" in before_dns:
        unseen.append(("nss-resolve is asked before DNS", f"put `dns` before `resolve` in {NSSWITCH}"))
    if not unseen:
        return well(Check.NAME_SERVICE, "programs look hosts up by DNS, which can be read")
    what = " and ".join(text for text, _ in unseen)
    if not wildcards:
        return well(
            Check.NAME_SERVICE, f"{what}; the policy has exact names only, which ram-ebpf looks up by itself"
        )
    return warning(
        Check.NAME_SERVICE,
        f"{what}: no DNS packet shows what they answer, so names that only a wildcard allows are refused",
        "; ".join(cure for _, cure in unseen),
    )
