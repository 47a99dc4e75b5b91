"""The policy's exact names: whether they have addresses, and whether the hosts file says something else."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dns.lookup import LookupFailedError
from ram_ebpf.dns.response import Answer
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, warning, well
from ram_ebpf.policy.special import is_special
from ram_ebpf.policy.words import plural

HOSTS = Path("/etc/hosts")
_SHOWN = 4


def examine(case: Case) -> Iterator[Finding]:
    """Looks them up as the daemon does. Needs no rights."""
    yield from of_answers(case, case.addresses)


def of_answers(case: Case, answers: Mapping[str, Answer | LookupFailedError]) -> Iterator[Finding]:
    """One for all that is well, and one for each thing that may be wrong."""
    if not case.exact_names:
        yield well(Check.NAME, "the policy has no exact names to look up")
        return
    if not answers:
        yield warning(
            Check.NAME,
            "the policy's names were not looked up, as no resolver answers",
            "see what the check resolver says",
        )
        return
    unknown = {name: _problem(answer) for name, answer in answers.items() if _problem(answer)}
    private = {
        name: wrong
        for name, answer in answers.items()
        if isinstance(answer, Answer) and (wrong := unexpected(case, name, answer))
    }
    if unknown:
        yield warning(
            Check.NAME,
            f"{plural(len(unknown), 'name')} of the policy cannot be looked up: {_some(unknown)}",
            "see whether they are written as clients connect to them, and known to these resolvers",
            "unknown",
        )
    if private:
        yield warning(
            Check.NAME,
            f"{plural(len(private), 'name')} of the policy have private addresses, which are not opened: "
            + _some({name: ", ".join(map(str, found)) for name, found in private.items()}),
            "if they should have these, write private: [ADDRESS or NETWORK] at their host in the policy",
            "private",
        )
    fine = len(answers) - len(unknown.keys() | private.keys())
    if fine:
        yield well(
            Check.NAME,
            f"{fine} of {plural(len(case.exact_names), 'exact name')} of the policy: found, and "
            "what is found is opened",
        )


def _problem(answer: Answer | LookupFailedError) -> str:
    if isinstance(answer, LookupFailedError):
        return str(answer)
    return "" if answer.addresses else "no address"


def _some(problems: Mapping[str, str]) -> str:
    shown = [f"{name} ({problem})" for name, problem in list(problems.items())[:_SHOWN]]
    more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{', '.join(shown)}{more}"


def unexpected(case: Case, name: str, answer: Answer) -> list[IPAddress]:
    """The private addresses among those of a name that some scope does not open."""
    return [address for address, _ in answer.addresses if not _is_opened(case, name, address)]


def _is_opened(case: Case, name: str, address: IPAddress) -> bool:
    """Whether all scopes that allow the name would open an address that a resolver gives for it."""
    if not is_special(address):
        return True
    return all(
        rule.private
        or any(address.version == network.version and address in network for network in rule.private_networks)
        or all(case.allows_address(address, port) for port in rule.ports)
        for rule in case.rules_for(name)
        if not rule.deny
    )


@dataclass(frozen=True)
class HostsEntry:
    """One name in a hosts file."""

    line: int
    name: str
    address: IPAddress


def hosts_entries(text: str) -> list[HostsEntry]:
    """Of hosts(5); lines that are none are passed over, as the C library does."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        try:
            address = ipaddress.ip_address(words[0].partition("%")[0]) if words else None
        except ValueError:
            continue
        if address is not None:
            found += [HostsEntry(number, name, address) for name in words[1:]]
    return found


def examine_hosts(case: Case) -> Iterator[Finding]:
    """Whether it sends clients elsewhere than DNS does. Needs no rights."""
    try:
        text = HOSTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    yield from of_hosts(case, hosts_entries(text), case.addresses)


def of_hosts(
    case: Case, entries: list[HostsEntry], answers: Mapping[str, Answer | LookupFailedError]
) -> Iterator[Finding]:
    """A warning for each name that the policy allows at an address that it does not open."""
    wrong = [entry for entry in entries if _leads_elsewhere(case, entry, answers)]
    for entry in wrong:
        yield warning(
            Check.HOSTS_FILE,
            f"{HOSTS}:{entry.line}: {entry.name} is {entry.address} for clients, which ask no resolver then: "
            "that address is not opened, and they are refused",
            f"take the line out, have the resolvers say so, or write address: {entry.address} in the policy",
            entry.name,
        )
    if not wrong:
        yield well(Check.HOSTS_FILE, f"{HOSTS} sends clients of no name of the policy elsewhere")


def _leads_elsewhere(
    case: Case, entry: HostsEntry, answers: Mapping[str, Answer | LookupFailedError]
) -> bool:
    ports = [port for rule in case.rules_for(entry.name) if not rule.deny for port in rule.ports]
    if not ports or all(case.allows_address(entry.address, port) for port in ports):
        return False
    answer = answers.get(entry.name.lower().removesuffix("."))
    known = {address for address, _ in answer.addresses} if isinstance(answer, Answer) else set()
    return entry.address not in known
