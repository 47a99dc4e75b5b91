"""All faults, one after the other in random order, for as long as is wanted: `make soak MINUTES=60`.

    python -m tests.faults.soak --minutes 60 [--seed 1]

Two instances govern a control group each, and each has its stream. One lives through all of it, and its
memory is measured; the other one is killed and started again all the time. Ends with status 1 when anything
was wrongly allowed or refused, or memory has grown.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.daemon.control import ask_all
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon
from tests.lab import topology
from tests.lab.bpffs import VARIABLE
from tests.lab.lab import Lab

from .foreign import Firewall
from .instances import Instances, at_cgroup, policy, take, wait_reloaded
from .memory import Memory, measure
from .traffic import FRESH, PORT, RESOLVER, FarEnds, Report, Traffic, far_ends

_WARM = 0.25
"""The part of the time after which memory is to stay as it is: until then caches fill."""
_GROWTH = 6 << 20
_REMARKS = 1 << 17
_GARBAGE = (b"", b"\0\1\2", b"version: 1\nregistries: [\n", b"version: 2\n")


@dataclass(frozen=True)
class Governed:
    """An instance, and the control group that it governs."""

    instances: Instances
    scope: Path


class Soak:
    """The instances, and what is done to them."""

    def __init__(
        self, lab: Lab, ends: FarEnds, lasting: Governed, mortal: Governed, chance: random.Random
    ) -> None:
        self._lab, self._ends, self._chance = lab, ends, chance
        self._lasting, self._mortal = lasting.instances, mortal.instances
        self._scopes = (lasting.scope, mortal.scope)
        self._number = 0
        self.done: Counter[str] = Counter()
        self.faults: tuple[Callable[[], None], ...] = (
            self.kill,
            self.kill_while_it_starts,
            self.reload,
            self.reload,
            self.wrong_file,
            self.stop_for_a_while,
            self.second_copy,
            self.other_programs,
            self.flood_of_refusals,
            self.flood_of_names,
            self.questions,
        )

    def one(self) -> None:
        """The next fault."""
        fault = self._chance.choice(self.faults)
        fault()
        self.done[fault.__name__] += 1
        time.sleep(self._chance.uniform(0.0, 1.0))

    def _text(self) -> str:
        self._number += 1
        return policy(others=self._chance.random() < 0.5, more=f"message: number {self._number}\n")

    def kill(self) -> None:
        """And start it again, with another policy."""
        self._mortal.kill()
        time.sleep(self._chance.uniform(0.0, 0.5))
        self._mortal.start(self._text())

    def kill_while_it_starts(self) -> None:
        """Twice."""
        self._mortal.kill()
        self._mortal.begin(self._text())
        time.sleep(self._chance.uniform(0.0, 2.0))
        self._mortal.kill()
        self._mortal.start(self._text())

    def reload(self) -> None:
        """Of both."""
        for instances in (self._lasting, self._mortal):
            assert take(instances.current, self._text())["event"] == "reloaded"

    def wrong_file(self) -> None:
        """Written in place, and set right by the next reload."""
        daemon = self._lasting.current
        start = len(daemon.lines())
        daemon.policy_file.write_bytes(self._chance.choice(_GARBAGE))
        assert wait_reloaded(daemon, start)["event"] == "reload-failed"
        assert take(daemon, self._text())["event"] == "reloaded"

    def stop_for_a_while(self) -> None:
        """SIGSTOP, SIGCONT."""
        self._lasting.current.signal_only(signal.SIGSTOP)
        time.sleep(self._chance.uniform(0.5, 5.0))
        self._lasting.current.signal_only(signal.SIGCONT)

    def second_copy(self) -> None:
        """Has to end."""
        second = ScopedDaemon(self._lab, policy(), [], [self._scopes[0]])
        with contextlib.suppress(RuntimeError):
            second.__enter__()
            raise AssertionError("a second copy governs what another one does")

    def other_programs(self) -> None:
        """Come and go around a reload and a kill."""
        walls = [Firewall(scope) for scope in self._scopes]
        self.reload()
        self.kill()
        for wall in walls:
            wall.detach()

    def flood_of_refusals(self) -> None:
        """For two seconds."""
        with tempfile.TemporaryDirectory() as directory, Actor(self._lab.client, self._scopes[0]) as actor:
            done = Path(directory) / "done"
            actor.start("hammer", topology.BLOCKED, PORT, str(done))
            time.sleep(2.0)
            done.touch()
            assert set(actor.finish()) == {"EPERM"}

    def flood_of_names(self) -> None:
        """Of more addresses than there is room for, in the end."""
        for scope in self._scopes:
            with Actor(self._lab.client, scope) as actor:
                for _ in range(10):
                    before = self._ends.queries()
                    actor.call("flood", RESOLVER, 100, FRESH)
                    while self._ends.queries() < before + 100:
                        time.sleep(0.01)

    def questions(self) -> None:
        """By the command line's socket."""
        for _ in range(20):
            ask_all({"verb": "status"}, Path(self._lab.client.env["RAM_EBPF_RUN"]))


