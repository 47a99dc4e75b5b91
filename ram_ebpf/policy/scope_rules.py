"""The rules that hold in each scope of a policy."""

from __future__ import annotations

from collections.abc import Iterable

from ram_ebpf.policy.automaton import AutomatonTooLarge, compile_globs
from ram_ebpf.policy.catalogue import Catalogue
from ram_ebpf.policy.choices import Posture
from ram_ebpf.policy.enforced import mark_of
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.registry import AddressEntry, CatalogueEntry, HostEntry, RegistryEntry
from ram_ebpf.policy.rules import compile_rules
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.terms import Terms


def rules_of(policy: Policy, catalogue: Catalogue, terms: Terms) -> RuleSet:
    """The rules that hold there. Raises PolicyErrors."""
    here = policy.at_scope(_entries(policy, terms), terms.scope)
    return compile_rules(here, catalogue, recognising=terms.posture is Posture.REGISTRIES)


def _entries(policy: Policy, terms: Terms) -> tuple[RegistryEntry, ...]:
    """The registries of terms. Where they are but marks (enforced.py), a scope of the policy has them."""
    found: list[RegistryEntry] = []
    marked: dict[object, RegistryEntry] = {}
    for item in terms.registries:
        if isinstance(item, CatalogueEntry | HostEntry | AddressEntry):
            found.append(item)
            continue
        marked = marked or {mark_of(entry): entry for scope in policy.scopes for entry in scope.registries}
        found.append(marked[item])
    return tuple(found)


def rules_of_scopes(policy: Policy, catalogue: Catalogue) -> dict[Terms, RuleSet]:
    """Those of all scopes that the policy names. Raises PolicyErrors."""
    found = dict.fromkeys(Terms.of(scope, index) for index, scope in enumerate(policy.scopes))
    return {terms: rules_of(policy, catalogue, terms) for terms in found}


def check_globs(rules: Iterable[RuleSet], file: str) -> None:
    """Raises PolicyErrors where the patterns with wildcards inside make too large an automaton."""
    try:
        for made in rules:
            compile_globs([(rule.pattern, rule.rank) for rule in made.of_kind(PatternKind.GLOB)])
    except AutomatonTooLarge as error:
        problem, _, cure = str(error).partition(", ")
        raise PolicyErrors([PolicyError(file, 0, "registries", problem, cure)]) from error
