"""From a policy and the catalogue to the rules that are enforced: pure, and the reference for the kernel.

One rule decides a name: the most specific that matches. Its ports are the only ones allowed there; those
of less specific rules do not add to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ram_ebpf.policy.catalogue import CATALOGUE_PORTS, Catalogue, CatalogueRegistry
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.fields import MAX_PORTS, IPNetwork
from ram_ebpf.policy.model import AddressEntry, CatalogueEntry, HostEntry, Policy
from ram_ebpf.policy.names import HostPattern, PatternKind, normalise


@dataclass(frozen=True, slots=True)
class NameRule:
    """Names that are allowed, on some TCP and UDP ports."""

    pattern: HostPattern
    ports: tuple[int, ...]
    """Ascending, 1 to 8 of them."""
    origin: str
    """Catalogue ids and places in the policy, such as `docker-hub` or `policy.yaml:12`, with commas."""
    shared: bool
    """Many tenants answer at its addresses, so the name on the wire must be checked too."""
    private: bool
    """The administrator expects private addresses for it."""
    rank: int
    """From 1, unique: of the rules that match a name, the one with the greatest rank decides."""
    roles: tuple[str, ...] = ()
    """What the catalogue says that the host is for: `api`, `auth`, `blobs`."""


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Addresses that are allowed without a name."""

    network: IPNetwork
    ports: tuple[int, ...]
    origin: str


@dataclass(frozen=True)
class RuleSet:
    """All rules of a policy; `names` are by ascending rank, `addresses` in the policy's order."""

    names: tuple[NameRule, ...]
    addresses: tuple[AddressRule, ...]

    def match(self, name: str) -> NameRule | None:
        """The rule that decides a presentation name, or None: nothing allows it."""
        canonical = normalise(name)
        if canonical is None:
            return None
        if exact := self._index.exact.get(canonical):  # exact beats all
            return exact
        labels = canonical.split(".")
        found = [rule for rule in self._index.globs if rule.pattern.matches_labels(labels)]
        for start in range(1, len(labels)):
            suffix = ".".join(labels[start:])
            if start == 1 and (one := self._index.one.get(suffix)):
                found.append(one)
            if deep := self._index.deep.get(suffix):
                found.append(deep)
        return max(found, key=lambda rule: rule.rank, default=None)

    def exact_names(self) -> tuple[str, ...]:
        """The names that can be looked up before anybody asks for them, in lower case."""
        return tuple(self._index.exact)

    def of_kind(self, kind: PatternKind) -> tuple[NameRule, ...]:
        """The name rules of one kind, by ascending rank."""
        return tuple(rule for rule in self.names if rule.pattern.kind is kind)

    @cached_property
    def _index(self) -> _Index:
        index = _Index()
        tables = {
            PatternKind.EXACT: index.exact,
            PatternKind.ONE: index.one,
            PatternKind.DEEP: index.deep,
        }
        for rule in self.names:
            if rule.pattern.kind is PatternKind.GLOB:
                index.globs.append(rule)
            else:
                tables[rule.pattern.kind][rule.pattern.suffix] = rule
        return index


@dataclass(slots=True)
class _Index:
    exact: dict[str, NameRule] = field(default_factory=dict)
    one: dict[str, NameRule] = field(default_factory=dict)
    deep: dict[str, NameRule] = field(default_factory=dict)
    globs: list[NameRule] = field(default_factory=list)


@dataclass(slots=True)
class _Draft:
    """What all mentions of one pattern say together."""

    pattern: HostPattern
    ports: set[int]
    origins: list[str]
    shared: bool
    private: bool
    roles: list[str]


@dataclass(frozen=True, slots=True)
class _Mention:
    """One place where the policy, itself or through the catalogue, names a pattern."""

    pattern: HostPattern
    ports: tuple[int, ...]
    origin: str
    line: int
    entry: int
    shared: bool
    private: bool = False
    role: str = ""


