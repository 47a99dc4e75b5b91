"""What the kernel's programs tell, and whom it matters to: it is learned from, asked about, ended, logged."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ram_ebpf.daemon.ending import Ending
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.learning import HANDED_OVER, Learner
from ram_ebpf.daemon.losses import Losses
from ram_ebpf.daemon.records import Describer
from ram_ebpf.daemon.telling import Telling
from ram_ebpf.daemon.trust import Trust
from ram_ebpf.daemon.unasked import UNASKED
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dns.encrypted_names import EncryptedNames
from ram_ebpf.dns.response import Answer, read_message

if TYPE_CHECKING:
    from ram_ebpf.daemon.asking import Asker

_log = logging.getLogger(__name__)

_QUIET = 1.0  # seconds without an event, after which it is not looked for them any more
_LOSSES_PERIOD = 10.0  # seconds between looks for lost events while there are none at all
_LAST_WORDS = 2.0  # seconds in which events are still told when it is to end
_HTTPS = 443
_LOST = "events came too fast to be read; enforcement is not affected"
_MALFORMED = "events of the kernel's programs cannot be read; enforcement is not affected"
_QUEUE_FULL = "times so many events came at once that older ones may be lost; the counters are right"
# Replies from which it is known which name an address belongs to, whether or not it is allowed.
_TELLING = frozenset(
    {
        abi.Reason.DNS_LEARNED,
        abi.Reason.DNS_NOT_LISTED,
        abi.Reason.DNS_PRIVATE_ADDRESS,
        abi.Reason.DNS_RECOGNISED,
    }
)


@dataclass
class Concerned:
    """Whom events matter to. `learner`, `asker`: others after a reload; no asker: nobody is asked."""

    trust: Trust
    learner: Learner
    asker: Asker | None
    history: NameHistory
    ending: Ending
    describer: Describer
    telling: Telling
    losses: Losses


class Receiving:
    """Reads events and passes them on. One thread calls this."""

    def __init__(
        self,
        events: EventSource,
        plane: Plane,
        encrypted: EncryptedNames,
        concerned: Concerned,
        stop: threading.Event,
    ) -> None:
        """`encrypted`: resolvers by which names are resolved unseen. `stop` is set when it is to end soon."""
        self._events = events
        self._plane = plane
        self._encrypted = encrypted
        self._for = concerned
        self._stop = stop
        self._unasked: list[Event] = []
        self._lost = self._malformed = self._overruns = 0
        self._last_moment = float("inf")
        self._taken_before = self._taken_with_losses = 0  # events
        self._next_losses = 0.0
        self._quiet_since = time.monotonic()

    @property
    def descriptors(self) -> Sequence[int]:
        """Which become readable when there is something to take at once."""
        return self._events.descriptors

    @property
    def rests(self) -> bool:
        """Whether each event makes a descriptor readable, so that nobody need look for any."""
        return self._events.rests

    def rest_or_work(self) -> None:
        """After a second without an event, each event wakes the loop, so that it need not look for them."""
        now, taken = time.monotonic(), self._events.taken
        if taken != self._taken_before:
            self._taken_before, self._quiet_since = taken, now
            self._events.work()
        elif now - self._quiet_since >= _QUIET:
            self._events.rest()

    def drain(self) -> None:
        """Takes all that there is."""
        self._events.drain(self._take_in_time)
        asker = self._for.asker
        if asker is not None:
            # Behind the replies that say which names these addresses have.
            for event in self._unasked:
                try:
                    asker.take(event)
                except Exception:  # as in take()
                    _log.exception("it could not be asked what is at %s", event.address)
            asker.tell()
        self._unasked.clear()
        self._note_losses()

    def close(self) -> None:
        """Nothing is told any more."""
        self._events.close()

    def _note_losses(self) -> None:
        """What is lost stands behind what was taken, but for packets that no ring has room for."""
        events, note = self._events, self._for.losses.note
        now = time.monotonic()
        if events.taken == self._taken_with_losses and now < self._next_losses and not self._stop.is_set():
            return
        self._taken_with_losses, self._next_losses = events.taken, now + _LOSSES_PERIOD
        lost = events.lost  # once: it is asked of the kernel, and goes on
        note("events-lost", _LOST, lost - self._lost)
        note("events-lost", _MALFORMED, events.malformed - self._malformed)
        note("queue-full", _QUEUE_FULL, events.overruns - self._overruns)
        self._lost, self._malformed, self._overruns = lost, events.malformed, events.overruns

    def _take_in_time(self, event: Event) -> None:
        """At the end whoever has asked for it does not wait until thousands of events are told."""
        if self._stop.is_set():
            self._last_moment = min(self._last_moment, time.monotonic() + _LAST_WORDS)
            if time.monotonic() > self._last_moment:
                self._for.losses.note("events-lost", _LOST, 1)
                return
        self.take(event)

    def take(self, event: Event) -> None:
        """Tells of one event. Packets are written by strangers: no surprise in one may end enforcement."""
        try:
            self._pass_on(event)
        except Exception:
            _log.exception("an event could not be told: %s", event.reason.slug)

    def _pass_on(self, event: Event) -> None:
        to = self._for
        if event.reason is abi.Reason.DNS_OVER_TCP:
            to.learner.take_query(event)
        if event.verdict is abi.Verdict.WOULD_DENY and event.time_ns < self._plane.relieved_ns:
            return  # others decided that
        # What leaves is a client's, whatever it looks like: only what comes in may be an answer.
        incoming = event.dns_message if event.incoming else None
        answer = read_message(incoming) if incoming else None
        if answer is not None and event.reason in _TELLING:
            to.history.note(answer)
            self._note_encrypted(answer)
            if to.asker is not None:
                to.asker.note(answer)
        if event.reason in UNASKED:
            self._unasked.append(event)
        to.ending.take(event)
        event = self._with_encrypted(event)
        if event.reason in HANDED_OVER and event.rule:
            name = to.describer.asked_name(event, answer)
            if name:
                to.learner.ask_again(name, event)
                if event.reason is abi.Reason.DNS_UNTRUSTED_SENDER:
                    to.trust.hurry()
        to.telling.tell(event, answer)

    def _note_encrypted(self, answer: Answer) -> None:
        """Who resolves the name of such a resolver is about to turn to it."""
        if self._encrypted.serves(answer.name):
            with contextlib.suppress(OSError):  # no room: such a refusal then only says "unknown address"
                self._plane.know_encrypted_resolvers(address for address, _ in answer.addresses)

    def _with_encrypted(self, event: Event) -> Event:
        """A connection may come before the kernel knows what the reply told; the reason is the same."""
        if event.reason is not abi.Reason.DENIED_UNKNOWN_ADDRESS or event.port != _HTTPS:
            return event
        name = self._for.history.name_of(event.address)
        if name is None or not self._encrypted.serves(name):
            return event
        return replace(event, reason=abi.Reason.DENIED_DNS_OVER_HTTPS)
