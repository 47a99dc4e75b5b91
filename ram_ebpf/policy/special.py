"""Addresses that no public registry has: this host, its link, private networks, cloud metadata, multicast.

A name that is allowed may nevertheless answer with one, by mistake or to reach what only this host can
(DNS rebinding). So such an answer counts only where the policy says `private:`.
"""

from __future__ import annotations

import ipaddress

from ram_ebpf.policy.choices import IPAddress, IPNetwork

_IPV4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network: RFC 791, section 3.2; Linux takes 0.0.0.0 for this host
        "10.0.0.0/8",  # private: RFC 1918, section 3
        "100.64.0.0/10",  # shared by a provider's customers: RFC 6598, section 7
        "127.0.0.0/8",  # loopback: RFC 1122, section 3.2.1.3
        "168.63.129.16/32",  # Azure's metadata and DNS: Microsoft, "What is IP address 168.63.129.16?"
        "169.254.0.0/16",  # link-local: RFC 3927, section 2.1; 169.254.169.254 is most clouds' metadata
        "172.16.0.0/12",  # private: RFC 1918, section 3
        "192.0.0.0/24",  # protocol assignments: RFC 6890, section 2.1
        "192.168.0.0/16",  # private: RFC 1918, section 3
        "224.0.0.0/3",  # multicast: RFC 5771, section 3; reserved: RFC 1112, section 4; broadcast: RFC 919
    )
)
_IPV6 = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "::/128",  # unspecified: RFC 4291, section 2.5.2; Linux takes it for this host
        "::1/128",  # loopback: RFC 4291, section 2.5.3
        "fc00::/7",  # unique local: RFC 4193, section 3.1
        "fe80::/10",  # link-local: RFC 4291, section 2.5.6
        "fec0::/10",  # site-local: RFC 3879, which ends its use but not that of its routes
        "ff00::/8",  # multicast: RFC 4291, section 2.7
    )
)
# A translator or relay on the way turns these into the IPv4 address that stands behind the prefix.
_EMBEDDING = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "64:ff9b::/96",  # NAT64: RFC 6052, section 2.1
        "2002::/16",  # 6to4: RFC 3056, section 2
    )
)


def _embedded(prefix: ipaddress.IPv6Network, network: ipaddress.IPv4Network) -> ipaddress.IPv6Network:
    """`network`, whose addresses stand right behind `prefix`, as a network of IPv6."""
    length = prefix.prefixlen + network.prefixlen
    shift = 128 - prefix.prefixlen - 32
    first = int(prefix.network_address) | int(network.network_address) << shift
    return ipaddress.IPv6Network((first, length))


SPECIAL_NETWORKS: tuple[IPNetwork, ...] = (
    *_IPV4,
    *_IPV6,
    *(_embedded(prefix, network) for prefix in _EMBEDDING for network in _IPV4),
)
"""All of them, none within another; an IPv4-mapped IPv6 address is to be looked up as its IPv4 address."""


def is_special(address: IPAddress) -> bool:
    """Whether the address is in one of SPECIAL_NETWORKS; an IPv4-mapped one counts as its IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in SPECIAL_NETWORKS)
