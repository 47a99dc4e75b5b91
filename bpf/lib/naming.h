/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs that read the first bytes of a connection and judge the name in them: ram_beginning puts the
 * bytes together, ram_hello reads them, as often as that takes, and ram_name says what becomes of the packet.
 */
#ifndef RAM_NAMING_H
#define RAM_NAMING_H

#include "lib/beginning.h"
#include "lib/established.h"
#include "lib/hostname.h"
#include "lib/http.h"
#include "lib/learn.h"
#include "lib/loops.h"
#include "lib/scope.h"
#include "lib/telling.h"
#include "lib/tls.h"

/* A packet that cannot be judged where it stands does not leave; it may come again. */
static __always_inline int ram_drop_segment(struct __sk_buff *skb, struct ram_config *cfg,
					    const struct ram_packet *p, u32 scope, u32 rule)
{
	u32 verdict = ram_verdict_for(cfg, RAM_REASON_DENIED_SEGMENT);

	ram_count(RAM_REASON_DENIED_SEGMENT);
	if (!ram_is_silent(skb))
		ram_tell_packet(skb, p, scope, RAM_REASON_DENIED_SEGMENT, verdict, rule);
	return ram_leave(skb, verdict, RAM_REASON_DENIED_SEGMENT);
}

/* A draft of what is known of the connection's beginning; NULL when there is no room. */
static __always_inline struct ram_beginning *ram_draft(struct __sk_buff *skb,
						       const struct ram_beginning *kept)
{
	u32 ticket = bpf_get_prandom_u32() | 1, zero = 0;
	struct ram_beginning *empty = blank.lookup(&zero);

	if (!empty)
		return NULL;
	if (kept) {
		if (drafts.update(&ticket, (struct ram_beginning *)kept))
			return NULL;
	} else if (drafts.update(&ticket, empty)) {
		return NULL;
	}
	skb->cb[RAM_CB_TICKET] = ticket;
	return drafts.lookup(&ticket);
}

static __always_inline void ram_discard_draft(struct __sk_buff *skb)
{
	u32 ticket = skb->cb[RAM_CB_TICKET];

	drafts.delete(&ticket);
}

/* A method is in upper case, and the first byte of a TLS record is no letter. */
static __always_inline bool ram_is_request(const struct ram_beginning *draft)
{
	u64 first = ram_word_at(draft, draft->inner) >> 56;

	return first >= 'A' && first <= 'Z' && !draft->again;
}

/*
 * Whether more is to be read behind a name that is allowed, or one that need not be there: a request's Host
 * behind its target, what goes through a tunnel, a second server_name, another ClientHello.
 */
static __always_inline bool ram_may_have_another(const struct ram_beginning *draft)
{
	if (draft->outcome == RAM_READ_NO_NAME)
		return draft->may_follow;
	return draft->outcome == RAM_READ_NAME && (!ram_is_request(draft) || ram_is_of_target(draft));
}

/* Goes on with the program that reads what it is. Returns only when that cannot be. */
static __always_inline void ram_call_reader(struct __sk_buff *skb, const struct ram_beginning *draft)
{
	egress_programs.call(skb,
			     ram_is_request(draft) ? RAM_EGRESS_PROGRAM_REQUEST : RAM_EGRESS_PROGRAM_HELLO);
}

/*
 * What was let through must be known, or it could be replaced: unless it was judged, and no more of it comes.
 */
static __always_inline bool ram_may_be_forgotten(const struct ram_connection *connection, u32 held,
						 u32 offset)
{
	return ram_is_paused(connection) && offset == held;
}

