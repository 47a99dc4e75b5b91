// SPDX-License-Identifier: Apache-2.0
/*
 * Entry points for a cgroup: cgroup_skb for what crosses its sockets, sock_addr for connect() and sendmsg().
 *
 * A refusal at connect() or sendmsg() reaches the program at once as EPERM. Whatever gets past those hooks
 * (raw IP sockets, sockets opened before we came) is dropped on egress. Packet sockets (AF_PACKET) pass no
 * hook of a cgroup; SECURITY.md says so.
 */
#include "abi.h"

#include "lib/answers.h"
#include "lib/events.h"
#include "lib/hold.h"
#include "lib/l3l4.h"
#include "lib/maps.h"
#include "lib/query.h"
#include "lib/reply.h"
#include "lib/verdict.h"
#include "lib/witness.h"

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

/* The scope that this program is attached to. */
static __always_inline u32 ram_scope_of_program(void)
{
	u32 zero = 0, *number = scope_self.lookup(&zero);

	return number ? *number : RAM_SCOPES_MAX;
}

static __always_inline bool ram_is_peer(const struct ram_peer *peer, const struct ram_packet *p)
{
	return peer->set && peer->port == p->destination_port && peer->address[0] == p->destination[0] &&
	       peer->address[1] == p->destination[1] && peer->address[2] == p->destination[2] &&
	       peer->address[3] == p->destination[3];
}

/* Events are made in functions of their own, so that they share the stack with what came before them. */
static __always_inline void ram_tell_packet(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					    u32 reason, u32 verdict, u32 rule)
{
	bool dns = reason == RAM_REASON_DENIED_QUERY_NAME || reason == RAM_REASON_DENIED_NOT_A_QUERY;
	struct ram_event event = {};

	__builtin_memcpy(event.address, p->destination, 16);
	event.port = p->destination_port;
	event.protocol = p->protocol;
	event.hook = RAM_HOOK_INET_EGRESS;
	event.reason = reason;
	event.verdict = verdict;
	event.rule = rule;
	event.scope = scope;
	if (dns)
		event.dns_offset = p->payload_offset;
	ram_emit_skb(skb, &event, dns ? p->end : 0);
}

/* Of a query over TCP, which user space is to look into. */
static __always_inline void ram_tell_query(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					   u32 rule, u32 queries_sent)
{
	struct ram_event event = {};

	__builtin_memcpy(event.address, p->destination, 16);
	event.port = p->destination_port;
	event.protocol = p->protocol;
	event.hook = RAM_HOOK_INET_EGRESS;
	event.reason = RAM_REASON_DNS_OVER_TCP;
	event.rule = rule;
	event.scope = scope;
	event.dns_offset = p->payload_offset;
	event.detail = queries_sent;
	ram_emit_question(skb, &event, p->end);
}

static __always_inline void ram_note_inbound(const struct ram_packet *p, u32 scope)
{
	void *inbound_here = inbound.lookup(&scope);
	struct ram_flow flow = {};
	u64 now = ram_now();

	if (!inbound_here)
		return;
	ram_flow_of_incoming(p, &flow);
	ram_map_update(inbound_here, &flow, &now, 0);
}

static __always_inline bool ram_is_inbound(const struct ram_packet *p, u32 scope)
{
	void *inbound_here = inbound.lookup(&scope);
	struct ram_flow flow = {};

	if (!inbound_here)
		return false;
	ram_flow_of_outgoing(p, &flow);
	return ram_map_lookup(inbound_here, &flow) != NULL;
}

static __always_inline bool ram_opens_connection(const struct ram_packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (RAM_TCP_SYN | RAM_TCP_ACK)) == RAM_TCP_SYN;
}

