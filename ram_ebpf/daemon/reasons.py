"""What each reason means, in a sentence for the person who reads the log. docs/reasons.md says more."""

from __future__ import annotations

from ram_ebpf.dataplane.abi import Reason

# {host} is a name or the address, {rule} the rule's pattern, {port} a number.
SENTENCES: dict[Reason, str] = {
    Reason.ALLOWED_LEARNED: "a trusted resolver gave this address for {host}; allowed by {rule}",
    Reason.ALLOWED_GRACE: "the answer for {host} has expired, but is within the policy's grace",
    Reason.ALLOWED_ADDRESS: "the address is allowed by {rule}",
    Reason.ALLOWED_RESOLVER: "a trusted DNS resolver",
    Reason.ALLOWED_ESTABLISHED: "part of a connection that was allowed when it began",
    Reason.ALLOWED_INBOUND: "part of a connection that the other side opened",
    Reason.ALLOWED_PROTOCOL: "ICMP or IGMP, which carry no image",
    Reason.ALLOWED_RESOLVER_REPLY: "a reply of this host's own resolver",
    Reason.ALLOWED_OTHER: "not known to be a registry",
    Reason.ALLOWED_UNASKED: "nobody knows yet whether a registry answers at {host}:{port}; it is being asked",
    Reason.ALLOWED_OWN: "ram-ebpf itself, which asks whether a registry answers there",
    Reason.ALLOWED_RESPONDER: "ram-ebpf's own responder, which tells the client that it was refused",
    Reason.DENIED_UNKNOWN_ADDRESS: "no trusted DNS reply gave this address for an allowed name",
    Reason.DENIED_EXPIRED: "the answer that allowed this address has expired; look {host} up again",
    Reason.DENIED_PORT: "{host} is allowed by {rule}, but not on port {port}",
    Reason.DENIED_PROTOCOL: "only TCP, UDP, ICMP and IGMP may leave this scope",
    Reason.DENIED_MALFORMED: "the packet is cut off or malformed",
    Reason.DENIED_FRAGMENT: "an IP fragment without ports cannot be judged",
    Reason.DENIED_RESOLVER: "not one of the trusted resolvers",
    Reason.DENIED_SOURCE_ROUTE: "IP options or a routing header could lead the packet elsewhere",
    Reason.DENIED_PRIVATE_ADDRESS: "{host} is allowed by {rule}, but this address is a private one; "
    "write private: true there if that is meant",
    Reason.DENIED_DNS_OVER_TLS: "DNS over TLS to a server that is not one of the trusted resolvers",
    Reason.DENIED_DNS_OVER_QUIC: "DNS over QUIC to a server that is not one of the trusted resolvers",
    Reason.DENIED_DNS_OVER_HTTPS: "a resolver that speaks DNS over HTTPS, and not one of the trusted ones",
    Reason.DENIED_QUERY_NAME: "{host} is not in the policy, and other names may not be asked for",
    Reason.DENIED_NOT_A_QUERY: "only queries for names of the policy may go to the resolver",
    Reason.DENIED_REGISTRY: "{host} is a registry and not in the policy",
    Reason.DENIED_REGISTRY_PORT: "port {port} is a registry's, and {host} is not in the policy",
    Reason.DENIED_UNASKED: "nobody knows yet whether a registry answers at {host}:{port}; it is being asked, "
    "so try again",
    Reason.DENIED_NEW_CONTAINER: "nobody knows yet whether this new container is governed",
    Reason.ALLOWED_NAME: "the connection is for a name that the policy allows there",
    Reason.NAME_MISMATCH: "a connection to {host} that is for {name}, which the policy does not allow there",
    Reason.DENIED_NOT_NAMED: "a connection to {host} that does not say for which name it is",
    Reason.DENIED_REMOVED: "the rule that allowed this connection is no longer in the policy",
    Reason.DENIED_SEGMENT: "a TCP segment that cannot be judged where it stands in its connection",
    Reason.DNS_LEARNED: "addresses of {host} are allowed by {rule}",
    Reason.DNS_NOT_LISTED: "{host} is not in the policy",
    Reason.DNS_NO_QUERY: "a DNS reply that nobody asked for",
    Reason.DNS_WRONG_QUESTION: "a DNS reply to another question than the one asked",
    Reason.DNS_TRUNCATED: "the reply for {host} was truncated, so the name is asked again",
    Reason.DNS_MALFORMED: "the reply for {host} could not be read to its end, so the name is asked again",
    Reason.DNS_TOO_MANY: "the reply for {host} has too many records for one pass, so the name is asked again",
    Reason.DNS_MAP_FULL: "an address of {host} found no room in the kernel's map",
    Reason.DNS_WRONG_INTERFACE: "a reply in the resolver's name came over the loopback interface",
    Reason.DNS_NO_ADDRESS: "the reply for {host} has no address",
    Reason.DNS_NOT_A_QUERY: "a packet to the resolver that is no DNS query",
    Reason.DNS_UNTRUSTED_SENDER: "a DNS reply that no trusted resolver sent",
    Reason.DNS_OVER_TCP: "a DNS query over TCP; the name is asked here, and the reply waits for that",
    Reason.DNS_LATE: "a DNS reply that came too long after its query",
    Reason.DNS_PRIVATE_ADDRESS: "{host} has only private addresses, which {rule} does not expect",
    Reason.DNS_OTHER_NAME: "the reply for {host} has addresses of another name, so the name is asked again",
    Reason.DNS_ALIAS: "{host} is an alias, whose target inherits {rule}",
    Reason.DNS_RECOGNISED: "{host} is a registry and not in the policy, so its addresses are refused",
    Reason.DNS_HELD: "a DNS reply over TCP that waits until its name was asked here",
}


# Reasons that are about a name which no rule allows.
_OF_THE_NAME = frozenset(
    {
        Reason.DENIED_UNKNOWN_ADDRESS,
        Reason.DNS_NOT_LISTED,
        Reason.DENIED_QUERY_NAME,
        Reason.DENIED_REGISTRY,
        Reason.DNS_RECOGNISED,
    }
)


def explain(
    reason: Reason,
    *,
    host: str,
    port: int,
    rule: str,
    not_listed: bool,
    denied_by: str | None = None,
    name: str | None = None,
) -> str:
    """One sentence. `not_listed`: the host is a name that a resolver gave, and that no rule allows;
    `denied_by`: the rule that denies it, where one does; `name`: what the connection said itself."""
    if reason in _OF_THE_NAME and denied_by:
        return f"{host} is denied by {denied_by}"
    if reason is Reason.DENIED_UNKNOWN_ADDRESS and not_listed:
        return f"{host} is not in the policy"
    sentence = SENTENCES.get(reason, reason.slug)
    return sentence.format(host=host, port=port, rule=rule or "the policy", name=name or "another name")
