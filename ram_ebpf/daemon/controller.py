"""The daemon: policy to data plane, data plane to log, until it is told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ram_ebpf.daemon.asking import UNASKED, Asker
from ram_ebpf.daemon.authorizing import Authorizing
from ram_ebpf.daemon.control import ControlSocket
from ram_ebpf.daemon.ending import Ending
from ram_ebpf.daemon.following import Following, LinkWatch
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.holding import Holding, Ports
from ram_ebpf.daemon.learning import HANDED_OVER, Learner
from ram_ebpf.daemon.notify import ServiceManager
from ram_ebpf.daemon.records import Describer, RecordWriter, event_name
from ram_ebpf.daemon.refusals import LastRefusals
from ram_ebpf.daemon.repeats import Repeats
from ram_ebpf.daemon.state import State
from ram_ebpf.daemon.trust import Trust
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.cache import DEFAULT_DIRECTORY
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dns.encrypted import load_encrypted_resolvers
from ram_ebpf.dns.lookup import Answer, read_message
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.connections import Earlier
from ram_ebpf.policy.model import Mode, Policy
from ram_ebpf.policy.recognition import Unknown
from ram_ebpf.policy.refusals import Switch
from ram_ebpf.policy.rules import RuleSet
from ram_ebpf.policy.scope import Posture
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.cgroup import CgroupNames, find_cgroup2_mount
from ram_ebpf.scopes.target import Target, Watch

if TYPE_CHECKING:
    from ram_ebpf.daemon.responding import Responder

_log = logging.getLogger(__name__)

_QUEUE_PERIOD = 0.1  # seconds between looks into the queue of events that can wait, which wakes nobody
_CLEANING_PERIOD = 60.0
_HTTPS = 443
_LAST_WORDS = 2.0  # seconds in which events are still told after a signal
_SEEDING_PATIENCE = 5.0  # seconds that the first round may take before enforcement begins anyway
# Replies from which it is known which name an address belongs to, whether or not it is allowed.
_TELLING = frozenset(
    {
        abi.Reason.DNS_LEARNED,
        abi.Reason.DNS_NOT_LISTED,
        abi.Reason.DNS_PRIVATE_ADDRESS,
        abi.Reason.DNS_RECOGNISED,
    }
)


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    log_dns: bool = False
    cache_directory: Path = DEFAULT_DIRECTORY


def settings_of(policy: Policy) -> Settings:
    """What the programs are told of a policy beside its rules."""
    return Settings(
        mode=abi.Mode.AUDIT if policy.mode is Mode.AUDIT else abi.Mode.ENFORCE,
        grace=policy.dns.grace_seconds,
        minimum_ttl=policy.dns.minimum_ttl_seconds,
        maximum_ttl=policy.dns.maximum_ttl_seconds,
        allowed_names_only=policy.dns.allowed_names_only,
        unknown=abi.Unknown[policy.recognition.unknown.name],
        registry_ports=policy.recognition.registry_ports,
        asked_ports=policy.recognition.unknown_ports,
        read_names=policy.connections.read_names,
        cut_earlier=policy.connections.earlier is Earlier.CUT,
    )


def posture_of(terms: Terms) -> abi.Posture:
    """As the programs know it."""
    return abi.Posture[terms.posture.name]


class Controller:
    """One policy on some scopes, from `run` until a signal."""

    def __init__(
        self,
        policy: Policy,
        rules: Mapping[Terms, RuleSet],
        writer: RecordWriter,
        options: Options | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        """Loads everything and attaches nothing. Raises what Plane raises.

        `rules`: those that hold where these terms do; at least one. `manager`: who has started us.
        """
        self._policy = policy
        self._manager = manager or ServiceManager()
        self._rules = rules
        self._writer = writer
        self._options = options or Options()
        self._settings = settings_of(policy)
        self._trust = Trust(policy, self._say)
        self._stop = threading.Event()
        self._history = NameHistory()
        self._repeats = Repeats()
        self._encrypted = load_encrypted_resolvers()
        (first, its_rules), *others = rules.items()
        self._plane = Plane(
            its_rules,
            self._settings,
            self._trust.resolvers,
            self._options.cache_directory,
            posture=posture_of(first),
        )
        self._views = {first: self._plane.views[0]}
        try:
            for terms, their_rules in others:
                self._views[terms] = self._plane.open_view(their_rules, posture_of(terms))
            self._plane.know_encrypted_resolvers(self._encrypted.addresses)
            self._events = EventSource(self._plane)
        except BaseException:
            self._plane.close()
            raise
        mount = find_cgroup2_mount()
        names = CgroupNames(mount)
        self._describer = Describer(self._plane.tables_of, self._history, names.path, policy.message)
        self._ending = Ending(names.directory)
        self._learner = Learner(self._plane, self._settings, self._history, lambda: self._trust.resolvers)
        self._asker: Asker | None = None
        if policy.recognition.unknown is not Unknown.ALLOW and any(
            terms.posture is Posture.REGISTRIES for terms in rules
        ):
            self._asker = Asker(self._plane, self._history, self._settings.asked_ports, self._say)
        self._authorizing: Authorizing | None = None
        self._responder = self._make_responder()
        self._unasked: list[Event] = []
        self._told_lost = 0
        self._untold = 0
        self._last_moment = float("inf")

    def _make_responder(self) -> Responder | None:
        policy, plane, history = self._policy, self._plane, self._history
        if policy.refusals.responder is Switch.OFF or policy.mode is Mode.AUDIT:
            return None
        # Not before it is wanted: cryptography takes its time and memory.
        from ram_ebpf.daemon.responding import Answers, Responder, ports_of
        from ram_ebpf.responder import authority

        def rules() -> Iterator[RuleSet]:
            return (view.tables.rules for view in plane.views)

        try:
            signing = authority.load()
        except authority.AuthorityError as error:
            signing = None
            self._say("no-authority", f"refusals are told by a name in a certificate alone: {error}")
        return Responder(
            policy,
            plane.answering,
            lambda signer: Answers(policy, plane.answering, rules, plane.tables_of, history, signer),
            ports_of(policy, rules()),
            signing,
        )

    def run(
        self,
        targets: Sequence[Target],
        watches: Sequence[Watch] = (),
        ports: Ports | None = None,
        containers: bool = False,
    ) -> None:
        """Governs the targets until SIGTERM or SIGINT; detaches everything on the way out.

        `watches` tell when the targets may have changed, beside devices that come and go. `ports`: where
        containers come that may belong to a target. `containers`: whether any are expected.
        Raises what Plane.attach and Plane.attach_device raise; nothing stays attached then either.
        """
        control = self._open_control()
        following = Following(
            self._plane, self._views, targets, self._say, lambda: self._trust.apply(self._plane)
        )
        holding = (
            Holding(self._plane, ports, following.failed_devices, self._say) if ports is not None else None
        )
        self._describer.scope_label = following.label_of
        self._authorizing = self._open_authorizing(following)
        refusals = LastRefusals()
        self._writer.note = refusals.note
        state = State(
            self._policy, self._plane, following, find_cgroup2_mount(), self._request_counters, refusals
        )
        with self._signals() as wake:
            try:
                self._trust.apply(self._plane)
                self._learner.start()
                self._wait_for_seeds()
                if not self._stop.is_set():
                    self._pin()
                    used = {self._views[item.terms] for item in targets if item.at_devices}
                    if containers or used:  # the first device that comes is not to wait for a compiler
                        self._plane.prepare_devices(used)
                    if holding is not None:
                        holding.prepare()
                        holding.look()
                    following.begin()
                    if holding is not None:
                        holding.begin()
                    self._plane.remove_unused_pins()
                    self._begin_authorizing()
                    if self._responder is not None:
                        self._responder.start()
                    self._ready()
                    self._manager.ready(self._summary())
                    self._serve(wake, following, watches, holding, control, state)
            finally:
                self._manager.stopping()
                if control is not None:
                    control.close()
                if self._authorizing is not None:
                    self._authorizing.close()
                if self._responder is not None:
                    self._responder.stop()
                self._shut_down()

    def _open_authorizing(self, following: Following) -> Authorizing | None:
        if not self._policy.docker.authorization:
            return None

        def innermost(cgroup: Path) -> tuple[str, Terms] | None:
            found = following.innermost(cgroup)
            return None if found is None else (found[0], following.terms_of(found[0]))

        return Authorizing(self._policy, load_catalogue(), self._rules, innermost, find_cgroup2_mount())

    def _begin_authorizing(self) -> None:
        try:
            if self._authorizing is not None:
                self._authorizing.begin()
        except OSError as error:
            self._say(
                "no-plugin",
                "the authorization plugin is not served, so an engine that is told to ask it refuses "
                f"everything; what is enforced in the kernel is not affected: {error}",
            )

    def _request_counters(self) -> dict[str, int]:
        return self._authorizing.counters() if self._authorizing is not None else {}

    def _wait_for_seeds(self) -> None:
        deadline = time.monotonic() + _SEEDING_PATIENCE
        while time.monotonic() < deadline and not self._stop.is_set():
            if self._learner.wait_first_round(_QUEUE_PERIOD):
                return

    def _pin(self) -> None:
        try:
            self._plane.pin()
        except OSError as error:
            self._say(
                "unpinned",
                "if ram-ebpf is killed, everything in its scopes is refused until it is started again: "
                f"{error}",
            )

    def _ready(self) -> None:
        tables = self._plane.tables
        places = self._governed()
        postures = sorted({terms.posture.value for terms in self._views})
        self._writer.write(
            {
                "event": "ready",
                "mode": self._policy.mode.value,
                "scopes": places,
                "resolvers": [str(resolver.address) for resolver in self._trust.resolvers],
                "postures": postures,
                "rules": len(tables.rules.names) + len(tables.rules.addresses),
                "compiled": not self._plane.from_cache,
                **self._plugin(),
                "explanation": (
                    f"governing {', '.join(places) or 'nothing yet'} ({self._policy.mode.value})"
                ),
            }
        )

    def _summary(self) -> str:
        count = len(self._plane.attached) + len(self._plane.attached_devices)
        places = "nothing yet" if count == 0 else "1 place" if count == 1 else f"{count} places"
        return f"governing {places} ({self._policy.mode.value})"

    def _plugin(self) -> dict[str, str]:
        place = self._authorizing.place if self._authorizing is not None else None
        return {} if place is None else {"docker_plugin": str(place)}

    def _governed(self) -> list[str]:
        return [
            *map(str, self._plane.attached),
            *(f"device {device}" for device in self._plane.attached_devices),
        ]

    def _say(self, event: str, explanation: str, **more: Any) -> None:
        self._writer.write({"event": event, "explanation": explanation, **more})

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """SIGTERM and SIGINT make the returned descriptor readable and end the loop."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop.set()

        previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield reader
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)
            os.close(reader)
            os.close(writer)

    def _open_control(self) -> ControlSocket | None:
        try:
            return ControlSocket()
        except OSError as error:
            self._say("no-control", f"`ram-ebpf status` cannot ask this instance: {error}")
            return None

    def _serve(
        self,
        wake: int,
        following: Following,
        watches: Sequence[Watch],
        holding: Holding | None,
        control: ControlSocket | None,
        state: State,
    ) -> None:
        next_cleaning = time.monotonic()
        with selectors.DefaultSelector() as selector, contextlib.closing(LinkWatch()) as links:
            watches = [links, *watches]
            for descriptor in (wake, *(watch.fileno() for watch in watches), *self._events.descriptors):
                selector.register(descriptor, selectors.EVENT_READ)
            for other in (control, self._authorizing):
                if other is not None:
                    selector.register(other, selectors.EVENT_READ)
            following.follow(hurry=True)  # what came before anybody watched
            while not self._stop.is_set():
                selector.select(_QUEUE_PERIOD)
                self._plane.show_alive()
                self._manager.alive()
                news = [watch.has_news() for watch in watches]
                looking = holding if holding is not None and (any(news) or holding.is_holding) else None
                if looking is not None:
                    looking.look()
                following.follow(any(news) or looking is not None)
                if looking is not None:
                    looking.act()
                self._drain()
                self._tell_of_requests()
                if control is not None and control.has_news():
                    control.answer_with(state.answer)
                self._trust.follow(self._plane)
                self._manager.status(self._summary())
                now = time.monotonic()
                if now >= next_cleaning:
                    next_cleaning = now + _CLEANING_PERIOD
                    self._learner.remove_expired()

    def _tell_of_requests(self) -> None:
        if self._authorizing is not None:
            for record in self._authorizing.records():
                self._writer.write(record)

    def _drain(self) -> None:
        self._events.drain(self._take_in_time)
        if self._asker is not None:
            # Behind the replies that say which names these addresses have.
            for event in self._unasked:
                try:
                    self._asker.take(event)
                except Exception:  # as in _take
                    _log.exception("it could not be asked what is at %s", event.address)
            self._asker.tell()
        self._unasked.clear()
        if self._responder is not None:
            self._responder.cgroups = self._plane.attached
            self._responder.tell(self._say)
        lost = self._events.lost + self._events.malformed + self._untold
        if lost > self._told_lost:
            self._say(
                "events-lost",
                f"{lost - self._told_lost} events came too fast to be read; enforcement is not affected",
                count=lost - self._told_lost,
            )
            self._told_lost = lost

    def _take_in_time(self, event: Event) -> None:
        """At the end whoever has asked for it does not wait until thousands of events are told."""
        if self._stop.is_set():
            self._last_moment = min(self._last_moment, time.monotonic() + _LAST_WORDS)
            if time.monotonic() > self._last_moment:
                self._untold += 1
                return
        self._take(event)

    def _take(self, event: Event) -> None:
        """Tells of one event. Packets are written by strangers: no surprise in one may end enforcement."""
        try:
            self._tell(event)
        except Exception:
            _log.exception("an event could not be told: %s", event.reason.slug)

    def _tell(self, event: Event) -> None:
        if event.reason is abi.Reason.DNS_OVER_TCP:
            self._learner.take_query(event)
        # What leaves is a client's, whatever it looks like: only what comes in may be an answer.
        incoming = event.dns_message if event.incoming else None
        answer = read_message(incoming) if incoming else None
        if answer is not None and event.reason in _TELLING:
            self._history.note(answer)
            self._note_encrypted(answer)
            if self._asker is not None:
                self._asker.note(answer)
        if event.reason in UNASKED:
            self._unasked.append(event)
        self._ending.take(event)
        event = self._with_encrypted(event)
        record = self._describer.describe(event, answer)
        if event.reason in HANDED_OVER and event.rule and record.get("host"):
            self._learner.ask_again(record["host"], event)
            if event.reason is abi.Reason.DNS_UNTRUSTED_SENDER:
                self._trust.hurry()
        wanted = self._options.log_dns or (
            event_name(event) != "dns" and event.reason is not abi.Reason.ALLOWED_UNASKED
        )
        if wanted and self._repeats.passes(event, record):
            self._writer.write(record)

    def _note_encrypted(self, answer: Answer) -> None:
        """Who resolves the name of such a resolver is about to turn to it."""
        if self._encrypted.serves(answer.name):
            with contextlib.suppress(OSError):  # no room: such a refusal then only says "unknown address"
                self._plane.know_encrypted_resolvers(address for address, _ in answer.addresses)

    def _with_encrypted(self, event: Event) -> Event:
        """A connection may come before the kernel knows what the reply told; the reason is the same."""
        if event.reason is not abi.Reason.DENIED_UNKNOWN_ADDRESS or event.port != _HTTPS:
            return event
        name = self._history.name_of(event.address)
        if name is None or not self._encrypted.serves(name):
            return event
        return replace(event, reason=abi.Reason.DENIED_DNS_OVER_HTTPS)

    def _shut_down(self) -> None:
        self._learner.stop()
        attached = self._governed()
        counters = {}
        with contextlib.suppress(OSError):
            self._drain()
            self._tell_of_requests()
            counters = {reason.slug: count for reason, count in sorted(self._plane.counters().items())}
            counters |= self._request_counters()
        self._events.close()
        self._plane.close()
        if attached:
            where = ", ".join(attached)
            self._say(
                "stopped", f"detached from {where}; nothing is enforced there any more", counters=counters
            )
