"""Address and port as text."""

from __future__ import annotations

import ipaddress


def endpoint_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address | str, port: int) -> str:
    """`192.0.2.1:443`, or `[2001:db8::1]:443` (RFC 5952 6); of a host name `name:443`."""
    text = str(address)
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