def compile_rules(policy: Policy, catalogue: Catalogue) -> RuleSet:
    """The rules of `policy`. A pattern named more than once, by the catalogue or as an `also` host, has
    the ports of all mentions. Raises PolicyErrors when that makes more than 8, or when `catalogue` is not
    the one that the policy was validated with and lacks an id."""
    drafts: dict[str, _Draft] = {}  # by text: hashing 100 000 patterns is what would take longest here
    errors: list[PolicyError] = []
    for mention in _mentions(policy, catalogue, errors):
        draft = drafts.get(mention.pattern.text)
        if draft is None:
            roles = [mention.role] if mention.role else []
            drafts[mention.pattern.text] = _Draft(
                mention.pattern, set(mention.ports), [mention.origin], mention.shared, mention.private, roles
            )
            continue
        before = len(draft.ports)
        draft.ports |= set(mention.ports)
        # The careful reading of both: check the name where one mention wants that.
        draft.shared |= mention.shared
        draft.private |= mention.private
        if mention.origin not in draft.origins:
            draft.origins.append(mention.origin)
        if mention.role and mention.role not in draft.roles:
            draft.roles.append(mention.role)
        if before <= MAX_PORTS < len(draft.ports):
            errors.append(
                _error(
                    policy,
                    mention,
                    f"host {mention.pattern} has {len(draft.ports)} ports together with {draft.origins[0]}",
                    f"a host has at most {MAX_PORTS}",
                )
            )
    if errors:
        raise PolicyErrors(errors)
    return RuleSet(_ranked(drafts.values()), tuple(_addresses(policy)))


def _ranked(drafts: Iterable[_Draft]) -> tuple[NameRule, ...]:
    # The sort is stable: of patterns that are equally specific, the later has the greater rank.
    ordered = sorted(drafts, key=lambda draft: draft.pattern.specificity)
    return tuple(
        NameRule(
            pattern=draft.pattern,
            ports=tuple(sorted(draft.ports)),
            origin=", ".join(draft.origins),
            shared=draft.shared,
            private=draft.private,
            rank=rank,
            roles=tuple(draft.roles),
        )
        for rank, draft in enumerate(ordered, start=1)
    )


def _mentions(policy: Policy, catalogue: Catalogue, errors: list[PolicyError]) -> Iterator[_Mention]:
    for index, entry in enumerate(policy.registries):
        line = policy.line_of(index)
        if isinstance(entry, CatalogueEntry):
            registry = catalogue.by_id.get(entry.id)
            if registry is None:
                where = f"registries[{index}]"
                problem = f"{entry.id} is not in the catalogue"
                errors.append(PolicyError(policy.file, line, where, problem, "write host: for its hosts"))
            else:
                yield from _catalogue_mentions(registry, index, line)
        elif isinstance(entry, HostEntry):
            yield _Mention(
                entry.host,
                entry.ports,
                policy.origin_of(index),
                line,
                index,
                catalogue.is_shared(entry.host),
                entry.private,
            )
            for position, also in enumerate(entry.also):
                yield _Mention(
                    also.host,
                    also.ports or entry.ports,
                    policy.origin_of(index, position),
                    policy.line_of(index, position),
                    index,
                    catalogue.is_shared(also.host),
                    entry.private,
                )


def _catalogue_mentions(registry: CatalogueRegistry, index: int, line: int) -> Iterator[_Mention]:
    for host in registry.required_hosts:
        yield _Mention(
            host.host, CATALOGUE_PORTS, registry.id, line, index, host.shared, role=host.role.value
        )


def _addresses(policy: Policy) -> Iterator[AddressRule]:
    for index, entry in enumerate(policy.registries):
        if isinstance(entry, AddressEntry):
            yield AddressRule(entry.address, tuple(sorted(entry.ports)), policy.origin_of(index))


def _error(policy: Policy, mention: _Mention, problem: str, cure: str) -> PolicyError:
    return PolicyError(policy.file or "policy", mention.line, f"registries[{mention.entry}]", problem, cure)