def _wrong_with(what: str, report: Report) -> Iterator[str]:
    """Of a stream."""
    print(f"{what}: {report.allowed} allowed, {report.refused} refused, the slowest {report.slowest:.2f} s")
    if report.wrongly_allowed or report.arrived:
        yield f"{what}: wrongly allowed: {report.wrongly_allowed} {report.arrived}"
    if report.failures:
        yield f"{what}: {report.failures} wrongly refused: {report.wrongly_refused}"


def _grown(before: Memory, after: Memory) -> Iterator[str]:
    if after.resident > before.resident + _GROWTH:
        yield f"the process has grown: from {before} to {after}"
    if after.bpf > before.bpf + _REMARKS or after.descriptors > before.descriptors + 4:
        yield f"what it has in the kernel has grown: from {before} to {after}"


def _run(minutes: float, seed: int) -> list[str]:
    """What was wrong in the end."""
    with Lab() as lab, far_ends(lab) as ends, contextlib.ExitStack() as stack:
        scopes = lab.new_cgroup("lasting"), lab.new_cgroup("mortal")
        lasting, mortal = (Governed(stack.enter_context(at_cgroup(lab, scope)), scope) for scope in scopes)
        lasting.instances.start()
        mortal.instances.start()
        pid = lasting.instances.current.pid
        soak = Soak(lab, ends, lasting, mortal, random.Random(seed))
        streams = [stack.enter_context(Traffic(lab, ends, scope)) for scope in scopes]
        started, warm, next_line = time.monotonic(), None, 0.0
        while (passed := time.monotonic() - started) < minutes * 60:
            soak.one()
            now = measure(pid)
            if warm is None and passed > minutes * 60 * _WARM:
                warm = now
            if passed >= next_line:
                next_line = passed + 60.0
                print(f"{passed / 60:5.1f} min: {now}; {sum(soak.done.values())} faults", flush=True)
        soak.reload()
        time.sleep(2.0)
        after = measure(pid)
        print(
            f"      end: {after}; "
            + ", ".join(f"{name} {count}" for name, count in sorted(soak.done.items()))
        )
        wrong = list(_grown(warm or after, after))
        for scope, stream in zip(scopes, streams, strict=True):
            wrong += _wrong_with(scope.name, stream.finish())
        pinned = list(Path(lab.client.env[VARIABLE]).glob("ram-ebpf/*"))
        if len(pinned) != 2:
            wrong.append(f"there are pins of {len(pinned)} instances, and two instances: {pinned}")
        return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description="mixes all faults for some minutes")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(argv)
    print(f"{options.minutes:g} minutes, --seed {options.seed}", flush=True)
    wrong = _run(options.minutes, options.seed)
    for text in wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