/* Whether an incoming TCP segment may be received now. */
static __always_inline int ram_receive_segment(struct ram_config *cfg, const struct ram_packet *p, u32 scope)
{
	if (ram_opens_connection(p))
		ram_note_inbound(p, scope);
	if (p->payload_offset >= p->end ||
	    (p->source_port != RAM_PORT_DNS && !(cfg->flags & RAM_CONFIG_OTHER_DNS_PORTS)) ||
	    !ram_must_wait(cfg, p, scope))
		return 1;
	ram_count(RAM_REASON_DNS_HELD);
	return 0;
}

/* Counts what became of a reply, and has a program with a stack of its own tell it. */
static __always_inline int ram_conclude(struct __sk_buff *skb, u32 reason, u32 rule)
{
	ram_count(reason);
	skb->cb[RAM_CB_TICKET] = reason;
	skb->cb[RAM_CB_RULE] = rule;
	ingress_programs.call(skb, RAM_INGRESS_PROGRAM_TELL);
	return 1;
}

int ram_tell(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_event event = {};
	struct ram_packet p = {};

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return 1;
	__builtin_memcpy(event.address, p.source, 16);
	event.port = p.source_port;
	event.protocol = p.protocol;
	event.hook = RAM_HOOK_INET_INGRESS;
	event.reason = skb->cb[RAM_CB_TICKET];
	event.rule = skb->cb[RAM_CB_RULE];
	event.scope = ram_scope_of(skb);
	event.dns_offset = p.payload_offset;
	if (event.rule && ram_is_handed_over(event.reason))
		ram_emit_question(skb, &event, p.end);
	else
		ram_emit_skb(skb, &event, p.end);
	return 1;
}

int ram_ingress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	struct ram_reply reply = {};
	u32 scope = ram_scope_of(skb);
	u32 reason;

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return 1;
	if (p.protocol == IPPROTO_TCP)
		return ram_receive_segment(cfg, &p, scope);
	reason = ram_match_reply(skb, cfg, &p, scope, &reply);
	if (reason == RAM_REASON_NONE)
		return 1;
	if (reason == RAM_REASON_DNS_LEARNED) {
		skb->cb[RAM_CB_MESSAGE] = p.end << 16 | (p.payload_offset & 0xffff);
		skb->cb[RAM_CB_TICKET] = 0;
		skb->cb[RAM_CB_SCOPE] = (scope & 0xffff) | (u32)reply.depth << 16;
		skb->cb[RAM_CB_RULE] = reply.rule ? reply.rule : reply.alias;
		skb->cb[RAM_CB_ALIAS] = reply.rule ? reply.alias : 0;
		if (reply.qtype == RAM_DNS_TYPE_A || reply.qtype == RAM_DNS_TYPE_AAAA)
			ingress_programs.call(skb, RAM_INGRESS_PROGRAM_ANSWERS);
		else
			ingress_programs.call(skb, RAM_INGRESS_PROGRAM_HINTS);
		/* A call that succeeds does not return. */
		reason = RAM_REASON_DNS_TOO_MANY;
	}
	return ram_conclude(skb, reason, reply.rule ? reply.rule : reply.alias);
}

static __always_inline int ram_learn_reply(struct __sk_buff *skb, bool hints)
{
	struct ram_config *cfg = ram_config();
	u32 scope = ram_scope_of(skb);
	u32 reason = RAM_REASON_DNS_MALFORMED;
	struct ram_dns_header header;
	struct ram_reading r = {};

	if (!cfg)
		return 1;
	r.skb = skb;
	r.cfg = cfg;
	r.now = ram_now();
	r.learned_here = learned.lookup(&scope);
	if (r.learned_here && !ram_dns_header(skb, ram_message_offset(skb), ram_message_end(skb), &header)) {
		r.answers = header.answers;
		reason = ram_read_answers(&r, hints);
		/* Some clients use what is in a truncated reply, so it is learned; the rest is asked for. */
		if (reason != RAM_REASON_NONE && (header.flags[0] & RAM_DNS_TC))
			reason = RAM_REASON_DNS_TRUNCATED;
		if (reason == RAM_REASON_NONE) {
			ingress_programs.call(skb, hints ? RAM_INGRESS_PROGRAM_HINTS
							 : RAM_INGRESS_PROGRAM_ANSWERS);
			reason = RAM_REASON_DNS_TOO_MANY;
		}
	}
	return ram_conclude(skb, reason, skb->cb[RAM_CB_RULE]);
}

