/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs that see what comes in to a scope: DNS replies are read before their receiver has them, and
 * opens what they allow. Nothing is refused here; a segment of a reply over TCP may have to wait.
 */
#ifndef RAM_INCOMING_H
#define RAM_INCOMING_H

#include "lib/answers.h"
#include "lib/beginning.h"
#include "lib/events.h"
#include "lib/inbound.h"
#include "lib/leave.h"
#include "lib/reply.h"
#include "lib/scope.h"

/* Whether an incoming TCP segment may be received now. */
static __always_inline int ram_receive_segment(struct __sk_buff *skb, struct ram_config *cfg,
					       const struct ram_packet *p, u32 scope)
{
	if (ram_opens_connection(p))
		ram_note_inbound(p, scope);
#ifdef RAM_TC
	else if (p->tcp_flags & RAM_TCP_SYN)
		ram_note_answer(skb, p, scope);
#endif
	if (p->payload_offset >= p->end ||
	    (p->source_port != RAM_PORT_DNS && !(cfg->flags & RAM_CONFIG_OTHER_DNS_PORTS)) ||
	    !ram_must_wait(cfg, p, scope))
		return RAM_PASS;
	ram_count(RAM_REASON_DNS_HELD);
	return RAM_DROP;
}

/* Counts what became of a reply, and has a program with a stack of its own tell it. */
static __always_inline int ram_conclude(struct __sk_buff *skb, u32 reason, u32 rule)
{
	/* Replies to those who are known pass the bridge as well. */
	if (ram_is_new_container(skb) &&
	    (reason == RAM_REASON_DNS_NO_QUERY || reason == RAM_REASON_DNS_UNTRUSTED_SENDER))
		return RAM_PASS;
	ram_count(reason);
	skb->cb[RAM_CB_TICKET] = reason;
	skb->cb[RAM_CB_RULE] = rule;
	ingress_programs.call(skb, RAM_INGRESS_PROGRAM_TELL);
	return RAM_PASS;
}

RAM_FIRST_HALF int ram_tell(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_event event = {};
	struct ram_packet p = {};

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_PASS;
	__builtin_memcpy(event.address, p.source, 16);
	event.port = p.source_port;
	event.protocol = p.protocol;
	event.hook = RAM_HOOK_INCOMING;
	event.link_len = p.network;
	event.reason = skb->cb[RAM_CB_TICKET];
	event.rule = skb->cb[RAM_CB_RULE];
	event.scope = ram_scope_of(skb);
	event.dns_offset = p.payload_offset;
	if (event.rule && ram_is_handed_over(event.reason))
		ram_emit_question(skb, &event, p.end);
	else
		ram_emit_skb(skb, &event, p.end);
	return RAM_PASS;
}

RAM_FIRST_HALF int ram_ingress(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	struct ram_reply reply = {};
	u32 scope = ram_scope_of(skb);
	u32 reason;

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_PASS;
	if (p.protocol == IPPROTO_TCP)
		return ram_receive_segment(skb, cfg, &p, scope);
	reason = ram_match_reply(skb, cfg, &p, scope, &reply);
	if (reason == RAM_REASON_NONE)
		return RAM_PASS;
	if (reason == RAM_REASON_DNS_LEARNED) {
		skb->cb[RAM_CB_MESSAGE] = p.end << 16 | (p.payload_offset & 0xffff);
		skb->cb[RAM_CB_TICKET] = 0;
		ram_pass_depth(skb, reply.depth);
		if (reply.qtype != RAM_DNS_TYPE_A && reply.qtype != RAM_DNS_TYPE_AAAA)
			ram_want_hints(skb);
		skb->cb[RAM_CB_RULE] = reply.rule ? reply.rule : reply.alias;
		skb->cb[RAM_CB_ALIAS] = reply.rule ? reply.alias : 0;
		ingress_programs.call(skb, RAM_INGRESS_PROGRAM_ANSWERS);
		/* A call that succeeds does not return. */
		reason = RAM_REASON_DNS_TOO_MANY;
	}
	return ram_conclude(skb, reason, reply.rule ? reply.rule : reply.alias);
}

static __always_inline bool ram_is_refused_rule(u32 number)
{
	struct ram_rule *rule = rules.lookup(&number);

	return rule && (rule->flags & RAM_RULE_DENY);
}

RAM_FIRST_HALF int ram_answers(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	u32 scope = ram_scope_of(skb);
	u32 reason = RAM_REASON_DNS_MALFORMED;
	struct ram_dns_header header;
	struct ram_reading r = {};
	struct ram_room room;

	if (!cfg)
		return RAM_PASS;
	r.room = &room;
	r.skb = skb;
	r.cfg = cfg;
	r.now = ram_now();
	r.learned_here = learned.lookup(&scope);
	if (r.learned_here && !ram_dns_header(skb, ram_message_offset(skb), ram_message_end(skb), &header)) {
		r.answers = header.answers;
		reason = ram_read_answers(&r);
		if (reason == RAM_REASON_DNS_LEARNED && ram_is_refused_rule(skb->cb[RAM_CB_RULE]))
			reason = RAM_REASON_DNS_RECOGNISED;
		/* Some clients use what is in a truncated reply, so it is learned; the rest is asked for. */
		if (reason != RAM_REASON_NONE && (header.flags[0] & RAM_DNS_TC))
			reason = RAM_REASON_DNS_TRUNCATED;
		if (reason == RAM_REASON_NONE) {
			ingress_programs.call(skb, RAM_INGRESS_PROGRAM_ANSWERS);
			reason = RAM_REASON_DNS_TOO_MANY;
		}
	}
	return ram_conclude(skb, reason, skb->cb[RAM_CB_RULE]);
}

#endif
