"""Whether there is a responder, by the policy and by what is installed, and which one."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.responder_state import Answered, ResponderState
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.policy.choices import Mode, Switch
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.tally import Tally

if TYPE_CHECKING:
    from ram_ebpf.daemon.responding import Responder
    from ram_ebpf.responder.authority import Authority


class ResponderChoice:
    """The responder, or why there is none. One thread calls this."""

    def __init__(
        self,
        policy: PolicyLike,
        plane: Plane,
        history: NameHistory,
        served: Tally,
        say: Callable[[str, str], None],
        stay: bool,
    ) -> None:
        """`served`: counts what comes of connections that are led there. `stay`: somebody will be there."""
        self._plane, self._history, self._served = plane, history, served
        self._say = say
        self._stay = stay
        self._unanswered = ResponderState(Answered.WAITING)
        self._policy = policy
        self._depends_on = self._what_it_is_told(policy)
        self._responder: Responder | None = None

    def begin(self) -> None:
        """To be called once, when what is governed is: to load what it needs takes a while."""
        self._responder = self._make(self._policy)
        self.follow()

    @property
    def state(self) -> ResponderState:
        """Of the responder, or why there is none."""
        return self._unanswered if self._responder is None else self._responder.state

    def renew(self, policy: PolicyLike) -> None:
        """Another policy holds. Whom a refusal leads there meanwhile is told what it wants."""
        wanted = self._what_it_is_told(policy)
        if wanted == self._depends_on:
            return
        self._depends_on = wanted
        before, self._responder = self._responder, self._make(policy)
        if before is not None:
            before.stop()
        self.follow()

    def follow(self) -> None:
        """Something else may be governed than before."""
        if self._responder is not None:
            self._responder.follow(self._plane.attached)

    def tell(self) -> None:
        """Says what there is to say of it."""
        if self._responder is not None:
            self._responder.tell(self._say)

    def stop(self) -> None:
        """From now on refusals are EPERM."""
        if self._responder is not None:
            self._responder.stop()

    def _what_it_is_told(self, policy: PolicyLike) -> tuple[object, ...]:
        """At its start."""
        views = self._plane.views
        ports = {port for view in views for ports in view.tables.rules.port_lists() for port in ports}
        said = (policy.organization, policy.message, policy.mode)
        return policy.refusals, policy.recognition, said, ports

    def _make(self, policy: PolicyLike) -> Responder | None:
        """None where there is or can be none; then refusals are EPERM, and `_unanswered` says why."""
        off = self._why_off(policy)
        if off is not None:
            self._unanswered = ResponderState(Answered.OFF, why=off)
            return None
        try:
            return self._load(policy)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # cryptography's library is in Rust, whose panics are no Exception
            why = f"what it needs cannot be loaded, reinstall cryptography and pyopenssl: {error}"
            self._unanswered = ResponderState(Answered.FAILED, why=why)
            self._say("no-responder", f"refused connections are not answered but get EPERM: {why}")
            return None

    def _why_off(self, policy: PolicyLike) -> str | None:
        if not self._stay:
            return "as nobody stays, so refusals are EPERM"
        if policy.refusals.responder is Switch.OFF:
            return "as the policy says, so refusals are EPERM"
        if policy.mode is Mode.AUDIT:
            return "as nothing is refused in mode audit"
        return None

    def _load(self, policy: PolicyLike) -> Responder:
        """Raises whatever goes wrong in libraries that nothing else needs."""
        plane, history = self._plane, self._history
        from ram_ebpf.daemon.responding import Answers, Responder, ports_of
        from ram_ebpf.responder import authority_files

        if importlib.util.find_spec("OpenSSL") is None:  # which the responder's process alone loads
            raise ImportError("there is no module OpenSSL")

        def rules() -> Iterator[RuleSet]:
            return (view.tables.rules for view in plane.views)

        answering = plane.answering
        signing = self._load_authority() if authority_files.is_there() else None
        return Responder(
            policy,
            answering,
            lambda signer: Answers(policy, answering, rules, plane.tables_of, history, signer),
            ports_of(policy, rules()),
            signing,
            self._served,
        )

    def _load_authority(self) -> Authority | None:
        # Not before it is wanted: cryptography takes its time and memory.
        from ram_ebpf.responder import authority

        try:
            return authority.load()
        except authority.AuthorityError as error:
            self._say("no-authority", f"refusals are told by a name in a certificate alone: {error}")
            return None
