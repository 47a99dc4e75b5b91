"""What a policy lacks for what was refused to be allowed. Pure.

Names come from whoever looked them up. Here they become either entries of a policy, whose hosts are exact
host names, or text that is shown.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from ram_ebpf.policy.catalogue import CATALOGUE_PORTS, Catalogue, CatalogueHost, CatalogueRegistry, Role
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.fields import MAX_PORTS, MAX_PRIVATE_NETWORKS, IPAddress
from ram_ebpf.policy.model import AddressEntry, CatalogueEntry, HostEntry, Policy, RegistryEntry
from ram_ebpf.policy.names import HostPattern, PatternError, PatternKind
from ram_ebpf.policy.rules import MAX_PORT_LISTS, NameRule, RuleSet, compile_rules
from ram_ebpf.policy.scope_rules import rules_of_scopes
from ram_ebpf.policy.source import PolicySource
from ram_ebpf.policy.special import is_special
from ram_ebpf.policy.words import plural, show
from ram_ebpf.suggestions.refused import Refused

_HTTPS = 443
_OTHERWISE = {
    "denied-private-address": "an allowed name has a private address: `private:` beside it, if that is meant",
    "denied-not-named": "a connection says no name: `sni: optional` beside the host, if that is meant",
    "denied-resolver": "another resolver was asked: `resolvers:`, if that is meant",
    "denied-action": "`actions:` beside the host, if that is meant",
}
_OF_ORGANISATIONS = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_QUERY = "denied-query-name"
_OF_REGISTRIES = frozenset(
    {
        "denied-unknown-address",
        "denied-registry",
        "denied-registry-port",
        "denied-unasked",
        "denied-port",
        "denied-image",
        "name-mismatch",
        _QUERY,
    }
)
"""Reasons that another line of the policy would be an answer to."""


class Kind(str, Enum):
    """What kind of change a proposal is."""

    ID = "id"
    HOST = "host"
    ADDRESS = "address"
    ALSO = "also"  # of an entry that is there
    PORTS = "ports"  # of an entry that is there


@dataclass(frozen=True)
class Evidence:
    """What a proposal is made of: at least one entry."""

    entries: tuple[Refused, ...]

    @property
    def count(self) -> int:
        """How often."""
        return sum(refused.count for refused in self.entries)

    @property
    def latest(self) -> Refused:
        """The one that was refused last."""
        return max(self.entries, key=lambda refused: refused.last)

    @property
    def first(self) -> int:
        """Seconds since 1970."""
        return min(refused.first for refused in self.entries)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Those that have a name, in order."""
        return tuple(sorted({refused.scope for refused in self.entries if refused.scope}))

    @property
    def endpoints(self) -> tuple[tuple[str, int], ...]:
        """Hosts, or addresses where there is no host, with ports."""
        return tuple(sorted({(refused.host or refused.address, refused.port) for refused in self.entries}))


@dataclass(frozen=True)
class Proposal:
    """One entry for `registries`, or a change of one that is there (Kind.ALSO, Kind.PORTS)."""

    kind: Kind
    entry: RegistryEntry
    """For a change, what it is about of the entry: its host, and what is to be added."""
    evidence: Evidence
    note: str = ""
    """What is to be thought of, as a sentence."""
    origin: str = ""
    """For a change, where in the policy the entry is."""

    @property
    def is_change(self) -> bool:
        """Whether it cannot be pasted below `registries`, as the entry is there already."""
        return self.kind in (Kind.ALSO, Kind.PORTS)


@dataclass(frozen=True)
class Withheld:
    """What is not proposed."""

    subject: str
    """A host, an address, or a reason."""
    why: str
    evidence: Evidence


@dataclass
class Suggestions:
    """All of them, what was refused most first."""

    proposals: list[Proposal] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)