int ram_answers(struct __sk_buff *skb)
{
	return ram_learn_reply(skb, false);
}

int ram_hints(struct __sk_buff *skb)
{
	return ram_learn_reply(skb, true);
}

/* Docker's resolver is asked on port 53, which NAT turns into another one before the packet comes here. */
static __always_inline bool ram_is_translated_resolver(struct __sk_buff *skb, struct ram_config *cfg,
						       const struct ram_packet *p)
{
	struct ram_endpoint untranslated = {};
	u32 *flags;

	if (cfg->loopback_ifindex && skb->ifindex != cfg->loopback_ifindex)
		return false;
	__builtin_memcpy(untranslated.address, p->destination, 16);
	untranslated.port = RAM_PORT_DNS;
	flags = resolvers.lookup(&untranslated);
	return flags && (*flags & RAM_RESOLVER_TRANSLATED);
}

/* A translated resolver answers from the port that the client knows. */
static __always_inline void ram_undo_translation(struct __sk_buff *skb, struct ram_config *cfg,
						 struct ram_packet *p)
{
	u32 port = p->destination_port;

	if (ram_is_translated_resolver(skb, cfg, p))
		port = RAM_PORT_DNS;
	p->destination_port = ram_forget(cfg, port);
}

/* Why a packet may leave. */
static __always_inline u32 ram_egress_reason(struct __sk_buff *skb, struct ram_config *cfg,
					     struct ram_packet *p, u32 scope, u32 *rule)
{
	struct ram_request request = {};
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
	opening = ram_opens_connection(p);
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

	__builtin_memcpy(request.remote.address, p->destination, 16);
	request.remote.port = p->destination_port;
	request.protocol = p->protocol;
	request.scope = scope;
	reason = ram_reason_for(cfg, &request, rule);
	if (reason >= RAM_REASON_DENIED_UNKNOWN_ADDRESS) {
		if (ram_is_translated_resolver(skb, cfg, p))
			return RAM_REASON_ALLOWED_RESOLVER;
		if (!opening && ram_is_from_local_resolver(skb, cfg, p))
			return RAM_REASON_ALLOWED_RESOLVER_REPLY;
	}
	/*
	 * What is let through is remembered, so that the rest of the connection passes by that memory; in
	 * audit mode also what was only reported, or each of its packets would be. A resolver's packets are
	 * looked into one by one, so they are never a known connection.
	 */
	if (sk && reason != RAM_REASON_ALLOWED_RESOLVER && ram_verdict_for(cfg, reason) != RAM_VERDICT_DENY) {
		peer = peers.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (peer) {
			__builtin_memcpy(peer->address, request.remote.address, 16);
			peer->port = request.remote.port;
			peer->rule = *rule;
			peer->set = 1;
		}
	}
	if (p->protocol == IPPROTO_TCP && !opening && ram_is_inbound(p, scope))
		return RAM_REASON_ALLOWED_INBOUND;
	return reason;
}

int ram_egress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	u32 scope = ram_scope_of(skb);
	u32 reason, verdict, rule = 0;

	if (!cfg)
		return 1;
	reason = ram_egress_reason(skb, cfg, &p, scope, &rule);
	if (reason == RAM_REASON_ALLOWED_RESOLVER && p.payload_offset < p.end) {
		egress_programs.call(skb, RAM_EGRESS_PROGRAM_QUERY);
		/* A call that succeeds does not return. */
		reason = RAM_REASON_DENIED_NOT_A_QUERY;
	}
	verdict = ram_verdict_for(cfg, reason);
	ram_count(reason);
	if (verdict != RAM_VERDICT_ALLOW)
		ram_tell_packet(skb, &p, scope, reason, verdict, rule);
	return ram_return(verdict);
}

