"""Keeps the responder's process running, tells it what to say, and signs for it.

What the process asks is taken for a stranger's: it may be one that has taken it over. All that it can get is
the text of a refusal, and certificates for names that no rule allows.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import queue
import socket
import subprocess
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ram_ebpf import own_process
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.records import rule_text
from ram_ebpf.daemon.responder_namespaces import Namespaces
from ram_ebpf.daemon.responder_state import SERVED, Answered, ResponderState
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.answering import Answering, Destination, Refused
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.names import normalise
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.responder import channel, listening, message, wording
from ram_ebpf.tally import Tally

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from ram_ebpf.responder.authority import Authority

# Where registries are, beside the ports of the policy. Those on which servers speak first (22, 25) are not
# among them.
USUAL_PORTS = frozenset({80, 443, 5000, 8080, 8443})
_NOT_HTTP = frozenset({53, 853})

_PATIENCE = 4.0  # seconds without a word, after which the process is taken for dead
_START_PATIENCE = 60.0  # until its first word; a guest without acceleration is slow
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds between attempts
_LOOK_PERIOD = 1.0  # seconds between looks for network namespaces
_MOST_SIGNED = 256  # certificates that are kept
_REUSED = 120.0  # seconds for which one is shown again
_SIGNATURES = 20.0  # a second, over the long run; who asks for more gets the message alone
_SIGNATURES_AT_ONCE = 100.0

Say = Callable[[str, str], None]
_log = logging.getLogger(__name__)


class Signer:
    """Certificates for refused names, as many as a person could cause and no more. One thread calls this."""

    def __init__(self, authority: Authority, key: ec.EllipticCurvePublicKey) -> None:
        from ram_ebpf.responder import certificates  # with cryptography, which only an authority needs

        self._to_der = certificates.to_der
        self._authority = authority
        self._key = key
        self._signed: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._left = _SIGNATURES_AT_ONCE
        self._counted = time.monotonic()

    def chain(self, name: str) -> tuple[bytes, ...]:
        """For a name in lower case that the caller knows to be refused; nothing when there are too many."""
        if self._authority.excludes(name):
            return ()
        now = time.monotonic()
        known = self._signed.get(name)
        if known is None or now > known[1]:
            self._left = min(self._left + (now - self._counted) * _SIGNATURES, _SIGNATURES_AT_ONCE)
            self._counted = now
            if self._left < 1:
                return ()
            self._left -= 1
            made = self._to_der(self._authority.sign(name, self._key))
            self._signed[name] = known = (made, now + _REUSED)
        self._signed.move_to_end(name)
        while len(self._signed) > _MOST_SIGNED:
            self._signed.popitem(last=False)
        return known[0], self._to_der(self._authority.certificate)

    def __len__(self) -> int:
        return len(self._signed)


class Answers:
    """What is said to whom. One thread calls this."""

    def __init__(
        self,
        policy: PolicyLike,
        answering: Answering,
        rules: Callable[[], Iterable[RuleSet]],
        tables_of: Callable[[int], Tables],
        history: NameHistory,
        signer: Signer | None,
    ) -> None:
        """`rules`: all that hold somewhere on this host; `tables_of`: by the number of a scope."""
        self._policy = policy
        self._answering = answering
        self._rules = rules
        self._tables_of = tables_of
        self._history = history
        self._signer = signer

    def reply(self, question: channel.Question) -> channel.Reply:
        """To one question."""
        refused = self._refused(question)
        name = normalise(question.name) if question.name else None
        if name is None and refused is not None:
            name = self._history.name_of(refused.address)
        host = name or (str(refused.address) if refused is not None else "this host")
        detail: dict[str, object] = {"host": host}
        if refused is not None:
            detail |= {
                "address": str(refused.address),
                "port": refused.port,
                "reason": refused.reason.slug,
            }
        text = self._text(host, name, refused)
        return channel.Reply(question.number, text, detail, self._chain(name, refused))

    def _refused(self, question: channel.Question) -> Refused | None:
        try:
            client = ipaddress.ip_address(question.client.partition("%")[0])
            return self._answering.take(client, question.port)
        except (ValueError, OSError):
            return None

    def _text(self, host: str, name: str | None, refused: Refused | None) -> str:
        organization, message = self._policy.organization, self._policy.message
        rule = None
        if name is not None and refused is not None:
            found = self._tables_of(refused.scope).rules.match(name)
            if found is not None and not found.deny:
                where = (
                    f"not on port {refused.port}"
                    if refused.reason is abi.Reason.DENIED_PORT
                    else f"not at {refused.address}, which no trusted resolver gave for it"
                )
                text = f"{host} is allowed by the registry policy ({rule_text(found)}), but {where}."
                return f"{text} {message}" if message else text
            if found is not None and not found.known:
                rule = rule_text(found)
        return wording.sentence(host, organization, rule, message)

    def _chain(self, name: str | None, refused: Refused | None) -> tuple[bytes, ...]:
        """Only for what was refused a moment ago, and for no name that is allowed anywhere on this host."""
        if self._signer is None or refused is None or name is None or "." not in name:
            return ()
        if any(rules.allows(name) is not None for rules in self._rules()):
            return ()
        return self._signer.chain(name)


def ports_of(policy: PolicyLike, rules: Iterable[RuleSet]) -> frozenset[int]:
    """On which a refusal is answered in the words of a registry."""
    mentioned = {port for its in rules for ports in its.port_lists() for port in ports}
    recognition = policy.recognition
    all_ports = USUAL_PORTS | mentioned | {*recognition.registry_ports, *recognition.unknown_ports}
    return frozenset(all_ports - _NOT_HTTP)


class Responder:
    """The process and the thread that talks to it, from the first follow() with a control group to stop()."""

    def __init__(
        self,
        policy: PolicyLike,
        answering: Answering,
        answers: Callable[[Signer | None], Answers],
        ports: frozenset[int],
        authority: Authority | None,
        served: Tally | None = None,
    ) -> None:
        """`served`: counts connections by the fields of channel.Served."""
        self._served = served or Tally(*SERVED)
        self._before = channel.Served()  # of the process that runs
        self._message = (wording.blocked_name(policy.organization, policy.message), policy.organization)
        self._answering = answering
        self._make_answers = answers
        self._authority = authority
        self._ports = ports
        self._stop = threading.Event()
        self._notes: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._end: socket.socket | None = None
        self._cgroups: tuple[Path, ...] = ()
        self.state = ResponderState(Answered.WAITING)
        """Replaced as a whole by this object's thread, so that others may read it."""
        self._thread = threading.Thread(target=self._run, name="responder", daemon=True)

    def follow(self, cgroups: tuple[Path, ...]) -> None:
        """Those that are governed now; their processes may be in other network namespaces.

        With the first one it begins; refusals are EPERM until the process is ready.
        """
        self._cgroups = cgroups
        if cgroups and self.state.state is Answered.WAITING:
            self.state = ResponderState(Answered.STARTING)
            self._thread.start()

    def tell(self, say: Say) -> None:
        """Says what there is to say, in the thread that calls this."""
        while not self._notes.empty():  # nobody else takes any
            say(*self._notes.get_nowait())

    def stop(self) -> None:
        """From now on refusals are EPERM, and the process ends."""
        self._stop.set()
        with contextlib.suppress(OSError):
            self._answering.stop()
        end = self._end
        if end is not None:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._prepare()
        except (message.MessageError, OSError) as error:
            self.state = ResponderState(Answered.FAILED, why=str(error))
            self._notes.put(("no-responder", f"refused connections are not answered but get EPERM: {error}"))
            return
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                problem = self._serve()
            except (OSError, subprocess.SubprocessError) as error:
                problem = str(error)
            except Exception as error:  # without this thread nobody would be answered any more, nor know why
                _log.exception("the responder's thread")
                problem = repr(error)
            finally:
                with contextlib.suppress(OSError):
                    self._answering.stop()
            if self._stop.is_set():
                return
            self.state = ResponderState(Answered.FAILED, why=problem)
            if time.monotonic() - started > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            self._notes.put(
                (
                    "no-responder",
                    f"refused connections are not answered but get EPERM; tried again in {pause:.0f} s: "
                    f"{problem}",
                )
            )
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _prepare(self) -> None:
        """What is said first to each process, and who answers its questions."""
        self._first = message.make(*self._message)
        signer = None
        if self._authority is not None:
            from ram_ebpf.responder.certificates import public_key_of

            signer = Signer(self._authority, public_key_of(self._first.key_pem))
        self._answers = self._make_answers(signer)

    def _serve(self) -> str:
        """One process, from its start to its end; says why that came."""
        end, others = channel.pair()
        with end, others:
            with contextlib.closing(listening.listen()) as listeners:
                process = self._spawn(others, listeners)
            others.close()
            try:
                self._end = end
                if self._stop.is_set():
                    return "stopped"
                end.settimeout(_START_PATIENCE)
                end.send(self._first.pack())
                if not _begins(end):
                    return "its process has ended at once, and may have said why on standard error"
                end.settimeout(_PATIENCE)
                if (unreachable := listening.unreachable(listeners)) is not None:
                    return unreachable
                self._answering.lead_to(
                    Destination(
                        listening.IPV4, listening.IPV6, listeners.port, listeners.priority, self._ports
                    )
                )
                self._note_places(listeners, None)
                self._notes.put(
                    (
                        "responder",
                        f"refused connections are answered at {listening.IPV4}:{listeners.port}",
                    )
                )
                return self._talk(end, listeners)
            finally:
                self._end = None
                with contextlib.suppress(OSError):
                    self._answering.stop()
                process.kill()
                process.wait()

    def _spawn(self, end: socket.socket, listeners: listening.Listening) -> subprocess.Popen[bytes]:
        numbers = [item.fileno() for item in (end, *listeners.sockets)]
        return subprocess.Popen(
            own_process.command("ram_ebpf.responder.process", *map(str, numbers)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=own_process.environment(),
            cwd=own_process.DIRECTORY,
            pass_fds=numbers,
        )

    def _note_places(self, listeners: listening.Listening, others: Namespaces | None) -> None:
        self.state = ResponderState(
            Answered.ON,
            listeners.endpoints,
            0 if others is None else len(others),
            0 if others is None else others.without,
            None if others is None else others.why,
        )

    def _talk(self, end: socket.socket, listeners: listening.Listening) -> str:
        namespaces = Namespaces(end, listeners)
        self._before = channel.Served()
        next_look = time.monotonic()
        told: tuple[int, int, str | None] | None = None
        while True:
            try:
                packet = end.recv(channel.LONGEST)
            except TimeoutError:
                return f"its process has said nothing for {_PATIENCE:.0f} s"
            except ConnectionError:
                packet = b""
            if not packet:
                return "its process has ended"
            if packet != channel.ALIVE:
                try:
                    if (served := channel.Served.unpack(packet)) is not None:
                        self._count(served)
                    else:
                        end.send(self._answers.reply(channel.Question.unpack(packet)).pack())
                except channel.ChannelError as error:
                    return f"its process has sent nonsense: {error}"
            if time.monotonic() >= next_look:
                if (problem := namespaces.follow(self._cgroups)) is not None:
                    self._notes.put(("no-responder", f"refused connections get EPERM in {problem}"))
                if (len(namespaces), namespaces.without, namespaces.why) != told:
                    told = len(namespaces), namespaces.without, namespaces.why
                    self._note_places(listeners, namespaces)
                next_look = time.monotonic() + _LOOK_PERIOD

    def _count(self, served: channel.Served) -> None:
        """Those of a process that has ended stay counted."""
        for name in SERVED:
            more = getattr(served, name) - getattr(self._before, name)
            self._served.add(name, max(more, 0))
        self._before = served


def _begins(end: socket.socket) -> bool:
    """Whether the process is ready, which is the first that it says; False where it has ended instead."""
    try:
        return end.recv(channel.LONGEST) == channel.ALIVE
    except ConnectionError:  # what it was told has not been read
        return False
