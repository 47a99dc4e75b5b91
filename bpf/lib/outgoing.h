/* SPDX-License-Identifier: Apache-2.0 */
/* The programs that see what leaves a scope: DNS queries are remembered, everything else is judged. */
#ifndef RAM_OUTGOING_H
#define RAM_OUTGOING_H

#include "lib/beginning.h"
#include "lib/established.h"
#include "lib/events.h"
#include "lib/inbound.h"
#include "lib/leave.h"
#include "lib/query.h"
#include "lib/responder.h"
#include "lib/scope.h"
#include "lib/telling.h"
#include "lib/translation.h"
#include "lib/verdict.h"
#include "lib/witness.h"

/* What has no ports is no registry's traffic, as far as anybody can see. */
static __always_inline u32 ram_unless_recognised(struct ram_config *cfg, u32 reason)
{
	return cfg->posture == RAM_POSTURE_STRICT ? reason : RAM_REASON_ALLOWED_OTHER;
}

/* Why a packet may leave. */
static __always_inline u32 ram_egress_reason(struct __sk_buff *skb, struct ram_config *cfg,
					     struct ram_packet *p, u32 scope, u32 *rule)
{
	struct ram_request request = {};
	struct ram_connection *connection, begun = {};
	bool opening, inbound;
	u32 reason, standing;

	switch (ram_parse(skb, cfg, p)) {
	case RAM_PARSED_PORTS:
		break;
	case RAM_PARSED_OTHER:
		/* Reachability and group membership, without which nothing works, carry no image. */
		if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6 ||
		    p->protocol == IPPROTO_IGMP)
			return RAM_REASON_ALLOWED_PROTOCOL;
		return ram_unless_recognised(cfg, RAM_REASON_DENIED_PROTOCOL);
	case RAM_PARSED_ARP:
		return RAM_REASON_ALLOWED_PROTOCOL;
	case RAM_PARSED_FRAGMENT:
		return ram_unless_recognised(cfg, RAM_REASON_DENIED_FRAGMENT);
	case RAM_PARSED_SOURCE_ROUTE:
		return RAM_REASON_DENIED_SOURCE_ROUTE;
	default:
		return RAM_REASON_DENIED_MALFORMED;
	}

	/* The packet that opens a connection is decided afresh each time. */
	opening = ram_opens_connection(p);
	if (ram_is_to_responder(skb, p, opening))
		return RAM_REASON_ALLOWED_RESPONDER;
	if (!opening && ram_is_cut(skb, cfg))
		return RAM_REASON_DENIED_REGISTRY;
	connection = ram_find_connection(skb, p, scope);
	standing = RAM_STANDING_NOT_SAID;
	if (connection && !opening)
		standing = ram_standing_of(cfg, p, connection);
	if (standing == RAM_STANDING_REMOVED)
		return RAM_REASON_DENIED_REMOVED;
	if (connection && standing == RAM_STANDING_HOLDS) {
		u32 passage = ram_passage(skb, p, connection);

		*rule = ram_rule_of(cfg, connection);
		if (passage == RAM_PASSAGE_READ)
			return RAM_REASON_NONE;
		if (passage == RAM_PASSAGE_CUT)
			return RAM_REASON_NAME_MISMATCH;
		if (passage == RAM_PASSAGE_URGENT)
			return RAM_REASON_DENIED_NOT_NAMED;
		return passage == RAM_PASSAGE_EARLY ? RAM_REASON_DENIED_SEGMENT
						    : RAM_REASON_ALLOWED_ESTABLISHED;
	}

	__builtin_memcpy(request.remote.address, p->destination, 16);
	request.remote.port = p->destination_port;
	request.protocol = p->protocol;
	request.scope = scope;
	reason = ram_forget(cfg, ram_reason_for(cfg, &request, rule));
	*rule = ram_forget(cfg, *rule);
	if (ram_may_be_own(cfg, reason)) {
		u64 cookie = bpf_get_socket_cookie(skb);

		if (own_sockets.lookup(&cookie))
			return RAM_REASON_ALLOWED_OWN;
	}
	if (ram_is_denied(reason)) {
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
	inbound = p->protocol == IPPROTO_TCP && !opening && ram_is_inbound(p, scope);
	if (reason != RAM_REASON_ALLOWED_RESOLVER && ram_verdict_for(cfg, reason) != RAM_VERDICT_DENY) {
		if (!inbound && ram_is_to_be_read(cfg, p, reason, *rule))
			return ram_begin_to_read(skb, cfg, p, scope, reason, *rule, connection);
		ram_note_rule(cfg, &begun, *rule, p->destination_port);
		ram_establish(skb, p, scope, &begun);
	}
	if (inbound)
		return RAM_REASON_ALLOWED_INBOUND;
	return reason;
}

/* Whatever it is that a container may not do of which nothing is known yet, it may do it a little later. */
static __always_inline u32 ram_reason_to_count(struct __sk_buff *skb, u32 verdict, u32 reason)
{
	return verdict != RAM_VERDICT_ALLOW && ram_is_new_container(skb) ? RAM_REASON_DENIED_NEW_CONTAINER
									 : reason;
}

/*
 * What is to be read, and whoever reads it is not there yet (beginnings.c): it is dropped, without a word,
 * and sent again. Where nothing is dropped, nothing of the connection is read.
 */
