"""`ram-ebpf check`: is a policy file right, and what rules does it make? Needs no root and no kernel."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from ram_ebpf.policy.actions import ALL_ACTIONS, Action
from ram_ebpf.policy.catalogue import Catalogue, load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, load_policy
from ram_ebpf.policy.model import CatalogueEntry, Policy
from ram_ebpf.policy.rules import NameRule, RuleSet, compile_rules
from ram_ebpf.policy.scope_rules import check_globs, rules_of_scopes
from ram_ebpf.policy.words import plural

_DEFAULT_NAME = "default policy"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `check`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "check",
        help="check a policy file and show the rules that it makes",
        description="Checks a policy file. Exit status: 0 when it is right, 78 when it is not.",
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", help="the policy file (default: the built-in policy)"
    )
    parser.add_argument("--print", action="store_true", dest="print_rules", help="print the effective rules")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="default: text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Checks `args.file`; the exit status."""
    name = args.file or _DEFAULT_NAME
    catalogue = load_catalogue()
    try:
        policy = load_policy(args.file, catalogue) if args.file else default_policy()
        rules = compile_rules(policy, catalogue)
        check_globs((rules, *rules_of_scopes(policy, catalogue).values()), name)
    except PolicyErrors as errors:
        print(errors, file=sys.stderr)
        return os.EX_CONFIG
    if args.format == "json":
        print(json.dumps(_report(name, policy, rules, catalogue, args.print_rules), indent=2))
        return 0
    print(f"{name}: ok: {_summary(policy, rules)}")
    if args.print_rules:
        print()
        for line in _table(rules):
            print(line)
        optional = _optional(policy, rules, catalogue)
        if optional:
            print("\nNot allowed by a catalogue id alone; add host: for those that you want:")
            for host, registry in optional:
                print(f"  {host}  ({registry})")
    return 0


def _summary(policy: Policy, rules: RuleSet) -> str:
    return ", ".join(
        (
            plural(len(rules.names), "name rule"),
            plural(len(rules.addresses), "address rule"),
            plural(len(policy.scopes), "scope"),
            f"mode {policy.mode.value}",
        )
    )


def _rows(rules: RuleSet) -> Iterator[tuple[str, str, str, str]]:
    """Pattern, ports, origin and notes; names of one domain stand together."""
    for rule in sorted(rules.names, key=lambda rule: (rule.pattern.labels[::-1], rule.rank)):
        ports = "-" if rule.deny else _ports(rule.ports)
        yield rule.pattern.text, ports, rule.origin, ", ".join(_notes(rule))
    for address in rules.addresses:
        notes = ", ".join(filter(None, ("address", _actions(address.actions), "proxy" * address.proxy)))
        yield str(address.network), _ports(address.ports), address.origin, notes


def _table(rules: RuleSet) -> Iterator[str]:
    rows = [("PATTERN", "PORTS", "ORIGIN", "NOTES"), *_rows(rules)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _actions(actions: tuple[Action, ...]) -> str:
    """Empty where there is nothing to remark: all of them, or none of what is denied."""
    limited = actions and actions != ALL_ACTIONS
    return f"{' and '.join(action.value for action in actions)} only" if limited else ""


def _ports(ports: tuple[int, ...]) -> str:
    return ",".join(map(str, ports))


def _notes(rule: NameRule) -> list[str]:
    networks = " ".join(map(str, rule.private_networks))
    marks = [
        ("denied", rule.deny),
        ("shared", rule.shared),
        ("private", rule.private),
        ("proxy", rule.proxy),
        (f"private {networks}", bool(networks)),
        (_actions(rule.actions), bool(_actions(rule.actions))),
    ]
    return [*rule.roles, *(mark for mark, holds in marks if holds)]


def _optional(policy: Policy, rules: RuleSet, catalogue: Catalogue) -> list[tuple[str, str]]:
    """Optional hosts of the policy's registries that no rule has, each with its registry's id."""
    patterns = {rule.pattern for rule in rules.names}
    return [
        (host.host.text, entry.id)
        for entry in policy.registries
        if isinstance(entry, CatalogueEntry)
        for host in catalogue.by_id[entry.id].optional_hosts
        if host.host not in patterns
    ]


def _report(
    name: str, policy: Policy, rules: RuleSet, catalogue: Catalogue, with_rules: bool
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "file": name,
        "ok": True,
        "mode": policy.mode.value,
        "organization": policy.organization,
        "name_rules": len(rules.names),
        "address_rules": len(rules.addresses),
        "scopes": len(policy.scopes),
    }
    if with_rules:
        report["names"] = [
            {
                "pattern": rule.pattern.text,
                "kind": rule.pattern.kind.value,
                "ports": list(rule.ports),
                "origin": rule.origin,
                "roles": list(rule.roles),
                "shared": rule.shared,
                "private": rule.private,
                "private_networks": list(map(str, rule.private_networks)),
                "deny": rule.deny,
                "rank": rule.rank,
                "actions": [action.value for action in rule.actions],
                "proxy": rule.proxy,
            }
            for rule in rules.names
        ]
        report["addresses"] = [
            {
                "network": str(rule.network),
                "ports": list(rule.ports),
                "origin": rule.origin,
                "actions": [action.value for action in rule.actions],
                "proxy": rule.proxy,
            }
            for rule in rules.addresses
        ]
        report["optional"] = [
            {"pattern": host, "registry": registry} for host, registry in _optional(policy, rules, catalogue)
        ]
    return report
