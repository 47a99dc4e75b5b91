"""`ram-ebpf docker-plugin`: makes `docker ram` known to docker's command line, and takes it away again."""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from pathlib import Path

from ram_ebpf.cli.docker_hook import HOOKS
from ram_ebpf.permissions import writable_by_others

PROGRAM = "docker-ram"
SYSTEM_DIRECTORY = Path("/usr/local/lib/docker/cli-plugins")
"""Where docker of every packaging looks (docker/cli, cli-plugins/manager/manager_unix.go)."""
_EPILOGUE = (
    "exit status: 0 done, 69 the program is missing, 73 something else is there or it cannot be written"
)
_INSTALL = (
    "Makes a symbolic link to the program docker-ram where docker looks for plugins. Replaces nothing but a "
    "link that leads nowhere. Doing it again changes nothing."
)
_NEXT = f"""try it, as root: docker ram status
To have docker explain what was refused, add to the config.json of who runs it (see docs/docker.md):
  "features": {{"hooks": "true"}},
  "plugins": {{"ram": {{"hooks": "{HOOKS}"}}}}"""


class PluginError(Exception):
    """What is in the way, and what to do; str() says both."""


class MissingProgramError(PluginError):
    """There is nothing to lead to."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `docker-plugin`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "docker-plugin",
        help="make `docker ram` known to docker",
        description="Has docker's command line know `docker ram status`, `explain` and `events`.",
        epilog=_EPILOGUE,
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--directory",
        metavar="DIRECTORY",
        type=Path,
        help=f"a directory of docker's plugins (default: {SYSTEM_DIRECTORY}, for everybody)",
    )
    where.add_argument(
        "--user", action="store_true", help="for oneself: cli-plugins in DOCKER_CONFIG, or else in ~/.docker"
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    verbs.add_parser("install", help="make the link", description=_INSTALL).set_defaults(run=_install)
    verbs.add_parser(
        "uninstall", help="remove it", description="Removes the link that install has made, and nothing else."
    ).set_defaults(run=_uninstall)


def program() -> Path:
    """The program docker-ram: beside the one that runs, or where this Python keeps such.

    Raises MissingProgramError.
    """
    for directory in (Path(sys.argv[0]).absolute().parent, Path(sysconfig.get_path("scripts"))):
        if os.access(directory / PROGRAM, os.X_OK):
            return directory / PROGRAM
    raise MissingProgramError(f"there is no {PROGRAM} beside ram-ebpf: install the package anew, as with pip")


def install(directory: Path, target: Path) -> bool:
    """Whether anything had to be done. Raises PluginError for what is not ours, and OSError."""
    link = directory / PROGRAM
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    if _leads_to(link, target):
        return False
    if _leads_nowhere(link):  # of an environment that is gone
        link.unlink()
    try:
        link.symlink_to(target)
    except FileExistsError:
        raise PluginError(f"{link} is there already, and not by us: remove it if it is not needed") from None
    return True


def uninstall(directory: Path, target: Path) -> bool:
    """Whether anything had to be done. Raises PluginError for what is not ours, and OSError."""
    link = directory / PROGRAM
    if not link.is_symlink() and not link.exists():
        return False
    if not _leads_to(link, target) and not _leads_nowhere(link):
        raise PluginError(f"{link} is not by us, and is left alone: it does not lead to {target}")
    link.unlink()
    return True


def _leads_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and link.readlink() == target


def _leads_nowhere(link: Path) -> bool:
    return link.is_symlink() and not link.exists()


def _directory(args: argparse.Namespace) -> Path:
    if args.user:
        config = os.environ.get("DOCKER_CONFIG")
        return (Path(config) if config else Path.home() / ".docker") / "cli-plugins"
    return SYSTEM_DIRECTORY if args.directory is None else Path(args.directory)


def _fail(status: int, text: str) -> int:
    print(f"ram-ebpf: {text}", file=sys.stderr)
    return status


def _install(args: argparse.Namespace) -> int:
    directory = _directory(args)
    try:
        target = program()
        done = install(directory, target)
    except PluginError as error:
        return _fail(_status(error), str(error))
    except OSError as error:
        return _fail(os.EX_CANTCREAT, f"{error}; use sudo, or --user for yourself alone")
    print(f"installed {directory / PROGRAM}" if done else f"{directory / PROGRAM} is installed already")
    open_ = writable_by_others(target)
    if os.geteuid() == 0 and open_ is not None:
        print(f"note: others than root can write to {open_}, and so have root's docker run what they like")
    print(_NEXT)
    return 0


def _uninstall(args: argparse.Namespace) -> int:
    directory = _directory(args)
    try:
        done = uninstall(directory, program())
    except PluginError as error:
        return _fail(_status(error), str(error))
    except OSError as error:
        return _fail(os.EX_CANTCREAT, f"{error}; use sudo")
    print(f"removed {directory / PROGRAM}" if done else f"{directory / PROGRAM} is not installed")
    return 0


def _status(error: PluginError) -> int:
    return os.EX_UNAVAILABLE if isinstance(error, MissingProgramError) else os.EX_CANTCREAT
