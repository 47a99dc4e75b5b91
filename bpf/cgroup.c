// SPDX-License-Identifier: Apache-2.0
/*
 * Entry points for a cgroup: cgroup_skb for what crosses its sockets, sock_addr for connect() and sendmsg().
 *
 * A refusal at connect() or sendmsg() reaches the program at once as EPERM. Whatever gets past those hooks
 * (raw IP sockets, sockets opened before we came) is dropped on egress. Packet sockets (AF_PACKET) pass no
 * hook of a cgroup; SECURITY.md says so.
 */
#include "abi.h"

#include "lib/dns.h"
#include "lib/events.h"
#include "lib/l3l4.h"
#include "lib/maps.h"
#include "lib/verdict.h"

#define RAM_PORT_DISCARD 9 /* RFC 863 */

/* enum sock_type, include/linux/net.h: the same on all architectures that have BPF but MIPS */
#define RAM_SOCK_STREAM 1
#define RAM_SOCK_DGRAM 2
#define RAM_SOCK_RAW 3

static __always_inline struct ram_config *ram_config(void)
{
	u32 zero = 0;

	return config.lookup(&zero);
}

static __always_inline bool ram_is_peer(const struct ram_peer *peer, const struct ram_packet *p)
{
	return peer->set && peer->port == p->destination_port && peer->address[0] == p->destination[0] &&
	       peer->address[1] == p->destination[1] && peer->address[2] == p->destination[2] &&
	       peer->address[3] == p->destination[3];
}

/* Events are made in functions of their own, so that they share the stack with what came before them. */
static __always_inline void ram_tell_dns(struct __sk_buff *skb, const struct ram_packet *p, u32 reason,
					 u32 rule)
{
	struct ram_event event = {};

	__builtin_memcpy(event.address, p->source, 16);
	event.port = p->source_port;
	event.protocol = p->protocol;
	event.hook = RAM_HOOK_INET_INGRESS;
	event.reason = reason;
	event.rule = rule;
	event.dns_offset = p->payload_offset;
	ram_emit_skb(skb, &event, p->end);
}

static __always_inline void ram_tell_packet(struct __sk_buff *skb, const struct ram_packet *p, u32 reason,
					    u32 verdict, u32 rule)
{
	struct ram_event event = {};

	__builtin_memcpy(event.address, p->destination, 16);
	event.port = p->destination_port;
	event.protocol = p->protocol;
	event.hook = RAM_HOOK_INET_EGRESS;
	event.reason = reason;
	event.verdict = verdict;
	event.rule = rule;
	ram_emit_skb(skb, &event, 0);
}

static __always_inline void ram_note_inbound(const struct ram_packet *p)
{
	struct ram_flow flow = {};
	u64 now = bpf_ktime_get_ns();

	__builtin_memcpy(flow.local, p->destination, 16);
	__builtin_memcpy(flow.remote, p->source, 16);
	flow.local_port = p->destination_port;
	flow.remote_port = p->source_port;
	inbound.update(&flow, &now);
}

int ram_ingress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	u32 reason, rule = 0;

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return 1;
	if (p.protocol == IPPROTO_TCP) {
		if ((p.tcp_flags & (RAM_TCP_SYN | RAM_TCP_ACK)) == RAM_TCP_SYN)
			ram_note_inbound(&p);
		return 1;
	}
	reason = ram_dns_reply(skb, cfg, &p, &rule);
	if (reason == RAM_REASON_NONE)
		return 1;
	ram_count(reason);
	ram_tell_dns(skb, &p, reason, rule);
	return 1;
}

/* Why a packet may leave. */
static __always_inline u32 ram_egress_reason(struct __sk_buff *skb, struct ram_config *cfg,
					     struct ram_packet *p, u32 *rule)
{
	struct ram_endpoint remote = {};
	struct ram_peer *peer = NULL;
	struct bpf_sock *sk;
	bool opening;
	u32 reason;

	switch (ram_parse(skb, cfg, p)) {
	case RAM_PARSED_PORTS:
		break;
	case RAM_PARSED_OTHER:
		/* Reachability and group membership, without which nothing works, carry no image. */
		if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6 ||
		    p->protocol == IPPROTO_IGMP)
			return RAM_REASON_ALLOWED_PROTOCOL;
		return RAM_REASON_DENIED_PROTOCOL;
	case RAM_PARSED_FRAGMENT:
		return RAM_REASON_DENIED_FRAGMENT;
	case RAM_PARSED_SOURCE_ROUTE:
		return RAM_REASON_DENIED_SOURCE_ROUTE;
	default:
		return RAM_REASON_DENIED_MALFORMED;
	}

	/* The packet that opens a connection is decided afresh each time. */
	opening = p->protocol == IPPROTO_TCP && (p->tcp_flags & (RAM_TCP_SYN | RAM_TCP_ACK)) == RAM_TCP_SYN;
	sk = skb->sk;
	if (sk)
		sk = bpf_sk_fullsock(sk);
	if (sk && !opening) {
		peer = peers.sk_storage_get(sk, 0, 0);
		if (peer && ram_is_peer(peer, p)) {
			*rule = peer->rule;
			return RAM_REASON_ALLOWED_ESTABLISHED;
		}
	}

	__builtin_memcpy(remote.address, p->destination, 16);
	remote.port = p->destination_port;
	reason = ram_reason_for(cfg, &remote, rule);
	/*
	 * What is let through is remembered, so that the rest of the connection passes by that memory; in
	 * audit mode also what was only reported, or each of its packets would be. A resolver's packets are
	 * looked into one by one, so they are never a known connection.
	 */
	if (sk && reason != RAM_REASON_ALLOWED_RESOLVER && ram_verdict_for(cfg, reason) != RAM_VERDICT_DENY) {
		peer = peers.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (peer) {
			__builtin_memcpy(peer->address, remote.address, 16);
			peer->port = remote.port;
			peer->rule = *rule;
			peer->set = 1;
		}
	}
	if (p->protocol == IPPROTO_TCP && !opening) {
		struct ram_flow flow = {};

		__builtin_memcpy(flow.local, p->source, 16);
		__builtin_memcpy(flow.remote, p->destination, 16);
		flow.local_port = p->source_port;
		flow.remote_port = p->destination_port;
		if (inbound.lookup(&flow))
			return RAM_REASON_ALLOWED_INBOUND;
	}
	return reason;
}

