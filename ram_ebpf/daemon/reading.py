"""Has a policy read and its rules made in a process of its own, which ends then.

What checks a policy (pydantic, YAML, the catalogue) takes 15 MB by itself, and 200 MB for 100 000 rules, most
of which no process gives back. The daemon gets what policy_process.py makes: plain data.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ram_ebpf import own_process
from ram_ebpf.daemon import upgrade

if TYPE_CHECKING:
    from ram_ebpf.dns.encrypted_names import EncryptedNames
    from ram_ebpf.policy.choices import Posture
    from ram_ebpf.policy.enforced import EnforcedPolicy
    from ram_ebpf.policy.ruleset import RuleSet
    from ram_ebpf.policy.terms import Terms
    from ram_ebpf.scopes.cgroup import ScopeError

_ENDING = 5.0  # seconds


class ReaderError(RuntimeError):
    """There is no answer, for another reason than what is in the policy."""


@dataclass(frozen=True)
class Wanted:
    """What is to be read. `file`: None for the built-in policy. `scopes`: of the command line, instead of the
    policy's; `posture`: of these. `or_last_good`: if the file is wrong, the policy that was enforced last.
    `last_good_first`: that one anyway, if there is one that can be used. `keep`: what is read is kept for
    the next start; see kept_reading.py. `directory`: what the path of the file is relative to; None:
    nothing."""

    file: str | None
    scopes: tuple[str, ...] = ()
    posture: Posture | None = None
    or_last_good: bool = False
    last_good_first: bool = False
    keep: bool = False
    directory: str | None = field(init=False)

    def __post_init__(self) -> None:
        """Raises ReaderError where the path is relative to a directory that is no more."""
        object.__setattr__(self, "directory", _directory_for(self.file))


def _directory_for(file: str | None) -> str | None:
    if file is None or os.path.isabs(file):  # noqa: PTH117 - a plain text, as it was written
        return None
    try:
        return os.getcwd()  # noqa: PTH109 - of a module that is not needed else
    except FileNotFoundError:
        raise ReaderError(
            f"{file} is meant from the working directory, which was removed: name it by its whole path"
        ) from None


@dataclass(frozen=True)
class Read:
    """What was read. `remarks`: for standard error. `problem`: with a scope of the command line."""

    policy: EnforcedPolicy
    encrypted: EncryptedNames
    remarks: tuple[str, ...] = ()
    problem: ScopeError | None = None


class PolicyReader:
    """The process, from its start to close(). It works while its caller does something else."""

    def __init__(self, wanted: Wanted) -> None:
        """Begins to read. Raises OSError where no process can be started."""
        self._process = subprocess.Popen(
            own_process.command("ram_ebpf.daemon.policy_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=own_process.DIRECTORY,
            env=own_process.environment(),
            start_new_session=True,  # so that Ctrl-C is for us
        )
        upgrade.remember_start()
        self._send(wanted)

    def read(self) -> Read:
        """The policy. Raises PolicyErrors, of its rules too, or ReaderError."""
        assert isinstance(self._process.stdout, io.BufferedReader)
        self._process.stdout.peek(1)  # waits: once it answers, or has ended, it has loaded its modules
        if upgrade.was_upgraded():
            raise ReaderError(
                "ram-ebpf was upgraded since this instance was started, which cannot read a policy with "
                "another version's files: restart it (systemctl restart ram-ebpf)"
            )
        return self._receive()  # type: ignore[no-any-return]

    def rules(self, terms: Iterable[Terms]) -> dict[Terms, RuleSet]:
        """The rules that hold under these. Raises PolicyErrors or ReaderError."""
        wanted = list(dict.fromkeys(terms))
        self._send(wanted)
        return dict(zip(wanted, self._receive(), strict=True))

    def _send(self, request: object) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(request, self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the answer will say so

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        try:
            answer = pickle.load(self._process.stdout)  # noqa: S301 - it is our own process
        except (EOFError, pickle.UnpicklingError):  # the latter where it ends amid an answer
            try:
                status = self._process.wait(_ENDING)
            except subprocess.TimeoutExpired:  # what it says is nonsense
                self._process.kill()
                status = self._process.wait()
            raise ReaderError(
                f"the process that reads the policy has ended early, with status {status}; start ram-ebpf "
                "again, and if that does not help, see what is said above and whether there is enough memory"
            ) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process, and with it all that it has taken."""
        self._process.kill()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it was not sent any more; it is closed even so
            self._process.stdin.close()
        with self._process:  # closes its other pipe, and waits
            pass

    def __enter__(self) -> PolicyReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
