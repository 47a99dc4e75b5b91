"""`ram-ebpf run`: enforce a policy until told to stop."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import logging
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ram_ebpf.collection import building_for_good
from ram_ebpf.daemon.file_mark import FileMark, mark_of
from ram_ebpf.daemon.kept_reading import KeptReading, open_reader
from ram_ebpf.daemon.reading import PolicyReader, ReaderError, Wanted
from ram_ebpf.dataplane.cache_directory import DEFAULT_DIRECTORY
from ram_ebpf.policy.automaton import AutomatonTooLarge
from ram_ebpf.policy.choices import Posture
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.terms import Terms

if TYPE_CHECKING:
    from ram_ebpf.daemon.reloading import Loaded
    from ram_ebpf.dataplane.groundwork import Ahead
    from ram_ebpf.dataplane.matching import Attempt
    from ram_ebpf.policy.enforced import EnforcedPolicy
    from ram_ebpf.policy.ruleset import RuleSet
    from ram_ebpf.scopes.selection import Selection

_EPILOGUE = """\
exit status: 0 after SIGTERM or Ctrl-C, 69 nothing to govern, 70 the kernel refused, 71 no process can be
started, 75 another instance governs the scope, 77 not root, 78 the policy or a scope is wrong
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
    return start(args)


def start(args: argparse.Namespace, leave: bool = False) -> int:
    """Enforces; the exit status. `leave`: what was enforced last rather than the file, and returns when it is
    attached, and lets it be."""
    logging.basicConfig(level=logging.WARNING, format="ram-ebpf: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload is nothing to die of before one is possible
    # What the file becomes while it is read and compiled is a change.
    mark = None if args.policy is None else mark_of(Path(args.policy))
    try:
        reader = open_reader(_wanted(args, or_last_good=True, last_good_first=leave))
    except ReaderError as error:
        return _fail(os.EX_CONFIG, str(error))
    except OSError as error:
        return _fail(
            os.EX_OSERR,
            f"no process can be started that reads the policy: {error}; see whether there is enough memory, "
            "and what limits there are (ulimit -a; of a service LimitNOFILE, TasksMax, MemoryMax)",
        )
    with contextlib.closing(reader), contextlib.ExitStack() as stack:
        building = stack.enter_context(contextlib.ExitStack())
        building.enter_context(building_for_good())
        # Meanwhile, as these take as long as reading a policy does.
        if os.geteuid() != 0:
            return _enforce(args, _Begun(reader, None, None, mark, building), leave)
        from ram_ebpf.dataplane.groundwork import Ahead

        matching = _begin_to_match(args)  # before there are threads
        if matching is not None:
            stack.callback(matching.close)
        ground = stack.enter_context(contextlib.closing(Ahead(args.cache, in_parts=not leave)))
        importlib.import_module("ram_ebpf.daemon.controller")
        return _enforce(args, _Begun(reader, ground, matching, mark, building), leave)


class _Begun(NamedTuple):
    """What is under way when the policy is read. `ground` and `matching`: None where they cannot be.

    `building`: to be closed when everything is made that stays.
    """

    reader: PolicyReader | KeptReading
    ground: Ahead | None
    matching: Attempt | None
    mark: FileMark
    building: contextlib.ExitStack


def _begin_to_match(args: argparse.Namespace) -> Attempt | None:
    """None where there is nothing to try it in: that is said where it is wanted."""
    from ram_ebpf.dataplane.matching import Attempt
    from ram_ebpf.scopes.cgroup import ScopeError

    try:
        return Attempt(_root_of(args))
    except ScopeError:
        return None


def _root_of(args: argparse.Namespace) -> Path:
    """What stands for the whole host. Raises ScopeError."""
    from ram_ebpf.scopes.cgroup import find_cgroup2_mount, resolve_root

    return find_cgroup2_mount() if args.cgroup_root is None else resolve_root(args.cgroup_root)


def _compile_for_devices(directory: Path) -> None:
    """Begins to compile what is going to be wanted, where it is not kept from an earlier start."""
    from ram_ebpf.dataplane import cache, features
    from ram_ebpf.dataplane.programs import DEVICE_PROGRAMS

    with contextlib.suppress(OSError):  # it is said where it is wanted
        cache.compile_ahead(DEVICE_PROGRAMS.source, features.compiler_flags(), directory)


def _wanted(args: argparse.Namespace, or_last_good: bool = False, last_good_first: bool = False) -> Wanted:
    """At a start a typing error must not leave a host without enforcement, so the policy that was enforced
    last is used then. At a reload what is enforced stays."""
    posture = Posture(args.posture) if args.posture else None
    return Wanted(args.policy, tuple(args.scope), posture, or_last_good, last_good_first, keep=True)


def _enforce(args: argparse.Namespace, begun: _Begun, leave: bool) -> int:
    reader = begun.reader
    try:
        read = reader.read()
    except PolicyErrors as errors:
        print(errors, file=sys.stderr)
        return os.EX_CONFIG
    except ReaderError as error:
        return _fail(os.EX_SOFTWARE, str(error))
    for remark in read.remarks:
        print(remark, file=sys.stderr)
    if os.geteuid() != 0:
        return _fail(os.EX_NOPERM, "needs root, to load programs into the kernel: run it with sudo")

    # Behind the checks: what follows needs Linux.
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
        if read.problem is not None:
            raise read.problem
        policy, selection = _place(args, read.policy, begun.matching)
    except ScopeError as error:
        return _fail(os.EX_CONFIG, str(error))
    for note in selection.notes:
        print(f"ram-ebpf: {note}", file=sys.stderr)
    if not selection.targets:
        return _fail(os.EX_UNAVAILABLE, "there is nothing to govern; name a scope with --scope cgroup:PATH")
    try:
        if selection.has_containers() or any(target.at_devices for target in selection.targets):
            _compile_for_devices(args.cache)
        rules, judged = _rules_for(selection, reader), _judged_by(policy, reader)
        reader.close()
        controller = Controller(
            policy,
            rules,
            RecordWriter(args.log_format == "json", journal=journal_of(sys.stdout)),
            Options(
                log_dns=not leave and args.log_dns,
                cache_directory=args.cache,
                policy_file=None if args.policy is None else Path(args.policy),
                policy_mark=begun.mark,
                stay=not leave,
            ),
            None if args.policy is None or leave else partial(_load_again, args, [selection]),
            manager,
            read.encrypted,
            judged,
            begun.ground,
        )
        begun.building.close()
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
    except (CompileError, ReaderError, OSError) as error:
        return _fail(os.EX_SOFTWARE, str(error))
    return 0


def _place(
    args: argparse.Namespace,
    policy: EnforcedPolicy,
    matching: Attempt | None = None,
    before: Selection | None = None,
) -> tuple[EnforcedPolicy, Selection]:
    """The policy with the scopes that it has here, and what they mean. `matching`: if that is being tried
    already. Raises ScopeError."""
    from ram_ebpf.dataplane.matching import sockets_match
    from ram_ebpf.scopes.selection import select, without_cgroups

    top = _root_of(args)
    if not (sockets_match(top) if matching is None else matching.sockets_match()):
        scopes = without_cgroups(policy.scopes)
        if scopes != policy.scopes:
            policy = replace(policy, scopes=scopes)
            print(f"ram-ebpf: {_UNMATCHED}", file=sys.stderr)
    return policy, select(policy.scopes, None if args.cgroup_root is None else top, before)


def _rules_for(selection: Selection, reader: PolicyReader | KeptReading) -> dict[Terms, RuleSet]:
    """Of what applies at the targets. Raises PolicyErrors."""
    return reader.rules(target.terms for target in selection.targets)


def _judged_by(policy: EnforcedPolicy, reader: PolicyReader | KeptReading) -> dict[Terms, RuleSet]:
    """Of what Docker's requests are judged by, where they are. Raises PolicyErrors."""
    if not policy.docker.authorization:
        return {}
    from ram_ebpf.daemon.authorizing import judged_terms

    return reader.rules(judged_terms(policy))


def _load_again(args: argparse.Namespace, latest: list[Selection]) -> Loaded:
    """For a reload. Raises PolicyErrors, ReaderError, ScopeError, AutomatonTooLarge or OSError. `latest`: the
    selection before, which this one takes the place of."""
    from ram_ebpf.daemon.reloading import Loaded

    with PolicyReader(_wanted(args)) as reader:
        read = reader.read()
        before = latest[0]
        if read.problem is not None:
            raise read.problem
        policy, selection = _place(args, read.policy, before=before)
        if not selection.targets:
            raise ValueError("its scopes govern nothing here")
        rules, judged = _rules_for(selection, reader), _judged_by(policy, reader)
    targets = selection.following(before)
    latest[0] = selection
    return Loaded(policy, rules, targets, selection.watches(), selection.ports(), judged)