int ram_egress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	u32 reason, verdict, dns, rule = 0;

	if (!cfg)
		return 1;
	reason = ram_egress_reason(skb, cfg, &p, &rule);
	verdict = ram_verdict_for(cfg, reason);
	ram_count(reason);
	if (reason == RAM_REASON_ALLOWED_RESOLVER) {
		dns = RAM_REASON_NONE;
		if (p.protocol == IPPROTO_UDP)
			dns = ram_dns_query(skb, cfg, &p);
		else if ((p.tcp_flags & (RAM_TCP_SYN | RAM_TCP_ACK)) == RAM_TCP_SYN)
			dns = RAM_REASON_DNS_OVER_TCP;
		if (dns != RAM_REASON_NONE)
			ram_count(dns);
	}
	if (verdict != RAM_VERDICT_ALLOW)
		ram_tell_packet(skb, &p, reason, verdict, rule);
	return ram_return(verdict);
}

static __always_inline int ram_sock_addr(struct bpf_sock_addr *ctx, struct ram_endpoint *remote, u32 hook)
{
	struct ram_config *cfg = ram_config();
	struct ram_event event = {};
	u32 reason, verdict, rule = 0;
	bool connecting = hook == RAM_HOOK_INET4_CONNECT || hook == RAM_HOOK_INET6_CONNECT;

	if (!cfg)
		return 1;
	/* Raw and ping sockets connect too, without ports; their packets are judged on egress. */
	if (ctx->type == RAM_SOCK_RAW || ctx->protocol == IPPROTO_ICMP || ctx->protocol == IPPROTO_ICMPV6)
		return 1;
	reason = ram_reason_for(cfg, remote, &rule);
	/*
	 * Connecting a UDP socket sends nothing, and stub resolvers do it to learn which source address an
	 * answer would get (RFC 6724): with port 0 (glibc, without a service) or 9 (Go). Refusing that would
	 * spoil the order of their answers; whatever is sent from such a socket is judged on egress.
	 */
	if (connecting && ctx->type == RAM_SOCK_DGRAM &&
	    (remote->port == 0 || remote->port == RAM_PORT_DISCARD || reason == RAM_REASON_DENIED_PORT))
		return 1;
	verdict = ram_verdict_for(cfg, reason);
	if (verdict != RAM_VERDICT_ALLOW ||
	    (connecting && ctx->type == RAM_SOCK_STREAM && reason != RAM_REASON_ALLOWED_RESOLVER)) {
		ram_count(reason);
		__builtin_memcpy(event.address, remote->address, 16);
		event.port = remote->port;
		event.protocol = ctx->protocol; /* IPPROTO_MPTCP is 262: its low byte is TCP's */
		event.hook = hook;
		event.reason = reason;
		event.verdict = verdict;
		event.rule = rule;
		ram_emit_sock_addr(ctx, &event);
	}
	return ram_return(verdict);
}

static __always_inline int ram_sock_addr4(struct bpf_sock_addr *ctx, u32 hook)
{
	struct ram_endpoint remote = {};
	u32 address = ctx->user_ip4;

	if (address == 0) /* the kernel takes INADDR_ANY as this host, after this hook */
		address = RAM_HTONL(0x7f000001);
	ram_map_ipv4(remote.address, address);
	remote.port = RAM_NTOHS((u16)ctx->user_port);
	return ram_sock_addr(ctx, &remote, hook);
}

static __always_inline int ram_sock_addr6(struct bpf_sock_addr *ctx, u32 hook)
{
	struct ram_endpoint remote = {};

	remote.address[0] = ctx->user_ip6[0];
	remote.address[1] = ctx->user_ip6[1];
	remote.address[2] = ctx->user_ip6[2];
	remote.address[3] = ctx->user_ip6[3];
	if (!(remote.address[0] | remote.address[1] | remote.address[2] | remote.address[3]))
		remote.address[3] = RAM_HTONL(1);
	else if (!(remote.address[0] | remote.address[1] | remote.address[3]) &&
		 remote.address[2] == RAM_HTONL(0xffff))
		remote.address[3] = RAM_HTONL(0x7f000001);
	remote.port = RAM_NTOHS((u16)ctx->user_port);
	return ram_sock_addr(ctx, &remote, hook);
}

int ram_connect4(struct bpf_sock_addr *ctx)
{
	return ram_sock_addr4(ctx, RAM_HOOK_INET4_CONNECT);
}

int ram_connect6(struct bpf_sock_addr *ctx)
{
	return ram_sock_addr6(ctx, RAM_HOOK_INET6_CONNECT);
}

int ram_sendmsg4(struct bpf_sock_addr *ctx)
{
	return ram_sock_addr4(ctx, RAM_HOOK_UDP4_SENDMSG);
}

int ram_sendmsg6(struct bpf_sock_addr *ctx)
{
	return ram_sock_addr6(ctx, RAM_HOOK_UDP6_SENDMSG);
}
