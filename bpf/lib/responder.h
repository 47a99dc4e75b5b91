/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The refusal responder: connect() to a refused endpoint is led to a socket of user space that says why, in
 * words that the client prints. It is reached over loopback, so only from its own network namespace: whether
 * the socket that connects is there is told by a lookup of the listener from that socket's namespace
 * (bpf_get_netns_cookie needs Linux 5.7). The listener is known by its SO_PRIORITY, a secret of this start,
 * so nobody else who has the port is taken for it. Where there is no listener, or user space is dead, a
 * refusal is EPERM as without a responder.
 */
#ifndef RAM_RESPONDER_H
#define RAM_RESPONDER_H

#include "lib/hold.h"
#include "lib/verdict.h"

#define RAM_STATE_LISTEN 10 /* BPF_TCP_LISTEN, include/uapi/linux/bpf.h */

static __always_inline struct ram_responder *ram_responder(void)
{
	u32 zero = 0;
	struct ram_responder *found = responder.lookup(&zero);

	return found && found->port ? found : NULL;
}

/*
 * Whether a refusal can be said in the words of a registry. Not where an allowed name is to be looked up, or
 * tried, again: that the policy blocks it would not be true.
 */
static __always_inline bool ram_can_be_answered(u32 reason)
{
	return reason == RAM_REASON_DENIED_UNKNOWN_ADDRESS || reason == RAM_REASON_DENIED_PORT ||
	       reason == RAM_REASON_DENIED_REGISTRY || reason == RAM_REASON_DENIED_REGISTRY_PORT;
}

#ifdef RAM_TC
/* What crosses a device goes to no responder: that is on the loopback interface of its namespace. */
static __always_inline bool ram_is_to_responder(struct __sk_buff *skb, const struct ram_packet *p,
						bool opening)
{
	return false;
}
#else
static __always_inline bool ram_is_same_address(const u32 *a, const u32 *b)
{
	return a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3];
}

/*
 * Whether a packet belongs to a connection that was led to the responder. Only the first one needs to be
 * looked at closely: without it there is no connection that others could belong to.
 */
static __always_inline bool ram_is_to_responder(struct __sk_buff *skb, const struct ram_packet *p,
						bool opening)
{
	struct ram_responder *there = ram_responder();
	struct ram_endpoint client = {};
	struct ram_led *found;
	u64 cookie;

	if (!there || p->protocol != IPPROTO_TCP || p->destination_port != there->port ||
	    !(ram_is_same_address(p->destination, there->ipv4) ||
	      ram_is_same_address(p->destination, there->ipv6)))
		return false;
	if (!opening)
		return true;
	cookie = bpf_get_socket_cookie(skb);
	found = led_sockets.lookup(&cookie);
	if (!found)
		return false;
	/* Its own end is what the responder sees of it. */
	__builtin_memcpy(client.address, p->source, 16);
	client.port = p->source_port;
	led.update(&client, found);
	return true;
}

/* Whether the responder listens in the network namespace of the socket that connects. */
static __always_inline bool ram_is_responder_here(struct bpf_sock_addr *ctx,
						  const struct ram_responder *there, bool ipv4)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *listener;
	bool ours;

	if (ipv4) {
		tuple.ipv4.daddr = there->ipv4[3];
		tuple.ipv4.dport = RAM_HTONS(there->port);
		listener = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, there->ipv6, 16);
		tuple.ipv6.dport = RAM_HTONS(there->port);
		listener = bpf_sk_lookup_tcp(ctx, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!listener)
		return false;
	ours = listener->priority == there->priority && listener->state == RAM_STATE_LISTEN;
	bpf_sk_release(listener);
	return ours;
}

/* Leads a connection that is refused to the responder. Returns false where it cannot, and is to be EPERM. */
static __always_inline bool ram_lead(struct bpf_sock_addr *ctx, const struct ram_request *request, u32 reason,
				     bool ipv6_hook)
{
	struct ram_responder *there = ram_responder();
	u32 port = request->remote.port, zero = 0;
	struct bpf_sock *sk = ctx->sk;
	struct ram_led what = {};
	u64 cookie, *seen;
	bool ipv4;

	if (!there || request->protocol != IPPROTO_TCP || !ram_can_be_answered(reason) ||
	    !responder_ports.lookup(&port))
		return false;
	/* Bound to a device it does not come to loopback, but would leave by that device. */
	if (!sk || sk->bound_dev_if)
		return false;
	seen = alive.lookup(&zero);
	if (!seen || ram_is_past(ram_now(), *seen, RAM_ALIVE_NS))
		return false;
	ipv4 = !(request->remote.address[0] | request->remote.address[1]) &&
	       request->remote.address[2] == RAM_HTONL(0xffff);
	if (!ram_is_responder_here(ctx, there, ipv4))
		return false;
	what.time_ns = ram_now();
	__builtin_memcpy(what.address, request->remote.address, 16);
	what.scope = request->scope;
	what.port = port;
	what.reason = reason;
	cookie = bpf_get_socket_cookie(ctx);
	if (led_sockets.update(&cookie, &what))
		return false;
	if (!ipv6_hook) {
		ctx->user_ip4 = there->ipv4[3];
	} else if (ipv4) {
		ctx->user_ip6[3] = there->ipv4[3]; /* an IPv4-mapped address remains one */
	} else {
		ctx->user_ip6[0] = there->ipv6[0];
		ctx->user_ip6[1] = there->ipv6[1];
		ctx->user_ip6[2] = there->ipv6[2];
		ctx->user_ip6[3] = there->ipv6[3];
	}
	ctx->user_port = RAM_HTONS(there->port);
	return true;
}
#endif

#endif