def suggest(
    refused: Iterable[Refused], policy: Policy, catalogue: Catalogue, min_count: int = 1
) -> Suggestions:
    """What to add to the policy. `min_count`: of a host, in all, or it is left out.

    The policy with all entries that are no changes loads. Raises PolicyErrors where it does not by itself.
    """
    return _Suggesting(policy, catalogue).suggest(refused, min_count)


@dataclass
class _Subject:
    """A host or an address, and what of it was refused."""

    entries: list[Refused] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(refused.count for refused in self.entries)

    @property
    def evidence(self) -> Evidence:
        return Evidence(tuple(self.entries))

    def ports(self) -> tuple[int, ...]:
        """TCP ports, the ones that were refused most first."""
        counted: Counter[int] = Counter()
        for refused in self.entries:
            if refused.protocol == "tcp" and refused.port and refused.reason != _QUERY:
                counted[refused.port] += refused.count
        return tuple(port for port, _ in counted.most_common())

    def private_addresses(self) -> list[IPAddress]:
        """Where no public name should be; those of the last times."""
        found = (refused.ip_address for refused in self.entries if refused.reason != _QUERY)
        return sorted({its for its in found if its is not None and is_special(its)}, key=str)

    @property
    def is_only_asked_for(self) -> bool:
        return all(refused.reason == _QUERY for refused in self.entries)


