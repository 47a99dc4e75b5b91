"""From a policy and the catalogue to the rules that are enforced: pure, and the reference for the kernel.

One rule decides a name: the most specific that matches. Its ports are the only ones allowed there; those
of less specific rules do not add to them. A deny rule decides like any other, and before the allow rules that
are as specific.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass

from ram_ebpf.policy.actions import ALL_ACTIONS, Action, joined
from ram_ebpf.policy.catalogue import CATALOGUE_PORTS, Catalogue, CatalogueRegistry, Role
from ram_ebpf.policy.choices import MAX_PORT_LISTS as MAX_PORT_LISTS
from ram_ebpf.policy.connections import ServerName
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.fields import MAX_PORTS, IPNetwork
from ram_ebpf.policy.model import AddressEntry, CatalogueEntry, HostEntry, Policy
from ram_ebpf.policy.names import HostPattern
from ram_ebpf.policy.proxies import AddressProxy, HostProxy
from ram_ebpf.policy.ruleset import AddressRule as AddressRule
from ram_ebpf.policy.ruleset import FoundRule as FoundRule
from ram_ebpf.policy.ruleset import NameRule as NameRule
from ram_ebpf.policy.ruleset import RuleSet as RuleSet

_NO_NETWORKS: frozenset[IPNetwork] = frozenset()


@dataclass(slots=True)
class _Mention:
    """What the policy, itself or through the catalogue, says of a pattern: in one place, or, once the others
    are merged into the first, in all of them. There may be 200 000 of these, so they hold as few objects as
    they can."""

    pattern: HostPattern
    ports: tuple[int, ...]
    origins: tuple[str, ...]
    line: int = 0
    entry: int = 0
    """With `line`, the place that made the ports what they are."""
    shared: bool = False
    private: bool = False
    networks: frozenset[IPNetwork] = _NO_NETWORKS
    roles: tuple[str, ...] = ()
    deny: bool = False
    known: bool = False
    actions: tuple[Action, ...] = ALL_ACTIONS
    unnamed: bool = False
    proxy: bool = False
    where: str = ""
    """The place, if not an item of `registries`."""

    def merge(self, other: _Mention) -> None:
        """Adds what a later place says."""
        ports = tuple(sorted({*self.ports, *other.ports}))
        if len(ports) > len(self.ports):
            self.ports, self.line, self.entry = ports, other.line, other.entry
        self.origins = _joined(self.origins, other.origins)
        # The careful reading of both: check the name where one mention wants that.
        self.shared |= other.shared
        self.private |= other.private
        self.unnamed |= other.unnamed
        self.networks |= other.networks
        self.roles = _joined(self.roles, other.roles)
        self.actions = joined(self.actions, other.actions)


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one + other))


def compile_rules(policy: Policy, catalogue: Catalogue, recognising: bool = False) -> RuleSet:
    """The rules of `policy`. A pattern named more than once, by the catalogue or as an `also` host, has
    the ports of all mentions, and none when it is denied. `recognising`: with rules that deny the registries
    of the catalogue that the policy says nothing about, and give way to all others. Raises PolicyErrors when
    that makes more than 8 ports or more than MAX_PORT_LISTS lists, or when `catalogue` is not the one that
    the policy was validated with and lacks an id."""
    merged = _merged(policy, catalogue)
    errors = [*_add_proxies(policy, merged), *_proxies_among_addresses(policy)]
    if errors:
        raise PolicyErrors(errors)
    for index, pattern in enumerate(policy.denied):
        merged.pop(pattern.text, None)  # allowed as well: that could never decide
        # Behind all that is allowed, so that of equally specific patterns the denied one decides.
        merged[pattern.text] = _Mention(pattern, (), (policy.origin_of_denied(index),), deny=True, actions=())
    known = _known(catalogue, merged) if recognising else ()
    rules = RuleSet(_ranked(merged.values(), known), _addresses(policy))
    if len(rules.port_lists()) > MAX_PORT_LISTS:
        raise PolicyErrors(_too_many_port_lists(policy, merged.values()))
    return rules


def _merged(policy: Policy, catalogue: Catalogue) -> dict[str, _Mention]:
    """What is allowed, by the pattern's text, in the policy's order."""
    merged: dict[str, _Mention] = {}  # by text: hashing 100 000 patterns is what would take longest here
    errors: list[PolicyError] = []
    for mention in _mentions(policy, catalogue, errors):
        first = merged.setdefault(mention.pattern.text, mention)
        if first is mention:
            continue
        before = len(first.ports)
        first.merge(mention)
        if before <= MAX_PORTS < len(first.ports):
            errors.append(
                _error(
                    policy,
                    mention,
                    f"host {mention.pattern} has {len(first.ports)} ports together with {first.origins[0]}",
                    f"a host has at most {MAX_PORTS}",
                )
            )
    if errors:
        raise PolicyErrors(errors)
    return merged


def _known(catalogue: Catalogue, merged: Container[str]) -> Iterator[_Mention]:
    """The hosts that all clients of a registry ask first, as far as they have addresses of their own."""
    seen: set[str] = set()
    for registry, host in catalogue.hosts():
        text = host.host.text
        asked_first = host.role is Role.API and not host.shared and not host.optional
        if asked_first and text not in merged and text not in seen:
            seen.add(text)
            yield _Mention(host.host, (), (registry.id,), deny=True, known=True, actions=())


def _ranked(mentions: Iterable[_Mention], known: Iterable[_Mention]) -> Iterator[NameRule]:
    def specificity(mention: _Mention) -> tuple[int, ...]:
        return mention.pattern.specificity

    # The sort is stable: of patterns that are equally specific, the later has the greater rank.
    ordered = sorted(known, key=specificity) + sorted(mentions, key=specificity)
    return (
        NameRule(
            pattern=mention.pattern,
            ports=tuple(sorted(mention.ports)),
            origin=", ".join(mention.origins),
            shared=mention.shared,
            private=mention.private,
            rank=rank,
            roles=mention.roles,
            deny=mention.deny,
            private_networks=() if mention.private else _sorted(mention.networks),
            known=mention.known,
            actions=mention.actions,
            unnamed=mention.unnamed,
            proxy=mention.proxy,
        )
        for rank, mention in enumerate(ordered, start=1)
    )


def _sorted(networks: frozenset[IPNetwork]) -> tuple[IPNetwork, ...]:
    if not networks:  # as nearly always
        return ()
    return tuple(sorted(networks, key=lambda one: (one.version, int(one.network_address), one.prefixlen)))


def _too_many_port_lists(policy: Policy, mentions: Iterable[_Mention]) -> Iterator[PolicyError]:
    """One error: at the first place, in the policy's order, that makes them too many."""
    seen: set[frozenset[int]] = set()
    allowed = [mention for mention in mentions if not mention.deny]
    for mention in sorted(allowed, key=lambda mention: (mention.entry, mention.line)):
        seen.add(frozenset(mention.ports))
        if len(seen) > MAX_PORT_LISTS:
            ports = sorted(mention.ports)
            yield _error(
                policy,
                mention,
                f"ports {ports} of host {mention.pattern} are the {len(seen)}th different list",
                f"give some hosts the same ports, as a policy has at most {MAX_PORT_LISTS} lists",
            )
            return


