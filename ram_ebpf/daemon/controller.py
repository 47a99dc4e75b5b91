"""The daemon: policy to data plane, data plane to log, until it is told to stop."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ram_ebpf.collection import give_back
from ram_ebpf.daemon import last_good
from ram_ebpf.daemon.completing import Completing
from ram_ebpf.daemon.control import ControlSocket
from ram_ebpf.daemon.decisions import Decisions
from ram_ebpf.daemon.ending import CAUSES, Ending
from ram_ebpf.daemon.exporting import Exports
from ram_ebpf.daemon.file_mark import FileMark, mark_of
from ram_ebpf.daemon.following import Following, LinkWatch
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.holding import Holding, Ports
from ram_ebpf.daemon.learning import Learner
from ram_ebpf.daemon.losses import Losses
from ram_ebpf.daemon.measuring import Measuring
from ram_ebpf.daemon.notify import ServiceManager
from ram_ebpf.daemon.program_settings import posture_of, settings_of
from ram_ebpf.daemon.receiving import Concerned, Receiving
from ram_ebpf.daemon.records import Describer, RecordWriter
from ram_ebpf.daemon.refusals import LastRefusals
from ram_ebpf.daemon.reload_history import ReloadHistory
from ram_ebpf.daemon.reloading import Loaded, Prepared, Reloading
from ram_ebpf.daemon.responder_choice import ResponderChoice
from ram_ebpf.daemon.responder_state import SERVED
from ram_ebpf.daemon.signals import Signals
from ram_ebpf.daemon.telling import Telling
from ram_ebpf.daemon.trust import Trust
from ram_ebpf.daemon.waiting import Waiting
from ram_ebpf.daemon.warnings import Warnings
from ram_ebpf.dataplane.cache import DEFAULT_DIRECTORY
from ram_ebpf.dataplane.events import EventSource
from ram_ebpf.dataplane.groundwork import Ahead
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dns.encrypted_names import EncryptedNames
from ram_ebpf.dns.resolvers import resolvers_of
from ram_ebpf.dns.seeding import RESULTS
from ram_ebpf.endpoint import endpoint_text
from ram_ebpf.metrics.sample import Sample
from ram_ebpf.policy.choices import Posture, Unknown
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.cgroup import CgroupNames, find_cgroup2_mount
from ram_ebpf.scopes.target import Target, Watch
from ram_ebpf.tally import Tally

if TYPE_CHECKING:
    from ram_ebpf.daemon.authorizing import Authorizing
    from ram_ebpf.daemon.state import State
    from ram_ebpf.daemon.summing import Summing
    from ram_ebpf.metrics.scraping import Snapshot

_log = logging.getLogger(__name__)

_QUEUE_PERIOD = 0.1  # seconds between looks into the queue of events that can wait, which wakes nobody
_ALIVE_PERIOD = 1.0  # seconds between signs of life, of which the programs miss one that is 3 seconds old
_CLEANING_PERIOD = 60.0
_SEEDING_PATIENCE = 5.0  # seconds that the first round may take before enforcement begins anyway
_BESIDE_SECONDS = 2.0  # in which a name is looked up and connected to, beside another version that refuses
_REQUESTS_LOST = "refusals by the authorization plugin came too fast to be written"


@dataclass(frozen=True)
class Options:
    """What the command line decides."""

    log_dns: bool = False
    cache_directory: Path = DEFAULT_DIRECTORY
    policy_file: Path | None = None
    """Which `load` reads."""
    policy_mark: FileMark = None
    """Of that file before it was read."""
    stay: bool = True
    """Whether there will be somebody to tell those who are refused."""


class Controller:
    """One policy on some scopes, from `run` until a signal."""

    def __init__(
        self,
        policy: PolicyLike,
        rules: Mapping[Terms, RuleSet],
        writer: RecordWriter,
        options: Options | None = None,
        load: Callable[[], Loaded] | None = None,
        manager: ServiceManager | None = None,
        encrypted: EncryptedNames | None = None,
        judged: Mapping[Terms, RuleSet] | None = None,
        ground: Ahead | None = None,
    ) -> None:
        """Loads everything and attaches nothing. Raises what Plane raises.

        `rules`: those that hold where these terms do; at least one. `load`: reads the policy again, for a
        reload; None: there will be none. It is called in another thread, and may raise anything. `manager`:
        who has started us. `encrypted`: resolvers by which names are resolved unseen. `judged`: as of Loaded.
        `ground`: as of Plane, which somebody else has begun.
        """
        self._policy = policy
        self._manager = manager or ServiceManager()
        self._rules = rules
        self._writer = writer
        self._options = options or Options()
        self._settings = settings_of(policy)
        self._warnings = Warnings()
        self._trust = Trust(policy, self._say)
        self._signals = Signals()
        self._stop = self._signals.stop
        self._history = NameHistory()
        self._judged = judged or {}
        (first, its_rules), *others = rules.items()
        self._plane = Plane(
            its_rules,
            self._settings,
            self._trust.resolvers,
            self._options.cache_directory,
            posture=posture_of(first),
            ground=None if ground is None else ground.take(),
        )
        self._views = {first: self._plane.views[0]}
        self._completing = Completing(self._plane)
        try:
            for terms, their_rules in others:
                self._views[terms] = self._plane.open_view(their_rules, posture_of(terms))
            encrypted = encrypted or EncryptedNames(frozenset(), frozenset())
            self._plane.know_encrypted_resolvers(encrypted.addresses)
            events = EventSource(self._plane)
        except BaseException:
            self._plane.close()
            raise
        mount = find_cgroup2_mount()
        names = CgroupNames(mount)
        self._describer = Describer(self._plane.tables_of, self._history, names.path, policy.message)
        self._cut, self._lookups, self._served = Tally(*CAUSES), Tally(*RESULTS), Tally(*SERVED)
        self._decisions = Decisions()
        self._reloads = ReloadHistory(successful=not last_good.is_kept(policy))
        self._measuring = Measuring(self._say)
        ending = Ending(names.directory, lambda: self._plane.settled_ns, self._cut)
        learner = Learner(
            self._plane,
            self._settings,
            self._history,
            lambda: self._trust.resolvers,
            lookups=self._lookups,
        )
        self._losses = Losses(self._say)
        self._telling = Telling(
            self._describer, writer.write, self._losses, policy.log, self._options.log_dns
        )
        self._exports = Exports(self._say)
        self._concerned = Concerned(
            trust=self._trust,
            learner=learner,
            asker=None,
            history=self._history,
            ending=ending,
            describer=self._describer,
            telling=self._telling,
            losses=self._losses,
        )
        self._receiving = Receiving(events, self._plane, encrypted, self._concerned, self._stop)
        self._make_asker()
        self._authorizing: Authorizing | None = None
        self._responder = ResponderChoice(
            policy, self._plane, self._history, self._served, self._say, self._options.stay
        )
        self._control: ControlSocket | None = None
        self._load = load
        file = self._policy_file()
        used = None if file is None else self._options.policy_mark or mark_of(file)
        self._reloading = Reloading(file, self._prepare, used)
        self._summing: Summing | None = None
        self._is_left = False  # what is enforced is to outlive this instance
        self._next_sign = time.monotonic()

    def _make_asker(self) -> None:
        if self._policy.recognition.unknown is Unknown.ALLOW or not any(
            terms.posture is Posture.REGISTRIES for terms in self._rules
        ):
            before, self._concerned.asker = self._concerned.asker, None
            if before is not None:
                before.close()
        elif self._concerned.asker is None:
            from ram_ebpf.daemon.asking import Asker  # with an HTTP client, which others do without

            self._concerned.asker = Asker(
                self._plane, self._history, self._settings.asked_ports, self._say, self._cut
            )
        else:
            self._concerned.asker.renew(self._settings.asked_ports)

    def _policy_file(self) -> Path | None:
        return self._options.policy_file if self._load is not None else None

    def attach_and_leave(self, targets: Sequence[Target]) -> None:
        """Governs what is there of the targets, and lets it be: as an instance leaves it that is killed.

        Raises what Plane.attach and Plane.attach_device raise, and OSError where nothing can be pinned;
        nothing stays attached then.
        """
        following = Following(
            self._plane, self._views, targets, self._say, lambda: self._trust.apply(self._plane)
        )
        try:
            self._completing.finish()  # there will be nobody to do it
            self._trust.apply(self._plane)
            self._plane.pin()
            following.begin()
            self._plane.settle()
            self._plane.remove_unused_pins()
            self._ready()
            self._is_left = True
        finally:
            self._end()

    def run(
        self,
        targets: Sequence[Target],
        watches: Sequence[Watch] = (),
        ports: Ports | None = None,
        containers: bool = False,
    ) -> None:
        """Governs the targets until SIGTERM or SIGINT; detaches everything on the way out. At SIGUSR1 what is
        enforced is left to the next instance.

        `watches` tell when the targets may have changed, beside devices that come and go. `ports`: where
        containers come that may belong to a target. `containers`: whether any are expected.
        Raises what Plane.attach and Plane.attach_device raise; nothing stays attached then either, unless
        another instance had left something. What it raises later leaves what is enforced.
        """
        self._control = control = self._open_control()
        following = Following(
            self._plane, self._views, targets, self._say, lambda: self._trust.apply(self._plane)
        )
        self._watches = [*watches]
        self._holding = holding = (
            Holding(self._plane, ports, following.failed_devices, self._say) if ports is not None else None
        )
        self._describer.scope_label = following.label_of
        self._authorizing = self._open_authorizing(following)
        refusals = LastRefusals()

        def note(record: dict[str, Any]) -> None:
            refusals.note(record)
            self._exports.put(record)

        self._writer.note = note
        self._exports.use(self._policy.export)
        with self._signals.handled() as wake:
            try:
                self._trust.apply(self._plane)
                self._concerned.learner.start()
                self._wait_for_seeds()
                if not self._stop.is_set():
                    self._pin()
                    self._tell_of_strangers()
                    used = {self._views[item.terms] for item in targets if item.at_devices}
                    if containers or used:  # the first device that comes is not to wait for a compiler
                        self._plane.prepare_devices(used)
                    if holding is not None:
                        holding.prepare()
                        holding.look()
                    self._begin_governing(following)
                    if holding is not None:
                        holding.begin()
                    self._plane.settle()
                    self._plane.remove_unused_pins()
                    self._begin_authorizing()
                    self._ready()
                    self._manager.ready(self._summary())
                    self._completing.begin()
                    self._responder.begin()
                    self._keep_policy()
                    self._measuring.use(self._policy.metrics)
                    self._is_left = True  # whatever goes wrong from now on
                    self._state = state = self._open_state(following, refusals)
                    give_back()
                    self._serve(wake, following, control, state)
                self._is_left = self._signals.is_to_leave
            finally:
                self._manager.stopping()
                if control is not None:
                    control.close()
                self._measuring.close()
                if self._authorizing is not None:
                    self._authorizing.close()
                self._responder.stop()
                self._end()
                if self._summing is not None:
                    self._summing.close()
                self._exports.close()
                self._exports.tell(self._losses)
                self._telling.report(at_once=True)

    def _open_state(self, following: Following, refusals: LastRefusals) -> State:
        """What is told to those who ask. Loaded and made behind the start: nobody is answered before."""
        from ram_ebpf.daemon.state import State
        from ram_ebpf.daemon.summing import Summing

        state = State(
            self._policy,
            self._plane,
            following,
            find_cgroup2_mount(),
            lambda: self._responder.state,
            self._request_counters,
            refusals,
            self._history,
            self._warnings,
            lambda: [endpoint_text(each.address, each.port) for each in self._trust.resolvers],
        )
        state.reload = self._reload_on_request
        file = self._options.policy_file
        self._summing = state.summing = Summing(None if file is None else str(file), self._say)
        self._telling.sum_up = self._summing.note
        state.log_counters = self._telling.counters
        return state

    def _open_authorizing(self, following: Following) -> Authorizing | None:
        if not self._policy.docker.authorization:
            return None
        from ram_ebpf.daemon.authorizing import Authorizing

        def innermost(cgroup: Path) -> tuple[str, Terms] | None:
            found = following.innermost(cgroup)
            return None if found is None else (found[0], following.terms_of(found[0]))

        return Authorizing(self._policy, self._judged, innermost, find_cgroup2_mount())

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
            if self._concerned.learner.wait_first_round(_QUEUE_PERIOD):
                return

    def _pin(self) -> None:
        try:
            self._plane.pin()
        except OSError as error:
            self._say_unpinned(error)

    def _say_unpinned(self, error: OSError) -> None:
        self._say(
            "unpinned",
            f"if ram-ebpf is killed, everything in its scopes is refused until it is started again: {error}",
        )

    def _tell_unpinned(self) -> None:
        problem = self._plane.pin_problem()
        if problem is not None:
            self._say_unpinned(problem)

    def _tell_of_strangers(self) -> None:
        if self._plane.has_strange_remains:
            self._say(
                "not-inherited",
                "what a killed instance of another version knew is not understood: it is replaced without a "
                f"gap, after {_BESIDE_SECONDS:g} seconds in which names are learned beside it, but addresses "
                "from before count when they are looked up again, and open connections are taken for older "
                "than the enforcement (`connections: { earlier: cut }` ends them)",
            )

    def _begin_governing(self, following: Following) -> None:
        if not self._plane.has_strange_remains:
            following.begin()
            return
        self._plane.learn_beside()
        try:
            following.begin()
            if self._plane.is_beside_others:
                self._stop.wait(_BESIDE_SECONDS)
        finally:
            self._plane.relieve()

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
        self._warnings.note(event, explanation)
        self._writer.write({"event": event, "explanation": explanation, **more})

    def _open_control(self) -> ControlSocket | None:
        try:
            control = ControlSocket()
        except OSError as error:
            self._say("no-control", f"`ram-ebpf status` cannot ask this instance: {error}")
            return None
        self._admit(control)
        return control

    def _admit(self, control: ControlSocket) -> None:
        """Those who may ask, as the policy says."""
        wanted = self._policy.control.group
        try:
            control.admit(None if wanted is None else grp.getgrnam(wanted).gr_gid)
        except (KeyError, OSError) as error:
            why = "there is no such group" if isinstance(error, KeyError) else str(error)
            self._say("no-control-group", f"only root may ask this instance, and not group {wanted}: {why}")

    def _serve(
        self,
        wake: int,
        following: Following,
        control: ControlSocket | None,
        state: State,
    ) -> None:
        next_cleaning = self._next_sign = time.monotonic()
        with contextlib.closing(Waiting()) as waiting, contextlib.closing(LinkWatch()) as links:
            descriptors = (wake, *self._receiving.descriptors)
            following.follow(hurry=True)  # what came before anybody watched
            while not self._stop.is_set():
                watched = tuple(self._watches)
                scraping = self._measuring.scraping
                waiting.on(*descriptors, links, control, scraping, self._authorizing, *watched)
                # In a turn without any news as little as possible is done: that is what an idle daemon costs.
                ready = waiting.wait(self._pause(following))
                if wake in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 64)
                if time.monotonic() >= self._next_sign:
                    self._plane.show_alive()
                    self._next_sign = time.monotonic() + _ALIVE_PERIOD
                self._manager.alive()
                self._complete()
                news = [watch.has_news() for watch in watched]
                news.append(links.fileno() in ready and links.has_news())
                holding = self._holding
                looking = holding if holding is not None and (any(news) or holding.is_holding) else None
                if looking is not None:
                    looking.look()
                following.follow(any(news) or looking is not None)
                if looking is not None:
                    looking.act()
                self._drain()
                self._receiving.rest_or_work()
                self._tell_of_requests()
                self._exports.tell(self._losses)
                self._telling.report()
                if control is not None and control.has_news():
                    control.answer_with(state.answer)
                self._measuring.follow(lambda: self._snapshot(following))
                self._reload(following)
                self._tell_unpinned()
                self._trust.follow(self._plane)
                if self._summing is not None:
                    self._summing.follow()
                if self._manager.listens:
                    self._manager.status(self._summary())
                now = time.monotonic()
                if now >= next_cleaning:
                    next_cleaning = now + _CLEANING_PERIOD
                    self._concerned.learner.remove_expired()

    def _complete(self) -> None:
        if not self._completing.is_under_way:
            return
        try:
            self._completing.follow()
        except BaseException:
            self._is_left = False  # it is the start that fails
            raise
        if not self._completing.is_under_way:
            told = "what reads names in connections is compiled and loaded: those that waited for it go on"
            self._writer.write({"event": "complete", "explanation": told})

    def _pause(self, following: Following) -> float:
        """Seconds for which there is nothing to do, unless something is told."""
        is_holding = self._holding is not None and self._holding.is_holding
        is_busy = is_holding or self._completing.is_under_way
        if not self._receiving.rests or is_busy or self._concerned.asker is not None:
            return _QUEUE_PERIOD
        parts = (following, self._reloading, self._trust)
        due = min(self._manager.next_beat(), *(part.next_look() for part in parts))
        now = time.monotonic()
        if due <= now:
            return _QUEUE_PERIOD
        # Together with the sign of life: each turn by itself costs more than all that is looked at.
        return max(min(max(due, self._next_sign), self._next_sign + _QUEUE_PERIOD) - now, 0.0)

    def _reload_on_request(self, number: int | None) -> dict[str, Any]:
        """Begins a reload, or says what has become of the one of a number."""
        if self._load is None:
            return {"error": "this instance was started without a policy file: there is nothing to reload"}
        if number is None:
            return {"number": self._reloading.hurry()}
        done = self._reloading.finished >= number
        return {"done": done, "problem": self._reloading.last_problem if done else None}

    def _reload(self, following: Following) -> None:
        """Takes another policy when there is one. Raises nothing: what was enforced stays so otherwise."""
        if self._load is None:
            return
        if self._signals.is_to_reload:
            self._signals.is_to_reload = False
            self._reloading.hurry()
            self._manager.reloading()
        outcome = self._reloading.follow()
        if outcome is None:
            return
        problem = outcome.problem and f"the policy stays as it was: {outcome.problem}"
        if outcome.prepared is not None:
            try:
                self._take_policy(outcome.prepared, following)
            except Exception as error:
                _log.exception("the policy could not be taken")
                why = str(error) or type(error).__name__
                problem = f"the policy was taken in part only, start ram-ebpf again: {why}"
        self._reloading.conclude(problem)
        self._reloads.note(problem)
        self._manager.ready(self._summary())
        if problem:
            self._say("reload-failed", problem)
        else:
            self._say_reloaded(outcome.seconds)
            self._keep_policy()
            give_back()

    def _keep_policy(self) -> None:
        if self._load is None or last_good.is_kept(self._policy):
            return
        try:
            last_good.keep(self._policy)
        except OSError as error:
            self._say(
                "policy-not-kept",
                f"if the policy file is wrong at the next start, nothing will be enforced then: {error}",
            )

    def _say_reloaded(self, seconds: float) -> None:
        rules = len(self._plane.tables.rules.names) + len(self._plane.tables.rules.addresses)
        self._say(
            "reloaded",
            f"the policy of {self._policy.file} is enforced now ({self._policy.mode.value})",
            mode=self._policy.mode.value,
            rules=rules,
            scopes=self._governed(),
            digest=self._policy.source.digest,
            seconds=round(seconds, 3),
        )

    def _prepare(self) -> Prepared:
        """In a thread of its own: another policy in the kernel, beside the one that is enforced."""
        assert self._load is not None
        loaded = self._load()
        self._completing.wait()
        settings = settings_of(loaded.policy)
        resolvers = resolvers_of(loaded.policy)
        made = [(rules, posture_of(terms)) for terms, rules in loaded.rules.items()]
        views = self._plane.prepare_policy(made, settings)
        try:
            learner = Learner(
                self._plane,
                settings,
                self._history,
                lambda: self._trust.resolvers if prepared.taken else resolvers,
                views,
                self._lookups,
            )
        except BaseException:
            self._plane.discard_policy(views)
            raise
        prepared = Prepared(loaded, settings, dict(zip(loaded.rules, views, strict=True)), learner)
        learner.start()
        learner.wait_first_round(_SEEDING_PATIENCE)
        return prepared

    def _take_policy(self, new: Prepared, following: Following) -> None:
        """The moment in which one policy follows another. Each place has the programs of one, or of both."""
        self._drain()
        before, mode = self._concerned.learner, self._settings.mode
        self._policy, self._rules, self._settings = new.loaded.policy, new.loaded.rules, new.settings
        self._judged = new.loaded.judged
        self._views = dict(new.views)
        self._plane.take_policy(list(new.views.values()), new.settings)
        self._concerned.learner, new.taken = new.learner, True
        self._trust.use(self._policy, self._plane)
        following.replace(new.loaded.targets, new.views)
        if mode is not self._settings.mode:
            self._decisions.end_mode(mode, self._plane.counters())
        self._renew_holding(new.loaded, following)
        self._plane.settle()
        self._drain()  # what is told by the numbers of the older one
        before.stop()
        self._plane.drop_older()
        self._describer.message = self._policy.message
        self._telling.use(self._policy.log)
        self._state.policy = self._policy
        self._warnings.begin_again()
        self._exports.use(self._policy.export)
        if self._control is not None:
            self._admit(self._control)
        self._make_asker()
        self._renew_authorizing(following)
        self._responder.renew(self._policy)
        self._measuring.use(self._policy.metrics)

    def _renew_holding(self, loaded: Loaded, following: Following) -> None:
        self._watches += [watch for watch in loaded.watches if watch not in self._watches]
        if loaded.ports is None:
            self._plane.release_bridges()
            self._holding = None
        elif self._holding is not None:
            self._plane.move_bridges()
        else:
            self._plane.prepare_devices()
            self._holding = Holding(self._plane, loaded.ports, following.failed_devices, self._say)
            self._holding.prepare()
            self._holding.look()
            self._holding.begin()

    def _renew_authorizing(self, following: Following) -> None:
        if self._authorizing is not None and self._policy.docker.authorization:
            self._authorizing.use(self._policy, self._judged)
            return
        if self._authorizing is not None:
            self._authorizing.close()
            self._tell_of_requests()
        self._authorizing = self._open_authorizing(following)
        self._begin_authorizing()

    def _snapshot(self, following: Following) -> Snapshot:
        """For whoever asks for metrics."""
        from ram_ebpf.daemon import readings
        from ram_ebpf.metrics.scraping import Snapshot

        plane, log = self._plane, self._telling.counters()
        snapshot = Snapshot(rules=[view.tables.rules for view in plane.views])
        snapshot.samples += [
            *readings.of_policy(self._policy, self._reloads),
            *readings.of_scopes(following, plane),
            *self._decisions.samples(self._settings.mode, plane.counters()),
            *readings.of_requests(self._request_counters()),
            *readings.of_resolvers(self._trust, self._concerned.learner.states(), self._lookups.counts()),
            *readings.of_responder(self._responder.state, self._served.counts()),
            *readings.of_room_for_scopes(plane),
            *(Sample("ram_ebpf_connections_cut_total", n, (why,)) for why, n in self._cut.counts().items()),
            Sample("ram_ebpf_events_lost_total", log["lost"]),
            Sample("ram_ebpf_log_lines_suppressed_total", log["repeated"] + log["suppressed"]),
        ]
        try:
            for counted in readings.maps_of(plane):
                snapshot.maps.append(counted)
        except OSError:  # too many files are open
            snapshot.close()
            raise
        return snapshot

    def _tell_of_requests(self) -> None:
        if self._authorizing is not None:
            for record in self._authorizing.records():
                self._telling.tell_request(record)
            self._losses.note("events-lost", _REQUESTS_LOST, self._authorizing.lost())

    def _drain(self) -> None:
        self._receiving.drain()
        self._responder.follow()
        self._responder.tell()

    def _end(self) -> None:
        """Detaches everything; or what is attached and pinned stays, as when this process is killed."""
        # A start that fails does not end what a killed instance had enforced.
        is_left = self._is_left or (self._plane.has_replaced and not self._stop.is_set())
        self._concerned.learner.stop()
        attached = self._governed()
        counters = {}
        with contextlib.suppress(OSError):
            self._drain()
            self._tell_of_requests()
            counters = {reason.slug: count for reason, count in sorted(self._plane.counters().items())}
            counters |= self._request_counters()
        self._telling.report(at_once=True)
        self._receiving.close()
        where = ", ".join(attached)
        if is_left:
            if self._options.stay:
                self._say(
                    "left",
                    f"enforced on, until an instance takes over or `ram-ebpf down`: {where or 'nothing'}",
                )
            return
        self._plane.close()
        if attached:
            self._say(
                "stopped",
                f"detached from {where}; nothing is enforced there any more",
                counters=counters,
                log=self._telling.counters(),
            )