class _Suggesting:
    def __init__(self, policy: Policy, catalogue: Catalogue) -> None:
        self._policy = policy
        self._catalogue = catalogue
        self._rules = compile_rules(policy, catalogue)
        self._port_lists = _port_lists([self._rules, *rules_of_scopes(policy, catalogue).values()])
        self._made = Suggestions()
        self._names: set[str] = set()
        self._ids: dict[str, list[_Subject]] = {}

    def suggest(self, refused: Iterable[Refused], min_count: int) -> Suggestions:
        hosts: dict[str, _Subject] = {}
        addresses: dict[IPAddress | str, _Subject] = {}
        others: dict[str, _Subject] = {}
        for one in refused:
            if one.reason not in _OF_REGISTRIES:
                others.setdefault(one.reason, _Subject()).entries.append(one)
            elif one.host:
                hosts.setdefault(one.host, _Subject()).entries.append(one)
            else:
                address: IPAddress | str = one.ip_address or one.address
                addresses.setdefault(address, _Subject()).entries.append(one)
        wanted = {host: subject for host, subject in hosts.items() if subject.count >= min_count}
        new = dict(_by_count(self._new(wanted)))
        self._find_ids(new)
        self._made.proposals += [self._of_id(name, subjects) for name, subjects in self._ids.items()]
        for name, subject in new.items():
            self._propose_host(name, subject)
        for address, subject in _by_count(addresses):
            if subject.count >= min_count:
                self._propose_address(address, subject)
        for reason, subject in _by_count(others):
            self._withhold(
                reason, _OTHERWISE.get(reason, "no registry to be added is an answer to that"), subject
            )
        self._made.proposals.sort(key=lambda proposal: -proposal.evidence.count)
        self._keep_what_fits()
        return self._made

    def _withhold(self, subject: str, why: str, its: _Subject) -> None:
        self._made.withheld.append(Withheld(subject, why, its.evidence))

    # --- hosts

    def _new(self, hosts: dict[str, _Subject]) -> dict[str, _Subject]:
        """Those that no rule decides. The others are dealt with."""
        found = {}
        for host, subject in _by_count(hosts):
            name = _exact_name(host, subject)
            rule = self._rules.match(name) if name is not None else None
            if name is None:
                self._withhold(show(host), "it is no host name", subject)
            elif rule is None:
                found[name] = subject
            elif rule.deny:
                self._withhold(name, f"the policy denies it, by {rule}", subject)
            elif rule.proxy:
                self._withhold(name, f"it is a proxy, by {rule}", subject)
            else:
                self._propose_ports(name, rule, subject)
        self._names = set(found)
        return {name: subject for name, subject in found.items() if self._is_meant(name, subject)}

    def _is_meant(self, name: str, subject: _Subject) -> bool:
        """Whether it may be a registry's, for all that was seen."""
        if subject.is_only_asked_for:
            # Clients add search domains to what they look for (resolv.conf(5)).
            begun = next((known for known in self._beginnings(name) if known != name), None)
            if begun is not None:
                self._withhold(name, f"it was only looked up, and is {begun} with something added", subject)
                return False
            if name.endswith(".arpa"):
                self._withhold(name, "it was only looked up, to find the name of an address", subject)
                return False
        elif not subject.ports():
            self._withhold(name, "registries are reached by TCP, and this was something else", subject)
            return False
        return True

    def _beginnings(self, name: str) -> Iterator[str]:
        """What the name begins with that is a name itself, of those that were refused or are allowed."""
        labels = name.split(".")
        for end in range(2, len(labels)):
            beginning = ".".join(labels[:end])
            if beginning in self._names or self._rules.allows(beginning) is not None:
                yield beginning

    def _propose_ports(self, name: str, rule: NameRule, subject: _Subject) -> None:
        missing = tuple(port for port in subject.ports() if port not in rule.ports)
        if not missing:
            self._withhold(name, f"{rule} allows it; docs/reasons.md has what else may be", subject)
            return
        ports = tuple(sorted({*rule.ports, *missing[: MAX_PORTS - len(rule.ports)]}))
        if len(rule.ports) == MAX_PORTS:
            self._withhold(name, f"{rule} has {MAX_PORTS} ports, and no more are possible", subject)
            return
        entry = HostEntry(host=rule.pattern, ports=ports)
        note = f"the policy allows {name} by {rule}, on {_ports_text(rule.ports)} alone"
        self._made.proposals.append(Proposal(Kind.PORTS, entry, subject.evidence, note, rule.origin))

    def _find_ids(self, hosts: dict[str, _Subject]) -> None:
        """Catalogue ids, by the hosts that clients ask first, and then by the others of the same registry."""
        owners = {
            name: list(self._owners(name))
            for name, subject in hosts.items()
            if _HTTPS in subject.ports() or subject.is_only_asked_for
        }
        for name, found in owners.items():
            own = [registry.id for registry, host in found if host.role is Role.API and not host.shared]
            if own:
                self._ids.setdefault(own[0], []).append(hosts[name])
        for name, found in owners.items():
            if any(hosts[name] in subjects for subjects in self._ids.values()):
                continue
            ids = list(dict.fromkeys(registry.id for registry, _ in found))
            chosen = next((its for its in ids if its in self._ids), None)
            if chosen is None and len(ids) == 1 and not any(host.shared for _, host in found):
                chosen = ids[0]
            if chosen is not None:
                self._ids.setdefault(chosen, []).append(hosts[name])

    def _owners(self, name: str) -> Iterator[tuple[CatalogueRegistry, CatalogueHost]]:
        there = {entry.id for entry in self._policy.registries if isinstance(entry, CatalogueEntry)}
        labels = name.split(".")
        for registry, host in self._catalogue.hosts():
            if registry.id not in there and not host.optional and host.host.matches_labels(labels):
                yield registry, host

    def _of_id(self, name: str, subjects: list[_Subject]) -> Proposal:
        registry = self._catalogue.by_id[name]
        evidence = Evidence(tuple(refused for subject in subjects for refused in subject.entries))
        hosts = [host for host, _ in evidence.endpoints]
        wide = [
            host
            for host in registry.required_hosts
            if host.role is Role.API
            and host.host.kind is not PatternKind.EXACT
            and any(host.host.matches(one) for one in hosts)
        ]
        note = registry.title
        if wide:
            note += "; it allows the registries of all customers: to trust one alone, write host: for it"
        return Proposal(Kind.ID, CatalogueEntry(id=name), evidence, note)

    def _propose_host(self, name: str, subject: _Subject) -> None:
        ports, note = subject.ports(), ""
        covered = any(subject in subjects for subjects in self._ids.values())
        if covered and all(port in CATALOGUE_PORTS for port in ports):
            return
        if subject.is_only_asked_for:
            ports, note = (_HTTPS,), "it was only looked up, so the port is a guess"
        if covered:
            ports = tuple(dict.fromkeys((*CATALOGUE_PORTS, *ports)))
        if len(ports) > MAX_PORTS:
            note = f"{len(ports)} ports were tried, and an entry has {MAX_PORTS} at most"
        private = [] if covered else subject.private_addresses()
        usual = tuple(ipaddress.ip_network(its) for its in private if _may_be_a_registrys(its))
        if private:
            addresses = ", ".join(map(str, private[:MAX_PRIVATE_NETWORKS]))
            note = f"{note}; its address is private: {addresses}".strip("; ")
        if len(usual) < len(private):
            note += "; that of a host itself or its link is left out, as no registry has one"
        entry = HostEntry(
            host=HostPattern.parse(name),
            ports=tuple(sorted(ports[:MAX_PORTS])),
            private=usual[:MAX_PRIVATE_NETWORKS] or False,
        )
        after = _usually_after(subject)
        rule = self._rules.allows(after.after) if after is not None else None
        if after is None or rule is None or covered:
            self._made.proposals.append(Proposal(Kind.HOST, entry, subject.evidence, note))
            return
        seen = f"looked up shortly after {after.after}, which {rule} allows: perhaps its blobs are there"
        owner = self._owner(rule)
        if owner is None:
            self._made.proposals.append(
                Proposal(Kind.HOST, entry, subject.evidence, f"{seen}; {note}".strip("; "))
            )
            return
        index, registry = owner
        its = entry.ports if entry.ports != registry.ports else None
        change = HostEntry.model_validate(
            {"host": registry.host, "ports": registry.ports, "also": [{"host": entry.host, "ports": its}]}
            if its is not None
            else {"host": registry.host, "ports": registry.ports, "also": [{"host": entry.host}]}
        )
        origin = self._policy.origin_of(index)
        note = f"{seen}; {note}".strip("; ")
        self._made.proposals.append(Proposal(Kind.ALSO, change, subject.evidence, note, origin))

    def _owner(self, rule: NameRule) -> tuple[int, HostEntry] | None:
        """The policy's own entry that a rule is from."""
        for index, entry in enumerate(self._policy.registries):
            if isinstance(entry, HostEntry) and rule.pattern in (
                entry.host,
                *(also.host for also in entry.also),
            ):
                return index, entry
        return None

    # --- addresses

    def _propose_address(self, address: IPAddress | str, subject: _Subject) -> None:
        if isinstance(address, str):
            self._withhold(show(address), "it is no address", subject)
            return
        ports = subject.ports()
        if not ports:
            self._withhold(
                str(address), "registries are reached by TCP, and this was something else", subject
            )
            return
        if address.is_multicast or address.is_link_local or address.is_unspecified:
            self._withhold(str(address), "no registry has such an address", subject)
            return
        covering = [
            rule
            for rule in self._rules.addresses
            if rule.network.version == address.version and address in rule.network
        ]
        missing = tuple(port for port in ports if not any(port in rule.ports for rule in covering))
        if not missing:
            self._withhold(str(address), f"{covering[0]} allows it", subject)
            return
        note = "no name is known for it: an image named by address, a hosts file, or another resolver"
        entry = AddressEntry.model_validate({"address": str(address), "ports": sorted(missing[:MAX_PORTS])})
        same = next((rule for rule in covering if rule.network == entry.address), None)
        if same is None:
            self._made.proposals.append(Proposal(Kind.ADDRESS, entry, subject.evidence, note))
        elif same.proxy or len(same.ports) == MAX_PORTS:
            self._withhold(str(address), f"{same} cannot have other ports", subject)
        else:
            both = sorted({*same.ports, *missing[: MAX_PORTS - len(same.ports)]})
            change = entry.model_copy(update={"ports": tuple(both)})
            self._made.proposals.append(Proposal(Kind.PORTS, change, subject.evidence, note, same.origin))

    # --- what one policy can hold

    def _keep_what_fits(self) -> None:
        kept: list[Proposal] = []
        lists = set(self._port_lists)
        for proposal in self._made.proposals:
            ports = None if isinstance(proposal.entry, CatalogueEntry) else proposal.entry.ports
            if not proposal.is_change and proposal.kind is Kind.HOST and ports is not None:
                if ports not in lists and len(lists) >= MAX_PORT_LISTS:
                    self._withhold_proposal(proposal, f"a policy has at most {MAX_PORT_LISTS} lists of ports")
                    continue
                lists.add(ports)
            kept.append(proposal)
        changes = [proposal for proposal in kept if proposal.is_change]
        new = [proposal for proposal in kept if not proposal.is_change]
        fitting: list[Proposal] = []
        self._add_fitting(fitting, new)
        self._made.proposals = sorted([*fitting, *changes], key=lambda proposal: -proposal.evidence.count)

    def _add_fitting(self, fitting: list[Proposal], new: Sequence[Proposal]) -> None:
        """By halves, so that one that does not fit costs few others a look."""
        if not new:
            return
        problem = self._problem([*fitting, *new])
        if problem is None:
            fitting += new
        elif len(new) == 1:
            self._withhold_proposal(new[0], f"with it, the policy would be wrong: {problem}")
        else:
            middle = len(new) // 2
            self._add_fitting(fitting, new[:middle])
            self._add_fitting(fitting, new[middle:])

    def _problem(self, proposals: Sequence[Proposal]) -> str | None:
        registries = (*self._policy.registries, *(proposal.entry for proposal in proposals))
        larger = self._policy.model_copy(update={"registries": registries}).read_from(PolicySource())
        try:
            compile_rules(larger, self._catalogue)
            rules_of_scopes(larger, self._catalogue)
        except PolicyErrors as errors:
            return str(errors.errors[0])
        return None

    def _withhold_proposal(self, proposal: Proposal, why: str) -> None:
        entry = proposal.entry
        subject = entry.id if isinstance(entry, CatalogueEntry) else ""
        if not subject:
            subject = str(entry.host if isinstance(entry, HostEntry) else entry.address)  # type: ignore[union-attr]
        self._made.withheld.append(Withheld(subject, why, proposal.evidence))


