/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of packets that leave. */
#ifndef RAM_TELLING_H
#define RAM_TELLING_H

#include "lib/events.h"
#include "lib/l3l4.h"
#include "lib/leave.h"

/* Whose packet it is, and what of it. */
static __always_inline void ram_describe_packet(struct ram_event *event, const struct ram_packet *p,
						u32 scope, u32 reason, u32 verdict, u32 rule)
{
	__builtin_memcpy(event->address, p->destination, 16);
	event->port = p->destination_port;
	event->protocol = p->protocol;
	event->hook = RAM_HOOK_OUTGOING;
	event->link_len = p->network;
	event->reason = reason;
	event->verdict = verdict;
	event->rule = rule;
	event->scope = scope;
}

/* Events are made in functions of their own, so that they share the stack with what came before them. */
static __always_inline void ram_tell_packet(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					    u32 reason, u32 verdict, u32 rule)
{
	bool dns = reason == RAM_REASON_DENIED_QUERY_NAME || reason == RAM_REASON_DENIED_NOT_A_QUERY;
	bool connection = reason == RAM_REASON_ALLOWED_UNASKED || reason == RAM_REASON_DENIED_UNASKED ||
			  reason == RAM_REASON_DENIED_NOT_NAMED;
	struct ram_event event = {};

	ram_describe_packet(&event, p, scope, reason, verdict, rule);
	event.acknowledged = ram_acknowledged(skb, p);
	if (dns)
		event.dns_offset = p->payload_offset;
	/* User space asks what is there, or ends it, and needs to know the connection. */
	if (connection)
		ram_emit_question(skb, &event, p->payload_offset);
	else
		ram_emit_skb(skb, &event, dns ? p->end : 0);
}

/* Of a query over TCP, which user space is to look into. */
static __always_inline void ram_tell_query(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					   u32 rule, u32 queries_sent)
{
	struct ram_event event = {};

	ram_describe_packet(&event, p, scope, RAM_REASON_DNS_OVER_TCP, RAM_VERDICT_NONE, rule);
	event.dns_offset = p->payload_offset;
	event.detail = queries_sent;
	ram_emit_question(skb, &event, p->end);
}

#endif