def _mentions(policy: Policy, catalogue: Catalogue, errors: list[PolicyError]) -> Iterator[_Mention]:
    source = policy.source
    for index, entry in enumerate(policy.registries):
        line = source.line_of(index)
        if isinstance(entry, CatalogueEntry):
            registry = catalogue.by_id.get(entry.id)
            if registry is None:
                where = source.place_of(index)
                problem = f"{entry.id} is not in the catalogue"
                errors.append(PolicyError(source.file, line, where, problem, "write host: for its hosts"))
            else:
                yield from _catalogue_mentions(registry, index, line, entry.actions)
        elif isinstance(entry, HostEntry):
            private = entry.private is True
            networks = _NO_NETWORKS if isinstance(entry.private, bool) else frozenset(entry.private)
            unnamed = entry.sni is ServerName.OPTIONAL
            yield _Mention(
                entry.host,
                entry.ports,
                (source.origin_of(index),),
                line,
                index,
                catalogue.is_shared(entry.host),
                private,
                networks,
                actions=entry.actions,
                unnamed=unnamed,
            )
            for position, also in enumerate(entry.also):
                yield _Mention(
                    also.host,
                    also.ports or entry.ports,
                    (source.origin_of(index, position),),
                    source.line_of(index, position),
                    index,
                    catalogue.is_shared(also.host),
                    private,
                    networks,
                    actions=entry.actions,
                    unnamed=unnamed,
                )


def _catalogue_mentions(
    registry: CatalogueRegistry, index: int, line: int, actions: tuple[Action, ...]
) -> Iterator[_Mention]:
    for host in registry.required_hosts:
        yield _Mention(
            host.host,
            CATALOGUE_PORTS,
            (registry.id,),
            line,
            index,
            host.shared,
            roles=(host.role.value,),
            actions=actions,
        )


def _addresses(policy: Policy) -> Iterator[AddressRule]:
    for index, entry in enumerate(policy.registries):
        if isinstance(entry, AddressEntry):
            yield AddressRule(
                entry.address, tuple(sorted(entry.ports)), policy.origin_of(index), entry.actions
            )
    for index, proxy in enumerate(policy.proxies):
        if isinstance(proxy, AddressProxy):
            origin = policy.origin_of_proxy(index)
            yield AddressRule(proxy.address, tuple(sorted(proxy.ports)), origin, (), proxy=True)


def _add_proxies(policy: Policy, merged: dict[str, _Mention]) -> Iterator[PolicyError]:
    """Adds those that have names. Yields an error for each that is a registry as well."""
    for index, proxy in enumerate(policy.proxies):
        if not isinstance(proxy, HostProxy):
            continue
        mention = _Mention(
            proxy.host,
            proxy.ports,
            (policy.origin_of_proxy(index),),
            policy.source.line_of_proxy(index),
            len(policy.registries) + index,
            private=True,
            actions=(),
            proxy=True,
            where=f"proxies[{index}]",
        )
        first = merged.setdefault(proxy.host.text, mention)
        if first is not mention:
            problem = f"host {proxy.host} is a registry as well, by {first.origins[0]}"
            yield _error(policy, mention, problem, "give the proxy a name of its own, or write its address")


def _proxies_among_addresses(policy: Policy) -> Iterator[PolicyError]:
    """An error for each that is a registry as well: it could not be told which one a connection is for."""
    registries = {
        entry.address: (set(entry.ports), index)
        for index, entry in enumerate(policy.registries)
        if isinstance(entry, AddressEntry)
    }
    for index, proxy in enumerate(policy.proxies):
        if not isinstance(proxy, AddressProxy) or proxy.address not in registries:
            continue
        ports, entry = registries[proxy.address]
        if both := sorted(ports & set(proxy.ports)):
            line = policy.source.line_of_proxy(index)
            which = policy.origin_of(entry)
            problem = f"port {both[0]} of {proxy.address} is a registry's as well, by {which}"
            cure = "remove it from one of them"
            yield PolicyError(policy.file or "policy", line, f"proxies[{index}]", problem, cure)


def _error(policy: Policy, mention: _Mention, problem: str, cure: str) -> PolicyError:
    where = mention.where or policy.source.place_of(mention.entry)
    return PolicyError(policy.file or "policy", mention.line, where, problem, cure)