def _port_lists(made: Iterable[RuleSet]) -> set[tuple[int, ...]]:
    """Those of all scopes together, which is at least what any of them has."""
    return {CATALOGUE_PORTS, *(ports for rules in made for ports in rules.port_lists())}


_K = TypeVar("_K")


def _by_count(subjects: dict[_K, _Subject]) -> list[tuple[_K, _Subject]]:
    return sorted(subjects.items(), key=lambda item: (-item[1].count, str(item[0])))


def _exact_name(host: str, subject: _Subject) -> str | None:
    """The host as an exact host pattern; None where it cannot be one."""
    if any(refused.name is None for refused in subject.entries):
        return None
    try:
        pattern = HostPattern.parse(host)
    except PatternError:
        return None
    return pattern.text if pattern.kind is PatternKind.EXACT and pattern.text == host else None


def _usually_after(subject: _Subject) -> Refused | None:
    """The last time that an allowed name was looked up before, if that was so at least every second time."""
    after = [refused for refused in subject.entries if refused.after]
    if not after or 2 * sum(refused.after_count for refused in after) < subject.count:
        return None
    return max(after, key=lambda refused: refused.last)


def _may_be_a_registrys(address: IPAddress) -> bool:
    """Of a private network. A name that leads to this host, its link or metadata is rather an attack (DNS
    rebinding)."""
    return any(address in network for network in _OF_ORGANISATIONS)


def _ports_text(ports: Sequence[int]) -> str:
    return f"{plural(len(ports), 'port').partition(' ')[2]} {', '.join(map(str, ports))}"
