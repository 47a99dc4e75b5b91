"""Names of registries that nobody has asked for yet, so that neither an engine nor a log knows them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.lab import image, topology
from tests.lab.dns import Addresses
from tests.lab.lab import Lab

from .trees import tree

REPOSITORY = "lab/base"
TAG = "1"
ORGANIZATION = "acme"
MESSAGE = "Ask platform@registry.test to allow it."
PATTERN = "*.allowed.registry.test"

# RFC 5737: nobody has these, and the lab routes them to its blocked registry.
_TARGETS = [
    f"{network}.{number}" for network in ("203.0.113", "198.51.100", "192.0.2") for number in range(1, 255)
]
_ALLOWED = 1500
_ASIDE = 300


def policy(*resolvers: str, responder: str = "off") -> str:
    """The policy: it allows PATTERN, and trusts the lab's resolver and any further ones.

    Without the responder a refusal is the kernel's alone, EPERM.
    """
    return f"""\
version: 1
message: {MESSAGE}
registries:
  - host: "{PATTERN}"
    private: true
refusals:
  responder: {responder}
resolvers: [{", ".join((topology.RESOLVER, *resolvers))}]
"""


POLICY = policy()
ANSWERED = f"{policy(responder='on')}organization: {ORGANIZATION}\n"
"""With the responder, as without a word about it."""


@dataclass(frozen=True)
class Refused:
    """A registry that the policy does not name; it has the image too. `address`: that of its name."""

    host: str
    address: str


class Names:
    """All registries' names of a session."""

    def __init__(self, lab: Lab) -> None:
        busybox = (tree("bookworm") / "bin/busybox").read_bytes()
        base = image.build({"bin/busybox": busybox, "bin/sh": busybox}, ("/bin/busybox", "sleep", "1000"))
        for registry in (lab.allowed, lab.blocked):
            registry.add_image(REPOSITORY, TAG, base)
        lab.blocked.node.add_addresses(*_TARGETS)
        refused = (Refused(f"refused-{n}.registry.test", target) for n, target in enumerate(_TARGETS))
        self._refused = {item.host: item for item in refused}
        allowed = [PATTERN.replace("*", f"open-{number}") for number in range(_ALLOWED)]
        aside = [f"aside-{number}.registry.test" for number in range(_ASIDE)]
        records = {item.host: Addresses((item.address,), 60) for item in self._refused.values()}
        # One restart of the resolver for all.
        lab.dns.update(
            {**records, **{host: Addresses((topology.ALLOWED,), 60) for host in (*allowed, *aside)}}
        )
        self._allowed = iter(allowed)
        self._aside = iter(aside)
        self._left = iter(self._refused.values())

    def allowed(self) -> str:
        """The next name that the policy allows."""
        return next(self._allowed)

    def refused(self) -> Refused:
        """The next name that it does not allow."""
        return next(self._left)

    def aside(self) -> Refused:
        """The next one that the policy does not allow, at the address of those that it does."""
        return Refused(next(self._aside), topology.ALLOWED)

    def is_refused(self, host: str | None) -> bool:
        """Whether it is one of the names that the policy does not allow."""
        return host in self._refused


def reference(host: str) -> str:
    """The image at a registry."""
    return f"{host}/{REPOSITORY}:{TAG}"
