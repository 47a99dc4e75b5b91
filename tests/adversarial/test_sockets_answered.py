"""The attacks of test_sockets.py where refused connections are led to the responder, as they are by default.

What is led has no error to tell of. Nothing of it leaves the scope all the same.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.adversarial.field import Attack, Field, governed
from tests.adversarial.test_sockets import ATTACKS, POLICY, second_address
from tests.lab.lab import Lab
from tests.lab.test_responder import wait_responder

__all__ = ["second_address"]

# Besides what is led: what cannot be, a first packet that carries data, and one with a source route, which is
# refused on egress as any other.
_TOLD = (None, errno.EPERM, errno.EINPROGRESS, errno.ECONNABORTED)


@pytest.fixture(scope="module")
def field(lab: Lab) -> Iterator[Field]:
    with governed(lab, POLICY, "--log-dns") as daemon, Field(lab, daemon) as result:
        wait_responder(daemon)
        yield result


@pytest.mark.parametrize(("attack", "reason"), [pytest.param(*item.values, id=item.id) for item in ATTACKS])
def test_socket(field: Field, second_address: None, attack: Attack, reason: str) -> None:
    field.repels(attack, reason, error=_TOLD)
