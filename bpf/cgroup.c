// SPDX-License-Identifier: Apache-2.0
/*
 * Entry points for a cgroup: cgroup_skb for what crosses its sockets, sock_addr for connect() and sendmsg().
 *
 * A refusal at connect() or sendmsg() reaches the program at once as EPERM. Whatever gets past those hooks
 * (raw IP sockets, sockets opened before we came) is dropped on egress. Packet sockets (AF_PACKET) pass no
 * hook of a cgroup; SECURITY.md says so.
 */
#include "abi.h"

#include "lib/events.h"
#include "lib/incoming.h"
#include "lib/l3l4.h"
#include "lib/maps.h"
#include "lib/nearest.h"
#include "lib/outgoing.h"
#include "lib/responder.h"
#include "lib/verdict.h"
#include "lib/witness.h"

#define RAM_PORT_DISCARD 9 /* RFC 863 */

/* enum sock_type, include/linux/net.h: the same on all architectures that have BPF but MIPS */
#define RAM_SOCK_STREAM 1
#define RAM_SOCK_DGRAM 2

/* On the cgroup of a resolver of this host, whether or not that is governed. Never refuses. */
RAM_FIRST_HALF int ram_witness(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS || p.protocol != IPPROTO_UDP ||
	    !ram_is_from_local_resolver(skb, cfg, &p))
		return 1;
	ram_leave_fingerprint(skb, cfg, &p);
	return 1;
}

/* What is attached to a scope: it knows the scope's number, and leaves the rest to programs that all share.
 */
RAM_FIRST_HALF int ram_scope_ingress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	u32 place = ram_place_of_program();

	if (!cfg || ram_is_left_to_others(cfg, bpf_get_socket_cookie(skb), place))
		return 1;
	skb->cb[RAM_CB_SCOPE] = place & RAM_PLACE_MASK;
	ingress_programs.call(skb, RAM_INGRESS_PROGRAM_MAIN);
	return 1;
}

RAM_SECOND_HALF int ram_scope_egress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	u32 place = ram_place_of_program();

	if (cfg && ram_is_left_to_others(cfg, bpf_get_socket_cookie(skb), place))
		return 1;
	skb->cb[RAM_CB_SCOPE] = place & RAM_PLACE_MASK;
	egress_programs.call(skb, RAM_EGRESS_PROGRAM_MAIN);
	return 0; /* not reached; and if it were, nothing would leave unjudged */
}

/*
 * A resolver that lives in the scope answers clients on this host, at ports that nobody could list. Its
 * packets are judged on egress, where it shows by what it is sent.
 */
static __always_inline bool ram_is_local_resolver_socket(struct bpf_sock_addr *ctx, bool is_ipv6)
{
	struct ram_endpoint source = {};
	struct bpf_sock *sk = ctx->sk;
	u64 cookie = bpf_get_socket_cookie(ctx);
	u32 *flags;

	if (resolver_sockets.lookup(&cookie))
		return true;
	if (!sk || is_ipv6)
		return false;
	ram_map_ipv4(source.address, sk->src_ip4);
	source.port = RAM_PORT_DNS;
	flags = resolvers.lookup(&source);
	return flags && (*flags & RAM_RESOLVER_TRANSLATED);
}