/* What becomes of a packet with data to a trusted resolver. */
static __always_inline int ram_conclude_query(struct __sk_buff *skb, struct ram_config *cfg,
					      const struct ram_packet *p, u32 scope, u32 reason)
{
	u32 verdict = ram_verdict_for(cfg, reason);

	ram_count(reason);
	if (verdict != RAM_VERDICT_ALLOW)
		ram_tell_packet(skb, p, scope, reason, verdict, 0);
	return ram_return(verdict);
}

/* A segment whose reply, or the reply to which it belongs, is to wait until user space has looked into it. */
static __always_inline void ram_hand_over_query(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
						u32 rule)
{
	ram_count(RAM_REASON_DNS_OVER_TCP);
	ram_tell_query(skb, p, scope, rule, ram_hold_replies(p, scope));
}

int ram_query(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_asked asked = {};
	struct ram_packet p = {};
	u32 scope = ram_scope_of(skb);
	u32 strict;

	if (!cfg)
		return 1;
	if (ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return 0; /* it had ports a moment ago */
	ram_undo_translation(skb, cfg, &p);
	strict = ram_forget(cfg, cfg->flags & RAM_CONFIG_ALLOWED_NAMES_ONLY);
	ram_read_query(skb, cfg, &p, &asked);
	/* What is neither learned from nor refused need not be looked up. */
	if (asked.message && (asked.relevant || strict)) {
		ram_find_alias(scope, &asked);
		ram_pass_query(skb, scope, &asked);
		egress_programs.call(skb, RAM_EGRESS_PROGRAM_RULE);
		/* A call that succeeds does not return. */
		asked.message = 0;
	}
	if (!asked.message && p.protocol == IPPROTO_UDP)
		ram_count(RAM_REASON_DNS_NOT_A_QUERY);
	if (!asked.message && strict)
		return ram_conclude_query(skb, cfg, &p, scope, RAM_REASON_DENIED_NOT_A_QUERY);
	/* What nothing can be learned from need not wait, unless it may be a piece of something else. */
	if (p.protocol == IPPROTO_TCP && (!asked.message || ram_is_held(&p, scope)))
		ram_hand_over_query(skb, &p, scope, 0);
	return ram_conclude_query(skb, cfg, &p, scope, RAM_REASON_ALLOWED_RESOLVER);
}

int ram_query_rule(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	u32 reason = RAM_REASON_ALLOWED_RESOLVER;
	struct ram_asked asked = {};
	struct ram_packet p = {};
	u32 scope = ram_scope_of(skb);
	u32 listed;

	if (!cfg)
		return 1;
	if (ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return 0;
	ram_undo_translation(skb, cfg, &p);
	ram_take_query(skb, cfg, &asked);
	ram_find_rule(skb, cfg, p.end, &asked);
	listed = ram_forget(cfg, asked.rule | asked.alias);
	if (!listed && (cfg->flags & RAM_CONFIG_ALLOWED_NAMES_ONLY))
		reason = RAM_REASON_DENIED_QUERY_NAME;
	if (ram_verdict_for(cfg, reason) == RAM_VERDICT_DENY)
		return ram_conclude_query(skb, cfg, &p, scope, reason);
	if (p.protocol == IPPROTO_UDP) {
		if (asked.relevant)
			ram_await_reply(skb, &p, scope, &asked);
	} else if ((listed && asked.relevant) || ram_is_held(&p, scope)) {
		ram_hand_over_query(skb, &p, scope, asked.rule ? asked.rule : asked.alias);
	}
	return ram_conclude_query(skb, cfg, &p, scope, reason);
}

/* On the cgroup of a resolver of this host, whether or not that is governed. Never refuses. */
int ram_witness(struct __sk_buff *skb)
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
int ram_scope_ingress(struct __sk_buff *skb)
{
	skb->cb[RAM_CB_SCOPE] = ram_scope_of_program();
	ingress_programs.call(skb, RAM_INGRESS_PROGRAM_MAIN);
	return 1;
}

int ram_scope_egress(struct __sk_buff *skb)
{
	skb->cb[RAM_CB_SCOPE] = ram_scope_of_program();
	egress_programs.call(skb, RAM_EGRESS_PROGRAM_MAIN);
	return 0; /* not reached; and if it were, nothing would leave unjudged */
}

/*
 * A resolver that lives in the scope answers clients on this host, at ports that nobody could list. Its
 * packets are judged on egress, where it shows by what it is sent.
 */
static __always_inline bool ram_is_local_resolver_socket(struct bpf_sock_addr *ctx, u32 hook)
{
	struct ram_endpoint source = {};
	struct bpf_sock *sk = ctx->sk;
	u64 cookie = bpf_get_socket_cookie(ctx);
	u32 *flags;

	if (resolver_sockets.lookup(&cookie))
		return true;
	if (!sk || hook != RAM_HOOK_UDP4_SENDMSG)
		return false;
	ram_map_ipv4(source.address, sk->src_ip4);
	source.port = RAM_PORT_DNS;
	flags = resolvers.lookup(&source);
	return flags && (*flags & RAM_RESOLVER_TRANSLATED);
}

static __always_inline int ram_sock_addr(struct bpf_sock_addr *ctx, struct ram_request *request, u32 hook)
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
	request->scope = ram_scope_of_program();
	request->protocol = ctx->protocol;
	reason = ram_reason_for(cfg, request, &rule);
	if (!connecting && reason >= RAM_REASON_DENIED_UNKNOWN_ADDRESS &&
	    ram_is_local_resolver_socket(ctx, hook))
		return 1;
	/*
	 * Connecting a UDP socket sends nothing, and stub resolvers do it to learn which source address an
	 * answer would get (RFC 6724): with port 0 (glibc, without a service) or 9 (Go). Refusing that would
	 * spoil the order of their answers; whatever is sent from such a socket is judged on egress.
	 */
	if (connecting && ctx->type == RAM_SOCK_DGRAM &&
	    (request->remote.port == 0 || request->remote.port == RAM_PORT_DISCARD ||
	     reason == RAM_REASON_DENIED_PORT))
		return 1;
	verdict = ram_verdict_for(cfg, reason);
	if (verdict != RAM_VERDICT_ALLOW ||
	    (connecting && ctx->type == RAM_SOCK_STREAM && reason != RAM_REASON_ALLOWED_RESOLVER)) {
		ram_count(reason);
		__builtin_memcpy(event.address, request->remote.address, 16);
		event.port = request->remote.port;
		event.protocol = ctx->protocol; /* IPPROTO_MPTCP is 262: its low byte is TCP's */
		event.hook = hook;
		event.reason = reason;
		event.verdict = verdict;
		event.rule = rule;
		event.scope = request->scope;
		ram_emit_sock_addr(ctx, &event);
	}
	return ram_return(verdict);
}

static __always_inline int ram_sock_addr4(struct bpf_sock_addr *ctx, u32 hook)
{
	struct ram_request request = {};
	u32 address = ctx->user_ip4;

	if (address == 0) /* the kernel takes INADDR_ANY as this host, after this hook */
		address = RAM_HTONL(0x7f000001);
	ram_map_ipv4(request.remote.address, address);
	request.remote.port = RAM_NTOHS((u16)ctx->user_port);
	return ram_sock_addr(ctx, &request, hook);
}

static __always_inline int ram_sock_addr6(struct bpf_sock_addr *ctx, u32 hook)
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
	return ram_sock_addr(ctx, &request, hook);
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