RAM_FIRST_HALF int ram_beginning(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	u32 scope = ram_scope_of(skb), start, held, offset, size, again;
	struct ram_connection *connection;
	struct ram_beginning *kept, *draft;
	struct ram_packet p = {};

	if (!cfg)
		return RAM_PASS;
	if (ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_DROP;
	connection = ram_find_connection(skb, &p, scope);
	if (!connection)
		return RAM_DROP; /* it was there a moment ago */
	start = ram_forget(cfg, connection->start);
	kept = ram_find_bytes(skb, &p, scope);
	if (kept && kept->start != start)
		kept = NULL;
	held = ram_forget(cfg, connection->named - start);
	offset = ram_forget(cfg, p.sequence - start);
	if (!kept && held && !ram_may_be_forgotten(connection, held, offset))
		goto undrafted;
	draft = ram_draft(skb, kept);
	if (!draft)
		goto undrafted;
	draft->start = start;
	if (kept)
		held = ram_forget(cfg, draft->held);
	size = ram_forget(cfg, p.end - p.payload_offset);
	if (offset > held)
		goto drop;
	again = held - offset;
	if (again > size)
		again = size;
	again = ram_forget(cfg, again);
	if (again && !ram_repeats(skb, cfg, draft, p.payload_offset, offset, again))
		goto drop;
	/* What was read to its end needs nothing more, and what is behind it is free. */
	if (again == size || connection->stage == RAM_STAGE_DONE) {
		ram_discard_draft(skb);
		ram_count(RAM_REASON_ALLOWED_ESTABLISHED);
		return RAM_PASS;
	}
	if (ram_is_paused(connection)) {
		if (start + held != connection->named)
			goto drop; /* another CPU is at it */
		/* What has left was judged, and is not needed. What follows stands alone. */
		ram_discard_draft(skb);
		draft = ram_draft(skb, NULL);
		if (!draft)
			goto undrafted;
		draft->start = connection->named;
		draft->again = 1;
		draft->tunnel_port = connection->stage == RAM_STAGE_TUNNELLED ? connection->port : 0;
		ram_expect_message(draft, RAM_HELLO_NEXT, 0);
	}
	if (ram_hold(skb, cfg, draft, p.payload_offset + again, size - again))
		goto drop;
	ram_call_reader(skb, draft);
drop:
	ram_discard_draft(skb);
undrafted:
	return ram_drop_segment(skb, cfg, &p, scope, ram_rule_of(cfg, connection));
}

static __always_inline struct ram_beginning *ram_take_draft(struct __sk_buff *skb)
{
	u32 ticket = skb->cb[RAM_CB_TICKET];

	return drafts.lookup(&ticket);
}

/* Behind the steps of one program. */
static __always_inline int ram_read_on(struct __sk_buff *skb, struct ram_beginning *draft)
{
	if ((draft->outcome == RAM_READ_ON || draft->outcome == RAM_READ_ANEW) &&
	    draft->runs++ < RAM_BEGINNING_RUNS)
		ram_call_reader(skb, draft);
	/* There may be more behind these bytes, which would leave unread. */
	if (draft->held >= RAM_BEGINNING_MAX &&
	    (draft->outcome == RAM_READ_MORE || draft->outcome == RAM_READ_PAUSE))
		draft->outcome = RAM_READ_STRANGE;
	egress_programs.call(skb, RAM_EGRESS_PROGRAM_NAME);
	return RAM_DROP;
}

RAM_FIRST_HALF int ram_hello(struct __sk_buff *skb)
{
	struct ram_beginning *draft = ram_take_draft(skb);
	struct ram_config *cfg = ram_config();
	u64 step;

	if (!draft || !cfg)
		return RAM_DROP;
	if (draft->part == RAM_HELLO_NEW) {
		ram_expect_message(draft, RAM_HELLO_MESSAGE, 0);
		draft->hello = draft->inner;
	}
	draft->outcome = draft->outcome == RAM_READ_NAME ? ram_read_on_behind_name(draft) : RAM_READ_ON;
	RAM_TURNS(step, cfg, RAM_HELLO_STEPS) {
		if (draft->outcome != RAM_READ_ON)
			break;
		draft->outcome = ram_step_tls(draft);
	}
	return ram_read_on(skb, draft);
}

RAM_FIRST_HALF int ram_request(struct __sk_buff *skb)
{
	struct ram_beginning *draft = ram_take_draft(skb);
	struct ram_config *cfg = ram_config();
	u64 step;

	if (!draft || !cfg)
		return RAM_DROP;
	draft->outcome = RAM_READ_ON;
	RAM_TURNS(step, cfg, RAM_REQUEST_STEPS) {
		draft->outcome = ram_step_request(draft);
		if (draft->outcome != RAM_READ_ON)
			break;
	}
	return ram_read_on(skb, draft);
}

/* The port that the connection is for. */
static __always_inline u32 ram_port_of_target(const struct ram_packet *p, const struct ram_beginning *draft)
{
	return draft->tunnel_port ? draft->tunnel_port : p->destination_port;
}

/*
 * Whether a rule allows what the packet's connection is for. Where a tunnel leads is for the proxy to find
 * out. A proxy itself is nothing that a connection may be for: what it asks there could not be read.
 */
static __always_inline bool ram_is_allowed_here(const struct ram_packet *p, const struct ram_beginning *draft,
						u32 number)
{
	struct ram_rule *rule = rules.lookup(&number);
	struct ram_range_key range;

	if (!number || !rule || (rule->flags & (RAM_RULE_DENY | RAM_RULE_PROXY)))
		return false;
	if (!ram_has_port(rule, ram_port_of_target(p, draft)))
		return false;
	return draft->tunnel_port || !ram_opening_flags(p->destination, number, rule->flags, &range);
}

/* Whether a rule refuses it where all else passes. */
static __always_inline bool ram_is_refused_here(const struct ram_packet *p, const struct ram_beginning *draft,
						u32 number)
{
	struct ram_rule *rule = rules.lookup(&number);

	return number && rule && (rule->flags & RAM_RULE_DENY) &&
	       (rule->port_list == RAM_REFUSED_LIST_ALL ||
		rule->port_list == RAM_REFUSED_LIST_ON + ram_port_of_target(p, draft));
}

/*
 * Whether the name is where it counts: a proxy goes by the target of CONNECT, and in a tunnel TLS says for
 * whom it is. Any other request to a proxy could be followed by one for another name. Who is no proxy is not
 * to become one.
 */
static __always_inline bool ram_is_well_placed(const struct ram_beginning *draft, bool proxy)
{
	if (draft->again)
		return true; /* so was the first ClientHello */
	if (!proxy)
		return !draft->tunnel_port;
	return draft->connects || (draft->tunnel_port && !ram_is_request(draft));
}

static __always_inline bool ram_may_be_unnamed(u32 number)
{
	struct ram_rule *rule = rules.lookup(&number);

	return rule && (rule->flags & RAM_RULE_UNNAMED);
}

/* Why the connection may go on, or not. RAM_REASON_NONE: more of it is needed to say. `rule`: of its peer. */
static __always_inline u32 ram_reason_of_name(struct ram_config *cfg, const struct ram_packet *p,
					      const struct ram_beginning *draft, u32 *rule)
{
	bool strict = cfg->posture == RAM_POSTURE_STRICT;
	u32 number;

	if (draft->outcome == RAM_READ_MORE)
		return RAM_REASON_NONE;
	if (strict && draft->early_data)
		return RAM_REASON_DENIED_NOT_NAMED;
	if (draft->outcome == RAM_READ_END || draft->outcome == RAM_READ_PAUSE) {
		/* As it was with its name, or as it is without another one. */
		if (draft->event.reason == RAM_REASON_NONE)
			return RAM_REASON_ALLOWED_ESTABLISHED;
		*rule = draft->event.rule;
		return draft->event.reason;
	}
	if (draft->outcome != RAM_READ_NAME) {
		if (!strict || (draft->outcome == RAM_READ_NO_NAME && ram_may_be_unnamed(*rule)))
			return RAM_REASON_ALLOWED_ESTABLISHED;
		return RAM_REASON_DENIED_NOT_NAMED;
	}
	if (strict && !ram_is_well_placed(draft, ram_is_proxy(*rule)))
		return RAM_REASON_DENIED_NOT_NAMED;
	number = ram_forget(cfg, ram_match_host(cfg, draft));
	*rule = number;
	/* Looked up anew: the verifier would follow the match once for each posture. */
	strict = ram_forget(cfg, *(volatile u32 *)&cfg->posture) == RAM_POSTURE_STRICT;
	if (strict ? !ram_is_allowed_here(p, draft, number) : ram_is_refused_here(p, draft, number))
		return RAM_REASON_NAME_MISMATCH;
	return strict ? RAM_REASON_ALLOWED_NAME : RAM_REASON_ALLOWED_ESTABLISHED;
}

/* Tells of a connection by what it began with. User space ends it where the packet alone cannot be answered.
 */
static __always_inline void ram_tell_beginning(struct __sk_buff *skb, const struct ram_packet *p,
					       struct ram_beginning *draft, u32 scope, u32 reason,
					       u32 verdict, u32 rule)
{
	struct ram_event *event = &draft->event;
	u64 size;

	event->time_ns = ram_now();
	event->cgroup_id = bpf_skb_cgroup_id(skb);
	event->socket_cookie = bpf_get_socket_cookie(skb);
	event->uid = -1;
	__builtin_memcpy(event->address, p->destination, 16);
	event->port = p->destination_port;
	event->protocol = p->protocol;
	event->hook = RAM_HOOK_OUTGOING;
	event->reason = reason;
	event->verdict = verdict;
	event->rule = rule;
	event->scope = scope;
	event->acknowledged = ram_acknowledged(skb, p);
	event->beginning = 1;
	event->detail = draft->outcome == RAM_READ_NAME ? draft->name_length : 0;
	ram_flow_of_outgoing(p, &draft->flow);
	size = draft->outcome == RAM_READ_NAME ? draft->name_at + draft->name_length : draft->held;
	event->packet_len = sizeof(draft->flow) + size;
	if (size > RAM_BEGINNING_MAX)
		return;
	asm volatile("%0 &= 0x1fff" : "+r"(size));
	if (size > RAM_BEGINNING_MAX)
		return;
	questions.perf_submit(skb, event, sizeof(*event) + sizeof(draft->flow) + size);
}

RAM_SECOND_HALF int ram_name(struct __sk_buff *skb)
{
	struct ram_beginning *draft = ram_take_draft(skb);
	struct ram_config *cfg = ram_config();
	u32 scope = ram_scope_of(skb), reason, verdict, rule;
	struct ram_connection *connection;
	struct ram_packet p = {};

	if (!cfg)
		return RAM_PASS;
	if (!draft || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_DROP;
	connection = ram_find_connection(skb, &p, scope);
	if (!connection || (connection->start != draft->start &&
			    !(ram_is_paused(connection) && connection->named == draft->start)))
		return RAM_DROP;
	rule = ram_forget(cfg, ram_rule_of(cfg, connection));
	reason = ram_reason_of_name(cfg, &p, draft, &rule);
	rule = ram_forget(cfg, rule);
	reason = ram_forget(cfg, reason);
	verdict = ram_verdict_for(cfg, reason);
	if (verdict == RAM_VERDICT_ALLOW && ram_may_have_another(draft)) {
		draft->event.rule = rule;
		draft->event.reason = reason;
		/* Twice, as this program was a call too: the kernel allows 33 of them (MAX_TAIL_CALL_CNT). */
		draft->runs += 2;
		if (draft->runs < RAM_BEGINNING_RUNS)
			ram_call_reader(skb, draft);
		goto drop;
	}
	draft->runs = 0;
	if (reason == RAM_REASON_NONE) {
		/* What goes before a name may leave: nobody can make anything of it yet. */
		if (!ram_keep_bytes(skb, &p, scope, draft))
			goto drop;
		reason = RAM_REASON_ALLOWED_ESTABLISHED;
		connection->stage = RAM_STAGE_UNNAMED;
	} else if (verdict == RAM_VERDICT_DENY) {
		connection->stage = RAM_STAGE_CUT;
		ram_give_bytes_back(skb, &p, scope);
	} else {
		/* A newer program's rule that is none of these stays what it is. */
		if (rule || connection->generation == cfg->generation)
			ram_note_rule(cfg, connection, rule, ram_port_of_target(&p, draft));
		/* What is behind that is free. */
		if (draft->outcome == RAM_READ_NAME || draft->outcome == RAM_READ_END)
			draft->held = ram_end_of_reading(draft);
		if (!ram_keep_bytes(skb, &p, scope, draft))
			goto drop;
		connection->stage = RAM_STAGE_DONE;
		if (draft->outcome == RAM_READ_PAUSE)
			connection->stage = draft->tunnel_port ? RAM_STAGE_TUNNELLED : RAM_STAGE_NAMED;
	}
	connection->start = draft->start;
	connection->named = draft->start + draft->held;
	ram_count(reason);
	if (verdict != RAM_VERDICT_ALLOW && !ram_is_new_container(skb))
		ram_tell_beginning(skb, &p, draft, scope, reason, verdict, rule);
	ram_discard_draft(skb);
	return ram_leave(skb, verdict, reason);
drop:
	ram_discard_draft(skb);
	return ram_drop_segment(skb, cfg, &p, scope, rule);
}

#endif
