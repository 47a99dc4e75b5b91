"""Events as the kernel sends them, to be changed with dataclasses.replace()."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

from ram_ebpf.dataplane.abi import Hook, Reason, Verdict
from ram_ebpf.dataplane.events import Event

EVENT = Event(
    time_ns=1,
    verdict=Verdict.DENY,
    reason=Reason.DENIED_UNKNOWN_ADDRESS,
    hook=Hook.INET4_CONNECT,
    address=ipaddress.ip_address("192.0.2.1"),
    port=443,
    protocol=6,
    rule=0,
    scope=0,
    detail=0,
    socket_cookie=5,
    pid=42,
    process="docker",
    uid=1000,
    cgroup_id=77,
    packet=b"",
    dns_message=None,
)
"""A refused connection."""

DNS_EVENT = replace(
    EVENT,
    verdict=Verdict.NONE,
    reason=Reason.DNS_LEARNED,
    hook=Hook.INET_INGRESS,
    address=ipaddress.ip_address("10.0.0.53"),
    port=53,
    protocol=17,
    pid=None,
    process=None,
    uid=None,
)
"""A reply over UDP that was learned."""
