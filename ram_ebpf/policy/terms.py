"""What applies in one scope beside the whole policy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ram_ebpf.policy.automaton import AutomatonTooLarge, compile_globs
from ram_ebpf.policy.catalogue import Catalogue
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.model import Policy, RegistryEntry, Scope
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.rules import RuleSet, compile_rules
from ram_ebpf.policy.scope import Posture


@dataclass(frozen=True)
class Terms:
    """Scopes with equal terms share everything. `scope`: where in the policy's `scopes` they stand."""

    posture: Posture = Posture.STRICT
    registries: tuple[RegistryEntry, ...] = ()
    scope: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, scope: Scope, index: int | None = None) -> Terms:
        """Those of a scope."""
        return cls(scope.posture, scope.registries, index)


STRICT = Terms()


def rules_of(policy: Policy, catalogue: Catalogue, terms: Terms) -> RuleSet:
    """The rules that hold there. Raises PolicyErrors."""
    here = policy.at_scope(terms.registries, terms.scope)
    return compile_rules(here, catalogue, recognising=terms.posture is Posture.REGISTRIES)


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
