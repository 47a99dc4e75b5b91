"""What the doctor is shown: this host, and the policy that is to hold here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.lookup import LookupFailedError, look_up
from ram_ebpf.dns.reach import Reached, reach
from ram_ebpf.dns.resolvers import resolvers_of
from ram_ebpf.dns.response import Answer
from ram_ebpf.doctor.found_scopes import FoundScope, find_scopes
from ram_ebpf.policy.catalogue import Catalogue, load_catalogue
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.fields import IPAddress
from ram_ebpf.policy.loader import default_policy, load_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.rules import NameRule, RuleSet
from ram_ebpf.policy.scope import Engine
from ram_ebpf.policy.scope_rules import check_globs, rules_of_scopes
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.cgroup import ScopeError, find_cgroup2_mount
from ram_ebpf.scopes.engines import FoundEngine, find_engines

USUAL_POLICY = Path("/etc/ram-ebpf/policy.yaml")
_DNS_PATIENCE = 3.0  # seconds for a resolver to answer one question
_MOST_NAMES = 64  # that are looked up
_AT_A_TIME = 16
_DAEMON_PATIENCE = 5.0  # seconds for a running instance to answer


@dataclass(eq=False)
class Case:
    """Nothing of it changes while it is looked at.

    `policy` and `rules` (by the terms of its scopes) are empty when the policy is wrong, which `errors`
    tells. `file`: the policy's, or None for the built-in one. `cgroup_root`: the directory that stands for
    the whole host; None: the root of the control groups.
    """

    policy: Policy | None
    rules: Mapping[Terms, RuleSet]
    file: str | None = None
    errors: tuple[PolicyError, ...] = ()
    cgroup_root: Path | None = None
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    catalogue: Catalogue = field(default_factory=load_catalogue)

    @classmethod
    def of(cls, file: str | None, cgroup_root: Path | None = None) -> Case:
        """With the policy of a file; None: the usual one if it is there, or else the built-in one."""
        if file is None and USUAL_POLICY.exists():
            file = str(USUAL_POLICY)
        catalogue = load_catalogue()
        try:
            policy = default_policy() if file is None else load_policy(file, catalogue)
            rules = rules_of_scopes(policy, catalogue)
            check_globs(rules.values(), file or "default policy")
        except PolicyErrors as errors:
            return cls(None, {}, file, errors.errors, cgroup_root, catalogue=catalogue)
        return cls(policy, rules, file, (), cgroup_root, catalogue=catalogue)

    @cached_property
    def mount(self) -> Path | None:
        """Where cgroup version 2 is mounted; None where it is not."""
        try:
            return find_cgroup2_mount()
        except ScopeError:
            return None

    @property
    def top(self) -> Path | None:
        """What stands for the whole host."""
        return self.cgroup_root or self.mount

    @cached_property
    def instances(self) -> list[dict[str, Any]]:
        """What the running instances say of themselves (`status`), each with its process as `instance`.

        Raises PermissionError where they may not be asked, TimeoutError where one does not answer.
        """
        from ram_ebpf.daemon.control import NotRunningError, ask_all

        try:
            return ask_all({"verb": "status"}, patience=_DAEMON_PATIENCE)
        except NotRunningError:
            return []

    @cached_property
    def engines(self) -> list[FoundEngine]:
        """The container engines that run here."""
        return find_engines(Engine.ALL) if self.mount is not None else []

    @cached_property
    def scopes(self) -> list[FoundScope]:
        """Where the policy's scopes are. Asks Docker and the container runtime where it names containers."""
        return [] if self.policy is None else find_scopes(self.policy.scopes, self.cgroup_root)

    @cached_property
    def resolvers(self) -> list[TrustedResolver]:
        """Those that the policy trusts, here and now. Raises OSError."""
        return [] if self.policy is None else resolvers_of(self.policy)

    @cached_property
    def reached(self) -> list[Reached]:
        """How each of them answers. Raises OSError."""
        # A name that the daemon asks for as well; else the root, which every resolver knows.
        return asyncio.run(reach(self.resolvers, (*self.exact_names[:1], "."), _DNS_PATIENCE))

    @cached_property
    def exact_names(self) -> tuple[str, ...]:
        """Those that the policy allows anywhere, in lower case."""
        return tuple(dict.fromkeys(name for rules in self.rules.values() for name in rules.exact_names()))

    @cached_property
    def addresses(self) -> dict[str, Answer | LookupFailedError]:
        """What the resolvers that answer say of the first of them; empty where none answers."""
        resolvers = [item.resolver for item in self.reached if not item.udp.problem]
        return asyncio.run(_look_up(self.exact_names[:_MOST_NAMES], resolvers)) if resolvers else {}

    def allows_address(self, address: IPAddress, port: int, as_proxy: bool = False) -> bool:
        """Whether an `address:` entry opens it, of a registry of any scope or of a proxy."""
        return any(
            rule.proxy == as_proxy
            and port in rule.ports
            and address.version == rule.network.version
            and address in rule.network
            for rules in self.rules.values()
            for rule in rules.addresses
        )

    def rules_for(self, name: str) -> list[NameRule]:
        """What decides a name in each of the scopes that have rules of their own."""
        found = (rules.match(name) for rules in self.rules.values())
        return [rule for rule in found if rule is not None]


async def _look_up(
    names: Iterable[str], resolvers: Sequence[TrustedResolver]
) -> dict[str, Answer | LookupFailedError]:
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def one(name: str) -> Answer | LookupFailedError:
        async with turns:
            try:
                return await look_up(name, resolvers, _DNS_PATIENCE)
            except LookupFailedError as error:
                return error

    names = list(names)
    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