static __always_inline int ram_wait_for_reader(struct __sk_buff *skb, struct ram_config *cfg,
					       const struct ram_packet *p, u32 scope)
{
	struct ram_connection *connection;

	if (ram_verdict_for(cfg, RAM_REASON_DENIED_SEGMENT) == RAM_VERDICT_DENY)
		return RAM_DROP;
	connection = ram_find_connection(skb, p, scope);
	if (connection)
		connection->stage = RAM_STAGE_PASSES;
	return RAM_PASS;
}

RAM_SECOND_HALF int ram_egress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	u32 scope = ram_scope_of(skb);
	u32 reason, verdict, rule = 0;

	if (!cfg)
		return RAM_PASS;
	reason = ram_forget(cfg, ram_egress_reason(skb, cfg, &p, scope, &rule));
	rule = ram_forget(cfg, rule);
	if (reason == RAM_REASON_ALLOWED_RESOLVER && p.payload_offset < p.end) {
		egress_programs.call(skb, RAM_EGRESS_PROGRAM_QUERY);
		/* A call that succeeds does not return. */
		reason = RAM_REASON_DENIED_NOT_A_QUERY;
	}
	if (reason == RAM_REASON_NONE) {
		egress_programs.call(skb, RAM_EGRESS_PROGRAM_BEGINNING);
		return ram_wait_for_reader(skb, cfg, &p, scope);
	}
	verdict = ram_verdict_for(cfg, reason);
	reason = ram_reason_to_count(skb, verdict, reason);
	ram_count(reason);
	if ((verdict != RAM_VERDICT_ALLOW || reason == RAM_REASON_ALLOWED_UNASKED) && !ram_is_silent(skb) &&
	    reason != RAM_REASON_NAME_MISMATCH) /* which was told before */
		ram_tell_packet(skb, &p, scope, reason, verdict, rule);
	return ram_leave(skb, verdict, reason);
}

/* What becomes of a packet with data to a trusted resolver. */
static __always_inline int ram_conclude_query(struct __sk_buff *skb, struct ram_config *cfg,
					      const struct ram_packet *p, u32 scope, u32 reason)
{
	u32 verdict = ram_verdict_for(cfg, reason);

	reason = ram_reason_to_count(skb, verdict, reason);
	ram_count(reason);
	if (verdict != RAM_VERDICT_ALLOW && !ram_is_silent(skb))
		ram_tell_packet(skb, p, scope, reason, verdict, 0);
	return ram_leave(skb, verdict, reason);
}

/* A segment whose reply, or the reply to which it belongs, is to wait until user space has looked into it. */
static __always_inline void ram_hand_over_query(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
						u32 rule)
{
	ram_count(RAM_REASON_DNS_OVER_TCP);
	ram_tell_query(skb, p, scope, rule, ram_hold_replies(p, scope));
}

RAM_SECOND_HALF int ram_query(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_asked asked = {};
	u32 reason = RAM_REASON_ALLOWED_RESOLVER;
	struct ram_packet p = {};
	u32 scope = ram_scope_of(skb);
	u32 strict;

	if (!cfg)
		return RAM_PASS;
	if (ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_DROP; /* it had ports a moment ago */
	ram_undo_translation(skb, cfg, &p);
	strict = ram_forget(cfg, cfg->flags & RAM_CONFIG_ALLOWED_NAMES_ONLY);
	ram_read_query(skb, cfg, &p, &asked);
	/* What is neither learned from nor refused need not be looked up. */
	if (asked.message && (asked.relevant || strict)) {
		ram_find_alias(scope, &asked);
		ram_pass_query(skb, &asked);
		egress_programs.call(skb, RAM_EGRESS_PROGRAM_RULE);
		/* A call that succeeds does not return. */
		asked.message = 0;
	}
	if (!asked.message && p.protocol == IPPROTO_UDP)
		ram_count(RAM_REASON_DNS_NOT_A_QUERY);
	if (!asked.message && strict)
		reason = RAM_REASON_DENIED_NOT_A_QUERY;
	/* What nothing can be learned from need not wait, unless it may be a piece of something else. */
	else if (p.protocol == IPPROTO_TCP && (!asked.message || ram_is_held(&p, scope)))
		ram_hand_over_query(skb, &p, scope, 0);
	return ram_conclude_query(skb, cfg, &p, scope, ram_forget(cfg, reason));
}

RAM_SECOND_HALF int ram_query_rule(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	u32 reason = RAM_REASON_ALLOWED_RESOLVER;
	struct ram_asked asked = {};
	struct ram_packet p = {};
	u32 scope = ram_scope_of(skb);
	u32 listed;

	if (!cfg)
		return RAM_PASS;
	if (ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_DROP;
	ram_undo_translation(skb, cfg, &p);
	ram_take_query(skb, cfg, &asked);
	ram_find_rule(skb, cfg, p.end, &asked);
	listed = ram_forget(cfg, asked.rule | asked.alias);
	if (!listed && (cfg->flags & RAM_CONFIG_ALLOWED_NAMES_ONLY))
		reason = RAM_REASON_DENIED_QUERY_NAME;
	if (ram_verdict_for(cfg, reason) != RAM_VERDICT_DENY) {
		if (p.protocol == IPPROTO_UDP) {
			if (asked.relevant)
				ram_await_reply(skb, &p, scope, &asked);
		} else if ((listed && asked.relevant) || ram_is_held(&p, scope)) {
			ram_hand_over_query(skb, &p, scope, asked.rule ? asked.rule : asked.alias);
		}
	}
	return ram_conclude_query(skb, cfg, &p, scope, ram_forget(cfg, reason));
}

#endif
