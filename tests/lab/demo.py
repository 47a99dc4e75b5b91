"""Shows the main job in a lab: one registry is allowed, and nothing gets a client to another one.

    python -m tests.lab.demo

Ends with 0 if all went as expected, else with 1 and what did not. Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.live import Live

from . import demo_view, topology
from .daemon import COMMAND, Daemon, Decision
from .lab import Lab

# A refusal takes the client no longer than this, most of which is the start of skopeo. A slower machine
# may take longer, but not the seconds of a client that waits for an answer which never comes.
FAST = 0.2
SLOW = 2.0
# Seconds that the responder may take to be ready. Until it is, refused clients see EPERM, which is not shown.
ANSWERED = 5.0

ALLOWED = "allowed.registry.test"
BLOCKED = "blocked.registry.test"

# `private` says that the lab's private addresses are all right as answers for the name.
POLICY = """\
version: 1
organization: ram-ebpf lab
message: Ask platform@registry.test to allow it.
registries:
  - host: {allowed}
    private: true
resolvers: [{resolver}]
"""

TRAFFIC = (ALLOWED, BLOCKED, "notallowed.registry.test", ALLOWED, "many.registry.test", topology.NOTALLOWED)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.demo", description="ram-ebpf at work")
    parser.add_argument(
        "--command", type=shlex.split, default=COMMAND, help="the program (default: this Python's ram_ebpf)"
    )
    options = parser.parse_args(argv)
    output = demo_view.console()
    steps = demo_view.Steps(output)
    started = time.perf_counter()
    try:
        _show(output, steps, options.command)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        steps.check(False, str(error))
    except KeyboardInterrupt:
        output.print("interrupted; the lab is removed")
        return 130
    took = time.perf_counter() - started
    if steps.failures:
        output.print(f"\n[bold red]Not as expected[/bold red], after {took:.1f} s:")
        for failure in steps.failures:
            output.print(f"  - {failure}", markup=False)
        return 1
    output.print(f"\n[bold green]All as expected[/bold green], in {took:.1f} s. Nothing is left of the lab.")
    return 0


def _show(output: Console, steps: demo_view.Steps, command: Sequence[str]) -> None:
    steps.title("A lab of network namespaces: a client, a resolver, two registries")
    with Lab() as lab:
        steps.check(True, "built", lab.build_seconds)
        for host in (ALLOWED, BLOCKED):
            result = lab.client.pull(f"{host}/{lab.image_name}")
            steps.check(result.ok, f"without ram-ebpf, {host} can be pulled from", result.seconds)
        steps.title(f"ram-ebpf on the client's control group, with a policy that allows {ALLOWED}")
        policy = POLICY.format(allowed=ALLOWED, resolver=lab.resolver)
        started = time.perf_counter()
        with Daemon(lab, policy, command=command) as daemon:
            steps.check(True, "ready", time.perf_counter() - started)
            with contextlib.suppress(TimeoutError):
                daemon.wait(lambda lines: any(line["event"] == "responder" for line in lines), ANSWERED)
            result = lab.client.pull(f"{ALLOWED}/{lab.image_name}")
            steps.check(
                result.ok, f"{ALLOWED} can still be pulled from", result.seconds, result.stderr.strip()
            )
            steps.title("What is not allowed fails at once, and both client and log say why")
            reason = _refused(steps, lab, daemon, BLOCKED, BLOCKED)
            if reason is None:
                steps.check(False, f"the daemon's log has no line for {BLOCKED}")
            _tricks(steps, lab, daemon)
            steps.title("Some more traffic, and all that was decided")
            _traffic(output, lab, daemon)
            steps.title("The end")
            started = time.perf_counter()
            status = daemon.terminate()
            took = time.perf_counter() - started
            steps.check(status == 0, f"SIGTERM ended the daemon with status {status}", took, daemon.said())


def _tricks(steps: demo_view.Steps, lab: Lab, daemon: Daemon) -> None:
    steps.title("Neither an edited hosts file nor a bare address gets around that")
    address = lab.blocked.address
    for what, host, hosts in (
        (f"{ALLOWED} in /etc/hosts with the blocked address", ALLOWED, {ALLOWED: address}),
        (f"{BLOCKED} in /etc/hosts", BLOCKED, {BLOCKED: address}),
        (f"the address {address} itself", address, None),
    ):
        _refused(steps, lab, daemon, what, host, hosts)


def _refused(
    steps: demo_view.Steps,
    lab: Lab,
    daemon: Daemon,
    what: str,
    host: str,
    hosts: Mapping[str, str] | None = None,
) -> Decision | None:
    """Pull where it must fail, quickly and without a packet to the registry; return the logged denial."""
    before = len(daemon.decisions())
    connections = lab.blocked.counters()["Tcp.PassiveOpens"]
    result = lab.client.pull(f"{host}/{lab.image_name}", hosts=hosts)
    reached = lab.blocked.counters()["Tcp.PassiveOpens"] != connections
    # The same denial again may be counted instead of logged, so its absence is not a failure here.
    denial = daemon.wait_decision(before, lambda decision: not decision.allowed, timeout=1.0)
    why = (denial.explanation or denial.reason) if denial else "(no new line in the log)"
    good = not result.ok and not reached and result.seconds < SLOW
    steps.check(good, f"refused: {what}", result.seconds, f"ram-ebpf: {why}")
    steps.note(f"client:   {result.stderr.strip().rpartition('msg=')[2]}")
    if reached:
        steps.note("the connection reached the registry")
    if result.seconds >= FAST:
        steps.note(f"slower than the {FAST} s that are expected")
    return denial


def _traffic(output: Console, lab: Lab, daemon: Daemon) -> None:
    """Make some traffic, under a live table where there is a terminal, and print the whole table."""

    def pulls() -> Iterator[None]:
        for host in TRAFFIC:
            lab.client.pull(f"{host}/{lab.image_name}")
            yield

    if output.is_terminal:
        rows = max(5, output.height - 6)
        with Live(console=output, auto_refresh=False, transient=True) as live:
            for _ in pulls():
                # So that the eye can follow.
                until = time.monotonic() + 0.4
                while time.monotonic() < until:
                    live.update(demo_view.table(daemon.decisions(), rows), refresh=True)
                    time.sleep(0.05)
    else:
        for _ in pulls():
            pass
    _settle(daemon)
    output.print(demo_view.table(daemon.decisions()))


def _settle(daemon: Daemon, quiet: float = 0.3) -> None:
    """Wait until the log has been still for a moment, three seconds at most."""
    deadline = time.monotonic() + 3.0
    count = -1
    while count != (count := len(daemon.lines())) and time.monotonic() < deadline:
        time.sleep(quiet)


if __name__ == "__main__":
    sys.exit(main())
