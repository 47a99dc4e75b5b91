"""What is known of resolvers that speak DNS over HTTPS, as the daemon keeps it; see encrypted.py."""

from __future__ import annotations

import string
from typing import NamedTuple

from ram_ebpf.dataplane.abi import IPAddress

# Not str.lower(), which turns some other characters into ASCII ones, as in policy/names.py.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


class EncryptedNames(NamedTuple):
    """`names`: in lower case without a trailing dot. `addresses`: at which nothing but DNS is served."""

    names: frozenset[str]
    addresses: frozenset[IPAddress]

    def serves(self, name: str) -> bool:
        """Whether a host name is one of theirs or below one. Case and a trailing dot do not matter."""
        labels = name.translate(_LOWER).removesuffix(".").split(".")
        return any(".".join(labels[start:]) in self.names for start in range(len(labels)))
