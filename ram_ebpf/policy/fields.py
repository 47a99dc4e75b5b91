"""The kinds of values in a policy file, each checked strictly and refused in plain words.

Pydantic's own constraints are not used for them: its messages are for programmers, and it would turn
`"443"` into a number or `1` into true where its strict mode is forgotten once.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from enum import Enum
from typing import Annotated, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, Discriminator, PlainValidator, Tag
from pydantic_core import PydanticCustomError

from ram_ebpf.policy.choices import IPAddress as IPAddress
from ram_ebpf.policy.choices import IPNetwork as IPNetwork
from ram_ebpf.policy.names import HostPattern, PatternError
from ram_ebpf.policy.words import alternatives, closest, describe, show

HOUSE_ERROR = "house"
"""The type of the pydantic errors that carry a problem and a cure of ours."""

MAX_PORTS = 8
MAX_PRIVATE_NETWORKS = 16

E = TypeVar("E", bound=Enum)


def refuse(problem: str, cure: str) -> NoReturn:
    """Raises the validation error for one value."""
    raise PydanticCustomError(HOUSE_ERROR, HOUSE_ERROR, {"problem": problem, "cure": cure})


def text_between(shortest: int, longest: int) -> PlainValidator:
    """A string of that many characters, all printable (so: one line, and no control sequences)."""

    def check(value: object) -> str:
        text = _text(value)
        if not shortest <= len(text) <= longest:
            refuse(f"{len(text)} characters", f"write {shortest} to {longest}")
        if not text.isprintable():
            refuse(f"{show(text)} has an unprintable character or a line break", "write one printable line")
        return text

    return PlainValidator(check)


def text_like(pattern: str, problem: str, cure: str) -> PlainValidator:
    """A string that the regular expression matches from end to end."""
    regex = re.compile(pattern)

    def check(value: object) -> str:
        text = _text(value)
        if not regex.fullmatch(text):
            refuse(f"{show(text)} is not {problem}", cure)
        return text

    return PlainValidator(check)


def integer_between(least: int, most: int, unit: str) -> PlainValidator:
    """An integer, both ends included; no bool, no float, no string."""

    def check(value: object) -> int:
        if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) and least <= int(value) <= most:
            refuse(f"{describe(value)} is text", f"write the number alone: {int(value)}")
        if type(value) is not int or not least <= value <= most:
            refuse(f"{describe(value)} is not {unit}", f"write a number from {least} to {most}")
        return value

    return PlainValidator(check)


def choice(kind: type[E]) -> PlainValidator:
    """One of the string values of an Enum."""
    words = [str(member.value) for member in kind]

    def check(value: object) -> E:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str) or value not in words:
            near = closest(value, words) if isinstance(value, str) else None
            refuse(
                f"{describe(value)} is not one of the choices",
                f"did you mean {near}?" if near else f"write {alternatives(words)}",
            )
        return kind(value)

    return PlainValidator(check)


def listed(example: str, most: int | None = None, may_be_empty: bool = False) -> BeforeValidator:
    """A list as a tuple; with at least one item unless it may be empty."""

    def check(value: object) -> object:
        if value is None or (isinstance(value, list | tuple) and not value and not may_be_empty):
            refuse("the list is empty", f"write at least one item, such as {example}")
        if not isinstance(value, list | tuple):
            refuse(f"{describe(value)} where a list belongs", f"write a list, such as {example}")
        if most is not None and len(value) > most:
            refuse(f"the list has {len(value)} items", f"write {most} at most")
        return tuple(value)

    return BeforeValidator(check)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    cure = "put it in quotes" if isinstance(value, int | float) else "write text"
    refuse(f"{describe(value)} where text belongs", cure)


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        refuse(f"{describe(value)} is not a yes or no", "write true or false")
    return value


def _host(value: object) -> HostPattern:
    if isinstance(value, HostPattern):
        return value
    try:
        return HostPattern.parse(_text(value))
    except PatternError as error:
        refuse(error.problem, error.cure)


def _distinct_ports(ports: tuple[int, ...]) -> tuple[int, ...]:
    for port in ports:
        if ports.count(port) > 1:
            refuse(f"port {port} is given twice", "write each port once")
    return ports


def _address(value: object) -> IPAddress:
    if isinstance(value, IPAddress):
        return value
    text = _text(value)
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        refuse(f"{show(text)} is not an IP address", "write one, such as 10.0.0.53 or 2001:db8::53")
    _check_v6(address)
    return address


def _network(value: object) -> IPNetwork:
    return value if isinstance(value, IPNetwork) else _parse_network(_text(value), _refuse_address)


def _bare_network(value: object) -> IPNetwork:
    return value if isinstance(value, IPNetwork) else _parse_network(_text(value), _refuse_bare_address)


def _parse_network(text: str, refuse_other: Callable[[str], NoReturn]) -> IPNetwork:
    host, slash, prefix = text.partition("/")
    if slash and not re.fullmatch("[0-9]{1,3}", prefix):
        refuse(f"{show(text)} has no prefix length after the '/'", "write one, such as 10.20.0.0/24")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        refuse_other(text)
    address = ipaddress.ip_address(host)
    _check_v6(address)
    if address != network.network_address:
        refuse(
            f"{show(text)} has bits set after its prefix", f"write {network}, or {host} for that host alone"
        )
    return network


def _check_v6(address: IPAddress) -> None:
    if isinstance(address, ipaddress.IPv4Address):
        return
    if address.ipv4_mapped is not None:  # RFC 4291, section 2.5.5.2: on the wire such a flow is IPv4
        refuse(f"{show(str(address))} is an IPv4-mapped address", f"write {address.ipv4_mapped}")
    if address.scope_id is not None:
        refuse(f"{show(str(address))} names an interface", "write the address without %")


def _refuse_address(text: str) -> NoReturn:
    if with_port := _address_and_port(text):
        address, port = with_port
        refuse(f"{show(text)} has a port", f"write address: {address} and ports: [{port}]")
    try:
        pattern = HostPattern.parse(text)
    except PatternError:
        _refuse_bare_address(text)
    refuse(f"{show(text)} is a host name", f"write host: {pattern}")


def _refuse_bare_address(text: str) -> NoReturn:
    if with_port := _address_and_port(text):
        refuse(f"{show(text)} has a port", f"write the address alone: {with_port[0]}")
    refuse(f"{show(text)} is not an IP address or network", "write one, such as 10.20.0.5 or 10.20.0.0/24")


def _address_and_port(text: str) -> tuple[str, str] | None:
    bare, colon, port = text.rpartition(":")
    if colon and re.fullmatch("[0-9]{1,5}", port) and re.fullmatch(r"[0-9.]+|\[[0-9A-Fa-f:.]+\]", bare):
        return bare.strip("[]"), port
    return None


def _private_tag(value: object) -> str:
    return "@networks" if isinstance(value, list | tuple) else "@flag"


def _private_flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (network := parse_network(value)) is not None:
        refuse(f"{show(value)} where a list belongs", f"write a list, such as [{network}]")
    refuse(
        f"{describe(value)} is not a yes or no",
        "write true, false or a list of networks, such as [10.20.0.0/16]",
    )


def _distinct_networks(networks: tuple[IPNetwork, ...]) -> tuple[IPNetwork, ...]:
    for network in networks:
        if networks.count(network) > 1:
            refuse(f"network {network} is given twice", "write each network once")
    return networks


def parse_address(value: object) -> IPAddress | None:
    """The address that a field would have, or None when the field would be refused."""
    try:
        return _address(value)
    except PydanticCustomError:
        return None


def parse_network(value: object) -> IPNetwork | None:
    """As `parse_address`, for a network."""
    try:
        return _network(value)
    except PydanticCustomError:
        return None


Boolean = Annotated[bool, PlainValidator(_boolean)]
HostField = Annotated[HostPattern, PlainValidator(_host)]
AddressField = Annotated[IPAddress, PlainValidator(_address)]
NetworkField = Annotated[IPNetwork, PlainValidator(_network)]
Port = Annotated[int, integer_between(1, 65535, "a port")]
Ports = Annotated[tuple[Port, ...], listed("[443]", MAX_PORTS), AfterValidator(_distinct_ports)]
# None only as a default: in a file, a key without a value is a mistake.
PortsOrNone = Annotated[
    tuple[Port, ...], listed("[443]", MAX_PORTS, may_be_empty=True), AfterValidator(_distinct_ports)
]
OwnPorts = Annotated[tuple[Port, ...] | None, listed("[443]", MAX_PORTS), AfterValidator(_distinct_ports)]
Private = Annotated[
    Annotated[bool, PlainValidator(_private_flag), Tag("@flag")]
    | Annotated[
        tuple[Annotated[IPNetwork, PlainValidator(_bare_network)], ...],
        listed("[10.20.0.0/16]", MAX_PRIVATE_NETWORKS),
        AfterValidator(_distinct_networks),
        Tag("@networks"),
    ],
    Discriminator(_private_tag),
]
"""Which private addresses are expected: all, none, or those of 1 to 16 different networks."""
