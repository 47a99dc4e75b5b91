"""`ram-ebpf ca`: the organisation's certificate authority, by which refusals over TLS can be read."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, load_policy
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.scope_rules import rules_of_scopes

_DAYS = 1825
_MOST_EXCLUDED = 200  # of a longer list the daemon still signs nothing: it asks the policy that holds then
_EPILOGUE = """\
exit status: 0 done, 66 there is no authority, 69 no store of certificates is known here, 73 there is one
already or it cannot be written, 77 not root, 78 the policy is wrong
"""
_RESTART = "engines read the store when they start: restart them (systemctl restart docker containerd)"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `ca`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "ca",
        help="make and install the authority that signs refusals",
        description=(
            "The refusal responder can answer HTTPS with the reason for a refusal where clients trust an "
            "authority of this host. Without one they print it as a name in a certificate."
        ),
        epilog=_EPILOGUE,
    )
    parser.add_argument(
        "--directory", metavar="DIRECTORY", type=Path, help="where it is kept (default: /var/lib/ram-ebpf/ca)"
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    init = verbs.add_parser(
        "init", help="make key and certificate; never replaces what is there", description=_INIT
    )
    init.add_argument(
        "--policy", metavar="FILE", help="whose registries it is never to sign (default: Docker Hub)"
    )
    init.add_argument(
        "--days", metavar="N", type=_days, default=_DAYS, help="how long it is valid (default: %(default)s)"
    )
    init.set_defaults(run=_init)
    install = verbs.add_parser("install", help="have this host's clients trust it", description=_INSTALL)
    install.add_argument(
        "--host",
        metavar="HOST[:PORT]",
        action="append",
        default=[],
        help="a refused registry whose own settings name its authorities (certs.d), repeatable",
    )
    install.set_defaults(run=_install)
    uninstall = verbs.add_parser(
        "uninstall", help="have nobody trust it any more; keeps key and certificate", description=_UNINSTALL
    )
    uninstall.set_defaults(run=_uninstall)
    show = verbs.add_parser("show", help="print its certificate (PEM)")
    show.set_defaults(run=_show)


_INIT = (
    "Makes a key, which root alone may read, and a certificate that can sign servers and nothing else: no "
    "addresses, and none of the names that the policy allows nor names below them. ram-ebpf uses it from its "
    "next start on."
)
_INSTALL = (
    "Writes the certificate to /usr/local/share/ca-certificates and runs update-ca-certificates, so that all "
    "programs that use the system's store trust it; with --host also to /etc/docker/certs.d and "
    "/etc/containers/certs.d. Doing it again changes nothing."
)
_UNINSTALL = "Removes what install has written, and runs update-ca-certificates."


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 7300:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days from 1 to 7300")
    return int(text)


def _fail(status: int, text: str) -> int:
    print(f"ram-ebpf: {text}", file=sys.stderr)
    return status


def _directory(args: argparse.Namespace) -> Path:
    from ram_ebpf.responder.authority import DIRECTORY

    return DIRECTORY if args.directory is None else Path(args.directory)


def _init(args: argparse.Namespace) -> int:
    from ram_ebpf.responder import authority, certificates

    catalogue = load_catalogue()
    try:
        policy = default_policy() if args.policy is None else load_policy(args.policy, catalogue)
        rules = rules_of_scopes(policy, catalogue)
    except PolicyErrors as errors:
        print(errors, file=sys.stderr)
        return os.EX_CONFIG
    if os.geteuid() != 0:
        return _fail(os.EX_NOPERM, "needs root, which alone may read the key: run it with sudo")
    # A wildcard's own domain is more than it allows: what is excluded in vain is told by the message's name.
    domains = _outermost(
        rule.pattern.text if rule.pattern.kind is PatternKind.EXACT else rule.pattern.suffix
        for its in rules.values()
        for rule in its.names
        if not rule.deny and rule.pattern.kind is not PatternKind.GLOB
    )
    if len(domains) > _MOST_EXCLUDED:
        print(f"the certificate itself excludes {_MOST_EXCLUDED} of {len(domains)} allowed domains")
    domains = domains[:_MOST_EXCLUDED]
    directory = _directory(args)
    try:
        made = authority.create(directory, policy.organization, domains, args.days)
    except (authority.AuthorityError, OSError) as error:
        return _fail(os.EX_CANTCREAT, str(error))
    end = certificates.end_of(made.certificate)
    print(f"made {directory}/{authority.CERTIFICATE}, valid until {end:%Y-%m-%d},")
    print(f"which can sign nothing at or below {len(domains)} names that the policy allows, and no addresses")
    print("next: ram-ebpf ca install")
    return 0


def _outermost(domains: Iterable[str]) -> list[str]:
    """Without those below others, in their order."""
    every = set(domains)

    def has_parent(domain: str) -> bool:
        labels = domain.split(".")
        return any(".".join(labels[start:]) in every for start in range(1, len(labels)))

    return sorted(domain for domain in every if not has_parent(domain))


def _install(args: argparse.Namespace) -> int:
    from ram_ebpf.responder import authority
    from ram_ebpf.responder.trust_store import TrustStore

    if os.geteuid() != 0:
        return _fail(os.EX_NOPERM, "needs root, to write to the system's store: run it with sudo")
    try:
        pem = authority.to_pem(authority.load_certificate(_directory(args)))
    except authority.AuthorityError as error:
        return _fail(os.EX_NOINPUT, str(error))
    return _change(TrustStore().install(pem, args.host), "it is installed already")


def _uninstall(args: argparse.Namespace) -> int:
    from ram_ebpf.responder.trust_store import TrustStore

    if os.geteuid() != 0:
        return _fail(os.EX_NOPERM, "needs root, to write to the system's store: run it with sudo")
    return _change(TrustStore().uninstall(), "it is not installed")


def _change(steps: Iterable[str], nothing: str) -> int:
    """Takes the steps of a change to the system's store, and says each; `nothing`: what to say of none."""
    from ram_ebpf.responder.trust_store import TrustError

    done = 0
    try:
        for line in steps:
            print(line)
            done += 1
    except TrustError as error:
        return _fail(os.EX_UNAVAILABLE, str(error))
    except OSError as error:
        return _fail(os.EX_CANTCREAT, str(error))
    print(_RESTART if done else nothing)
    return 0


def _show(args: argparse.Namespace) -> int:
    from ram_ebpf.responder import authority

    try:
        sys.stdout.write(authority.to_pem(authority.load_certificate(_directory(args))).decode("ascii"))
    except authority.AuthorityError as error:
        return _fail(os.EX_NOINPUT, str(error))
    return 0
