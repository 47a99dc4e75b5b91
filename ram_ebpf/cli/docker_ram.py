"""The program `docker-ram`: `docker ram`, a plugin of docker's command line.

The convention is docker/cli's: cli-plugins/metadata/metadata.go and cli-plugins/manager/plugin.go. The
program is called as `docker-ram docker-cli-plugin-metadata`, as `docker-ram ram docker-cli-plugin-hooks
JSON`, and else with all words that docker was called with, its global options included.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections.abc import Sequence

from ram_ebpf import __version__

NAME = "ram"
_METADATA = "docker-cli-plugin-metadata"
_HOOKS = "docker-cli-plugin-hooks"
_SOCKET = "DOCKER_CLI_PLUGIN_SOCKET"
DESCRIPTION = "Show what registry access management refuses on this host, and why"
# docker/cli, cli/flags/options.go and cmd/docker/docker.go: those with a value, which may be the next word.
_WITH_VALUE = frozenset(
    {
        "-c",
        "-H",
        "-l",
        "--config",
        "--context",
        "--host",
        "--log-level",
        "--tlscacert",
        "--tlscert",
        "--tlskey",
    }
)
_HELP = frozenset({"-h", "--help", "help"})


def main(argv: Sequence[str] | None = None) -> int:
    """Does what docker, or somebody by hand, asks for; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == [_METADATA]:
        print(json.dumps(metadata()))
        return 0
    if words[:2] == [NAME, _HOOKS]:
        from ram_ebpf.cli import docker_hook  # alone, as someone waits for it

        return docker_hook.main(words[2] if len(words) > 2 else "")
    return _run(own_words(words))


def metadata() -> dict[str, str]:
    """What docker wants to know of a plugin; of other versions of the schema 28.4 and before know nothing."""
    return {
        "SchemaVersion": "0.1.0",
        "Vendor": "ram-ebpf",
        "Version": __version__,
        "ShortDescription": DESCRIPTION,
    }


def own_words(words: Sequence[str]) -> list[str]:
    """The words behind `ram`: those before are docker's global options, which mean nothing to us.

    Without a `ram`, as when called by hand, all that are no such option. `docker help ram VERB` is VERB's
    help.
    """
    helping = False
    left = list(words)
    while left:
        word = left.pop(0)
        if word in _HELP:
            helping = True
        elif word in _WITH_VALUE:
            left = left[1:]
        elif word == NAME:
            break
        elif not word.startswith("-"):
            left.insert(0, word)
            break
    return [*left, "--help"] if helping else left


def _run(words: Sequence[str]) -> int:
    import argparse

    from ram_ebpf.cli import events, explain, status

    parser = argparse.ArgumentParser(prog=f"docker {NAME}", description=f"{DESCRIPTION}.")
    parser.add_argument("--version", action="version", version=f"ram-ebpf {__version__}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in (status, explain, events):
        verb.add_parser(subparsers)
    arguments = parser.parse_args(words)
    with contextlib.closing(Docker()) as docker:
        arguments.pause = docker.pause
        done: int = arguments.run(arguments)
    return done


class Docker:
    """Whoever called: docker from 25.0 on listens on a socket, which it closes when the plugin is to end."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        place = os.environ.get(_SOCKET, "")
        if place:
            # Docker writes a socket of the abstract namespace with an @ (unix(7): a zero byte).
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                client.connect(f"\0{place[1:]}" if place.startswith("@") else place)
            except OSError:  # it ends us by a signal, then
                client.close()
            else:
                self._socket = client

    def pause(self, seconds: float) -> bool:
        """Waits; false: docker has ended."""
        if self._socket is None:
            time.sleep(seconds)
            return True
        ready, _, _ = select.select([self._socket], [], [], seconds)
        return not ready

    def close(self) -> None:
        """Lets go of it."""
        if self._socket is not None:
            self._socket.close()


if __name__ == "__main__":
    sys.exit(main())