/* At connect() and at sendmsg(): which of the two, the program's place says. */
static __always_inline int ram_judge_sock_addr(struct bpf_sock_addr *ctx, struct ram_request *request,
					       bool is_ipv6)
{
	struct ram_config *cfg = ram_config();
	struct ram_event event = {};
	u32 place, reason, verdict, rule = 0;
	u64 cookie;
	bool connecting;

	if (!cfg)
		return 1;
	/* Raw and ping sockets connect too, without ports; their packets are judged on egress. */
	if (ctx->type == RAM_SOCK_RAW || ctx->protocol == IPPROTO_ICMP || ctx->protocol == IPPROTO_ICMPV6)
		return 1;
	place = ram_place_of_program();
	cookie = bpf_get_socket_cookie(ctx);
	if (ram_is_left_to_others(cfg, cookie, place))
		return 1;
	connecting = !(place & RAM_PLACE_SENDMSG);
	request->scope = place & RAM_SCOPE_MASK;
	request->protocol = ctx->protocol;
	reason = ram_forget(cfg, ram_reason_for(cfg, request, &rule));
	rule = ram_forget(cfg, rule);
	if (ram_may_be_own(cfg, reason) && own_sockets.lookup(&cookie))
		reason = RAM_REASON_ALLOWED_OWN;
	if (!connecting && ram_is_denied(reason) && ram_is_local_resolver_socket(ctx, is_ipv6))
		return 1;
	/*
	 * Connecting a UDP socket sends nothing, and stub resolvers do it to learn which source address an
	 * answer would get (RFC 6724): with port 0 (glibc, without a service) or 9 (Go). Refusing that would
	 * spoil the order of their answers; whatever is sent from such a socket is judged on egress.
	 */
	if (connecting && ctx->type == RAM_SOCK_DGRAM &&
	    (request->remote.port == 0 || request->remote.port == RAM_PORT_DISCARD ||
	     reason == RAM_REASON_DENIED_PORT || reason == RAM_REASON_DENIED_NOT_NAMED))
		return 1;
	verdict = ram_verdict_for(cfg, reason);
	if (verdict != RAM_VERDICT_ALLOW ||
	    (connecting && ctx->type == RAM_SOCK_STREAM && !ram_is_unremarkable(reason))) {
		ram_count(reason);
		__builtin_memcpy(event.address, request->remote.address, 16);
		event.port = request->remote.port;
		event.protocol = ctx->protocol; /* IPPROTO_MPTCP is 262: its low byte is TCP's */
		if (is_ipv6)
			event.hook = connecting ? RAM_HOOK_INET6_CONNECT : RAM_HOOK_UDP6_SENDMSG;
		else
			event.hook = connecting ? RAM_HOOK_INET4_CONNECT : RAM_HOOK_UDP4_SENDMSG;
		event.reason = reason;
		event.verdict = verdict;
		event.rule = rule;
		event.scope = request->scope;
		ram_emit_sock_addr(ctx, &event);
	}
	if (connecting && verdict == RAM_VERDICT_DENY && ctx->type == RAM_SOCK_STREAM &&
	    ram_lead(ctx, request, reason, is_ipv6))
		return 1;
	return ram_return(verdict);
}

RAM_SECOND_HALF int ram_sock_addr4(struct bpf_sock_addr *ctx)
{
	struct ram_request request = {};
	u32 address = ctx->user_ip4;

	if (address == 0) /* the kernel takes INADDR_ANY as this host, after this hook */
		address = RAM_HTONL(0x7f000001);
	ram_map_ipv4(request.remote.address, address);
	request.remote.port = RAM_NTOHS((u16)ctx->user_port);
	return ram_judge_sock_addr(ctx, &request, false);
}

RAM_FIRST_HALF int ram_sock_addr6(struct bpf_sock_addr *ctx)
{
	struct ram_request request = {};

	request.remote.address[0] = ctx->user_ip6[0];
	request.remote.address[1] = ctx->user_ip6[1];
	request.remote.address[2] = ctx->user_ip6[2];
	request.remote.address[3] = ctx->user_ip6[3];
	if (!(request.remote.address[0] | request.remote.address[1] | request.remote.address[2] |
	      request.remote.address[3]))
		request.remote.address[3] = RAM_HTONL(1);
	else if (!(request.remote.address[0] | request.remote.address[1] | request.remote.address[3]) &&
		 request.remote.address[2] == RAM_HTONL(0xffff))
		request.remote.address[3] = RAM_HTONL(0x7f000001);
	request.remote.port = RAM_NTOHS((u16)ctx->user_port);
	return ram_judge_sock_addr(ctx, &request, true);
}
