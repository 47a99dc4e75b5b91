"""`ram-ebpf run`: enforce a policy until told to stop."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ram_ebpf.collection import building_for_good
from ram_ebpf.dataplane.cache import DEFAULT_DIRECTORY
from ram_ebpf.policy.automaton import AutomatonTooLarge
from ram_ebpf.policy.catalogue import Catalogue, load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, load_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.rules import RuleSet
from ram_ebpf.policy.scope import Posture
from ram_ebpf.policy.terms import Terms, rules_of, rules_of_scopes

if TYPE_CHECKING:
    from ram_ebpf.daemon.reloading import Loaded
    from ram_ebpf.scopes.selection import Selection

_EPILOGUE = """\
exit status: 0 after SIGTERM or Ctrl-C, 69 nothing to govern, 70 the kernel refused, 75 another instance
governs the scope, 77 not root, 78 the policy or a scope is wrong
"""

_UNMATCHED = (
    "net_cls or net_prio (cgroup version 1) is in use, and this kernel then takes all sockets for those of "
    "the root cgroup: the whole host is governed instead, in posture registries. Linux 5.15 and later do not "
    "need that; before, boot with cgroup_no_v1=net_cls,net_prio"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `run`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "run",
        help="enforce a policy until told to stop",
        description="Enforces a policy in the kernel until SIGTERM or Ctrl-C, then detaches everything.",
        epilog=_EPILOGUE,
    )
    add_options(parser)
    parser.add_argument("--log-dns", action="store_true", help="also log lookups that changed nothing")
    parser.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds those that say what is enforced, where and how."""
    parser.add_argument(
        "--policy", metavar="FILE", help="the policy file (default: Docker Hub and nothing else)"
    )
    parser.add_argument(
        "--scope",
        metavar="SCOPE",
        action="append",
        default=[],
        help=(
            "cgroup:PATH, unit:NAME, device:NAME, netns:NAME (or a path, or pid:N), "
            "container:NAME (or an id, or label=KEY=VALUE), builders:buildx, engine:NAME or host, "
            "repeatable; instead of the policy's scopes"
        ),
    )
    parser.add_argument(
        "--posture",
        choices=[posture.value for posture in Posture],
        help="of the scopes of --scope (default: registries for host, strict for others)",
    )
    parser.add_argument(
        "--cgroup-root",
        metavar="DIRECTORY",
        type=Path,
        help="what stands for the whole host (default: the root of the control groups)",
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    parser.add_argument(
        "--cache",
        metavar="DIRECTORY",
        type=Path,
        default=DEFAULT_DIRECTORY,
        help="where compiled programs are kept (default: %(default)s)",
    )


def _fail(status: int, text: str) -> int:
    print(f"ram-ebpf: {text}", file=sys.stderr)
    return status


def run(args: argparse.Namespace) -> int:
    """Enforces until a signal; the exit status."""
    catalogue = load_catalogue()
    try:
        with building_for_good():
            policy, made = read(args, catalogue)
    except PolicyErrors as errors:
        print(errors, file=sys.stderr)
        return os.EX_CONFIG
    return enforce(args, policy, made, catalogue)


def enforce(
    args: argparse.Namespace,
    policy: Policy,
    made: Mapping[Terms, RuleSet],
    catalogue: Catalogue,
    leave: bool = False,
) -> int:
    """Enforces what was read; the exit status. `leave`: returns when it is attached, and lets it be."""
    logging.basicConfig(level=logging.WARNING, format="ram-ebpf: %(message)s", stream=sys.stderr)
    if os.geteuid() != 0:
        return _fail(os.EX_NOPERM, "needs root, to load programs into the kernel: run it with sudo")

    # Behind the checks: what follows needs Linux, and takes a while to import.
    from ram_ebpf.daemon.controller import Controller, Options
    from ram_ebpf.daemon.journal import journal_of
    from ram_ebpf.daemon.notify import ServiceManager
    from ram_ebpf.daemon.records import RecordWriter
    from ram_ebpf.dataplane.compiler import CompileError
    from ram_ebpf.dataplane.devices import BusyDeviceError
    from ram_ebpf.dataplane.plane import BusyCgroupError
    from ram_ebpf.dataplane.syscall import VerifierError
    from ram_ebpf.scopes.ahead import make_ahead
    from ram_ebpf.scopes.cgroup import ScopeError, find_cgroup2_mount

    if args.posture is not None and not args.scope:
        return _fail(os.EX_USAGE, "--posture is for the scopes of the command line; name one with --scope")
    manager = ServiceManager.of_environment()
    if manager.watches:
        faulthandler.enable()  # its watchdog's SIGABRT then leaves in the log where each thread hung
    try:
        policy, selection = _place(args, policy)
    except ScopeError as error:
        return _fail(os.EX_CONFIG, str(error))
    for note in selection.notes:
        print(f"ram-ebpf: {note}", file=sys.stderr)
    if not selection.targets:
        return _fail(os.EX_UNAVAILABLE, "there is nothing to govern; name a scope with --scope cgroup:PATH")
    try:
        with building_for_good():
            controller = Controller(
                policy,
                _rules_for(selection, policy, catalogue, made),
                RecordWriter(args.log_format == "json", journal=journal_of(sys.stdout)),
                Options(
                    log_dns=not leave and args.log_dns,
                    cache_directory=args.cache,
                    policy_file=None if args.policy is None else Path(args.policy),
                    stay=not leave,
                ),
                None if args.policy is None or leave else partial(_load_again, args, [selection]),
                manager,
            )
        if leave:
            for directory in make_ahead(selection.targets, selection.cgroup_root or find_cgroup2_mount()):
                print(f"ram-ebpf: made {directory}, for what systemd is going to start", file=sys.stderr)
            controller.attach_and_leave(selection.targets)
            return 0
        controller.run(selection.targets, selection.watches(), selection.ports(), selection.has_containers())
    except PolicyErrors as errors:
        print(errors, file=sys.stderr)
        return os.EX_CONFIG
    except (BusyCgroupError, BusyDeviceError) as error:
        return _fail(os.EX_TEMPFAIL, str(error))
    except VerifierError as error:
        return _fail(os.EX_SOFTWARE, f"{error.strerror}\n{error.log}")
    except AutomatonTooLarge as error:
        return _fail(os.EX_CONFIG, str(error))
    except (CompileError, OSError) as error:
        return _fail(os.EX_SOFTWARE, str(error))
    return 0


def read(args: argparse.Namespace, catalogue: Catalogue) -> tuple[Policy, dict[Terms, RuleSet]]:
    """The policy, or the one that was enforced last where the file is wrong: a typing error must not leave a
    host without enforcement when it is started again. Raises PolicyErrors when there is none of these."""
    if args.policy is None:
        policy = default_policy()
        return policy, rules_of_scopes(policy, catalogue)
    try:
        policy = load_policy(args.policy, catalogue)
        return policy, rules_of_scopes(policy, catalogue)
    except PolicyErrors as errors:
        from ram_ebpf.daemon import last_good

        try:
            kept = last_good.load(args.policy, catalogue)
            if kept is None:
                raise
            made = rules_of_scopes(kept, catalogue)
        except PolicyErrors:
            raise errors from None
        print(errors, file=sys.stderr)
        print(
            f"ram-ebpf: {args.policy} is wrong, so the policy that was enforced last is used: {kept.file}",
            file=sys.stderr,
        )
        return kept, made


def _place(
    args: argparse.Namespace, policy: Policy, before: Selection | None = None
) -> tuple[Policy, Selection]:
    """The policy with the scopes that it has here, and what they mean. Raises ScopeError."""
    from ram_ebpf.dataplane.matching import sockets_match
    from ram_ebpf.scopes.cgroup import find_cgroup2_mount, resolve_root
    from ram_ebpf.scopes.selection import parse_scope, select, without_cgroups

    posture = Posture(args.posture) if args.posture else None
    chosen = [parse_scope(text, posture) for text in args.scope]
    if chosen:
        policy = policy.model_copy(update={"scopes": tuple(chosen)})
    root = None if args.cgroup_root is None else resolve_root(args.cgroup_root)
    if not sockets_match(root or find_cgroup2_mount()):
        scopes = without_cgroups(policy.scopes)
        if scopes != policy.scopes:
            policy = policy.model_copy(update={"scopes": scopes})
            if before is None:
                print(f"ram-ebpf: {_UNMATCHED}", file=sys.stderr)
    return policy, select(policy.scopes, root, before)


def _rules_for(
    selection: Selection, policy: Policy, catalogue: Catalogue, made: Mapping[Terms, RuleSet]
) -> dict[Terms, RuleSet]:
    """Of what applies at the targets. `made`: those that are compiled already. Raises PolicyErrors."""
    return {
        terms: made.get(terms) or rules_of(policy, catalogue, terms)
        for terms in dict.fromkeys(target.terms for target in selection.targets)
    }


def _load_again(args: argparse.Namespace, latest: list[Selection]) -> Loaded:
    """For a reload. Raises PolicyErrors, ScopeError, AutomatonTooLarge or OSError. `latest`: the selection
    before, which this one takes the place of."""
    from ram_ebpf.daemon.reloading import Loaded

    catalogue = load_catalogue()
    policy = load_policy(args.policy, catalogue)
    made = rules_of_scopes(policy, catalogue)
    before = latest[0]
    policy, selection = _place(args, policy, before)
    if not selection.targets:
        raise ValueError("its scopes govern nothing here")
    rules = _rules_for(selection, policy, catalogue, made)
    targets = selection.following(before)
    latest[0] = selection
    return Loaded(policy, rules, targets, selection.watches(), selection.ports())
