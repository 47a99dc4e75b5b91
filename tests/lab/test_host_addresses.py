"""That the kernel tells of addresses that come and go."""

from __future__ import annotations

import ipaddress

from pyroute2 import IPRoute

from ram_ebpf.dataplane.namespaces import throwaway
from ram_ebpf.dns.addresses import HostAddresses

ADDRESSES = ("192.0.2.7", "2001:db8::7")


def test_new_addresses_are_known_at_once() -> None:
    with throwaway():
        host = HostAddresses()
        with IPRoute() as netlink:
            netlink.link("set", index=1, state="up")
            loopback = host.now()
            assert ipaddress.ip_address("127.0.0.1") in loopback
            for text in ADDRESSES:
                longest = ipaddress.ip_address(text).max_prefixlen
                netlink.addr("add", index=1, address=text, prefixlen=longest, flags=2)  # IFA_F_NODAD
                assert ipaddress.ip_address(text) in host.now()
            for text in ADDRESSES:
                netlink.addr("del", index=1, address=text, prefixlen=ipaddress.ip_address(text).max_prefixlen)
            assert host.now() == loopback
