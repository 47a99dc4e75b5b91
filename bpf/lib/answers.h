/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answers of a reply that was matched to its query (RFC 1035 4.1.3, 4.1.4; RFC 9460 for HTTPS and SVCB).
 *
 * Starting from the question, the chain of CNAME records is followed, and the addresses of the names on it
 * are opened. Records of other names are passed over, and told of, since user space can look for a chain that
 * stands in another order. A DNAME record needs nothing of its own: a CNAME record goes with it (RFC
 * 6672 3.1).
 *
 * One loop walks the message. Each of its steps passes a label, a compression pointer, or a record, or opens
 * an address; what a step leaves for the next is in struct ram_walk, in numbers whose bounds the verifier has
 * been made to forget (see ram_forget). What follows a step must not depend on which step it was.
 */
#ifndef RAM_ANSWERS_H
#define RAM_ANSWERS_H

#include "lib/dns.h"
#include "lib/learn.h"
#include "lib/loops.h"

/* What the name under way is for. */
enum ram_part {
	RAM_PART_QUESTION,
	RAM_PART_OWNER,
	RAM_PART_TARGET,  /* of a CNAME record */
	RAM_PART_SERVICE, /* TargetName of an HTTPS or SVCB record */
	RAM_PART_PARAMS,  /* no name: behind TargetName */
	RAM_PART_HINT,	  /* no name: addresses of an ipv4hint or ipv6hint */
};

#define RAM_SVCB_IPV4HINT 4
#define RAM_SVCB_IPV6HINT 6

#define RAM_WALK_PAIRS 11
#define RAM_RECORD_HEADER 10
#define RAM_PARAM_HEADER 4

struct ram_walk {
	struct ram_sip sip;
	u64 question;	/* identity of the name asked for */
	u64 current;	/* of the name that the chain has come to */
	u64 expires;	/* of the record under way */
	u64 pairs[0];	/* of the numbers that follow; see ram_settle() */
	u32 chain_ttl;	/* seconds that the chain up to there may be kept */
	u32 current_at; /* where that name stands */
	u32 begin;	/* a name begins at `at` */
	u32 part;	/* enum ram_part */
	u32 at;		/* where to read on */
	u32 name_at;	/* where the name under way begins */
	u32 segment;	/* where the piece of it begins that is read now: pointers lead to before that */
	u32 behind;	/* what follows the name in the message; 0 while that is not known */
	u32 length;	/* bytes of the name so far */
	u32 record_end;
	u32 hint_end;
	u32 hint_size;
	u32 seen;		    /* records */
	u32 outcome;		    /* enum ram_outcome, all that was met */
	u32 pending;		    /* rule for which the last address is still to be opened */
	u32 programs;		    /* that have walked so far */
	struct ram_opening_key key; /* of the last address */
	u32 padding;
};

/*
 * Walks that go on in another run of their program: each has a limit to the steps that the verifier accepts.
 * Not per CPU: another packet may come in between, on the same CPU.
 */
RAM_MAP("lru_hash", u32, struct ram_walk, walks, 512, 0);

enum ram_outcome {
	RAM_OUTCOME_FAILED = RAM_OPEN_FAILED,
	RAM_OUTCOME_PRIVATE = RAM_OPEN_PRIVATE,
	RAM_OUTCOME_OPENED = 4,
	RAM_OUTCOME_STRANGER = 8, /* an address of another name */
	RAM_OUTCOME_ALIAS = 16,	  /* remembered */
};

/* What is the same for all steps. The rest of that is in skb->cb. */
struct ram_reading {
	struct __sk_buff *skb;
	struct ram_config *cfg;
	void *learned_here;
	u64 now;
	struct ram_room *room;
	u32 answers;
};

static __always_inline u32 ram_message_offset(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_MESSAGE] & 0xffff;
}

static __always_inline u32 ram_message_end(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_MESSAGE] >> 16;
}

/* What a step found. */
enum ram_step {
	RAM_STEP_ON,	  /* nothing yet */
	RAM_STEP_NAMED,	  /* a name has ended */
	RAM_STEP_ADDRESS, /* an address to open is in the key */
	RAM_STEP_BROKEN,  /* not as a message should be */
};

/* The next step reads the beginning of a name. */
static __always_inline void ram_turn_to_name(struct ram_config *cfg, struct ram_walk *w, u32 part, u32 at)
{
	w->begin = ram_forget(cfg, 1);
	w->part = ram_forget(cfg, part);
	w->at = ram_forget(cfg, at);
}

/* Begins a name if one is to: without a branch, or all that a step may do would be walked twice. */
static __always_inline void ram_begin_name(struct ram_config *cfg, struct ram_walk *w)
{
	u64 anew = -(u64)w->begin;
	struct ram_sip start;

	asm volatile("" : "+r"(anew));
	ram_sip_start(&start, cfg);
	w->begin = ram_forget(cfg, 0);
	w->name_at = ram_forget(cfg, ram_either(anew, w->at, w->name_at));
	w->segment = ram_forget(cfg, ram_either(anew, w->at, w->segment));
	w->behind = ram_forget(cfg, w->behind & ~anew);
	w->length = ram_forget(cfg, w->length & ~anew);
	w->sip.v0 = ram_either(anew, start.v0, w->sip.v0);
	w->sip.v1 = ram_either(anew, start.v1, w->sip.v1);
	w->sip.v2 = ram_either(anew, start.v2, w->sip.v2);
	w->sip.v3 = ram_either(anew, start.v3, w->sip.v3);
	ram_sip_forget(&w->sip, cfg);
}

static __always_inline void ram_begin_walk(const struct ram_reading *r, struct ram_walk *w)
{
	struct ram_config *cfg = r->cfg;

	w->question = ram_forget64(cfg, 0);
	w->current = ram_forget64(cfg, 0);
	w->expires = ram_forget64(cfg, r->now);
	w->chain_ttl = ram_forget(cfg, 0x7fffffff);
	w->current_at = ram_forget(cfg, 0);
	w->record_end = ram_forget(cfg, 0);
	w->hint_end = ram_forget(cfg, 0);
	w->hint_size = ram_forget(cfg, 0);
	w->seen = ram_forget(cfg, 0);
	w->outcome = ram_forget(cfg, 0);
	w->pending = ram_forget(cfg, 0);
	w->programs = ram_forget(cfg, 0);
	w->name_at = ram_forget(cfg, 0);
	w->segment = ram_forget(cfg, 0);
	w->behind = ram_forget(cfg, 0);
	w->length = ram_forget(cfg, 0);
	ram_sip_start(&w->sip, cfg);
	ram_sip_forget(&w->sip, cfg);
	ram_turn_to_name(cfg, w, RAM_PART_QUESTION, ram_message_offset(r->skb) + RAM_DNS_HEADER);
	/* Kept in memory, each number in as many bytes as it has: in registers, they would be spilled in
	 * eight. */
	asm volatile("" : : "r"(w) : "memory");
}

/*
 * Makes what steps leave on the stack the same for all, since newer verifiers tell them apart by it. Numbers
 * of four bytes share a slot, and it matters in which order its halves were written: here both are at once.
 * The room is of no use to another step, and says nothing.
 */
static __always_inline void ram_settle(const struct ram_reading *r, struct ram_walk *w)
{
	volatile u64 *pairs = w->pairs, *words = r->room->words;
	int i;

#pragma unroll
	for (i = 0; i < RAM_ROOM_WORDS; i++)
		words[i] = r->now;

#pragma unroll
	for (i = 0; i < RAM_WALK_PAIRS; i++)
		pairs[i] = pairs[i];
}

static __always_inline void ram_met(struct ram_config *cfg, struct ram_walk *w, u32 outcome)
{
	w->outcome = ram_forget(cfg, w->outcome | outcome);
}

static __always_inline u32 ram_alias_outcome(struct __sk_buff *skb, u64 identity, u64 expires,
					     struct ram_room *room)
{
	return ram_remember_alias(ram_scope_of(skb), identity, expires, skb->cb[RAM_CB_RULE],
				  ram_depth_of(skb), room)
		       ? RAM_OUTCOME_ALIAS
		       : 0;
}

/* Reads one label or compression pointer. `same` is set when the name is the chain's, known by its place. */
static __always_inline u32 ram_step_name(const struct ram_reading *r, struct ram_walk *w, u32 *same)
{
	struct ram_config *cfg = r->cfg;
	u64 *byte = r->room->words;
	u8 label, low;

	if (w->at >= ram_message_end(r->skb) || bpf_skb_load_bytes(r->skb, w->at, byte, 1))
		return RAM_STEP_BROKEN;
	label = *(u8 *)byte;
	if (label >= RAM_DNS_POINTER) {
		u32 target;
		u64 first;

		if (w->at + 1 >= ram_message_end(r->skb) || bpf_skb_load_bytes(r->skb, w->at + 1, byte, 1))
			return RAM_STEP_BROKEN;
		low = *(u8 *)byte;
		target = ram_forget(cfg, ram_message_offset(r->skb) + ((u32)(label & 0x3f) << 8 | low));
		/* Backwards only, so that no chain of them is endless (RFC 1035 4.1.4: a prior occurrence).
		 */
		if (target >= w->segment)
			return RAM_STEP_BROKEN;
		first = ram_mask_if_equal(w->at, w->name_at);
		w->behind =
			ram_forget(cfg, ram_either(ram_mask_if_equal(w->behind, 0), w->at + 2, w->behind));
		*same = ram_forget(cfg, first & ram_mask_if_equal(target, w->current_at) & 1);
		w->name_at = ram_forget(cfg, ram_either(first, target, w->name_at));
		w->segment = target;
		w->at = target;
		return ram_forget(cfg, *same) ? RAM_STEP_NAMED : RAM_STEP_ON;
	}
	if (label > 63)
		return RAM_STEP_BROKEN;
	if (label == 0) {
		w->behind =
			ram_forget(cfg, ram_either(ram_mask_if_equal(w->behind, 0), w->at + 1, w->behind));
		return RAM_STEP_NAMED;
	}
	w->length = ram_forget(cfg, w->length + label + 1);
	if (w->length >= RAM_NAME_MAX || w->at + label >= ram_message_end(r->skb) ||
	    ram_identify_label(r->skb, cfg, w->at, label, r->room->words, &w->sip))
		return RAM_STEP_BROKEN;
	w->at = ram_forget(cfg, w->at + label + 1);
	return RAM_STEP_ON;
}

static __always_inline void ram_end_record(const struct ram_reading *r, struct ram_walk *w)
{
	w->seen = ram_forget(r->cfg, w->seen + 1);
	ram_turn_to_name(r->cfg, w, RAM_PART_OWNER, w->record_end);
}

/* Copies an address of 4 or 16 bytes into the key. */
static __always_inline int ram_take_address(const struct ram_reading *r, u32 at, bool ipv4,
					    struct ram_opening_key *key)
{
	if (ipv4) {
		if (bpf_skb_load_bytes(r->skb, at, &key->address[3], 4))
			return -1;
		ram_map_ipv4(key->address, key->address[3]);
	} else if (bpf_skb_load_bytes(r->skb, at, key->address, 16)) {
		return -1;
	}
	ram_forget_address(r->cfg, key->address);
	return 0;
}

/* Reads a record behind its owner name. */
static __always_inline u32 ram_step_record(const struct ram_reading *r, struct ram_walk *w, u32 ours)
{
	struct ram_config *cfg = r->cfg;
	u32 type, class, length, data;
	u8 *raw = (u8 *)r->room->words;
	u64 ttl;

	if (w->behind + RAM_RECORD_HEADER > ram_message_end(r->skb) ||
	    bpf_skb_load_bytes(r->skb, w->behind, raw, RAM_RECORD_HEADER))
		return RAM_STEP_BROKEN;
	type = (u32)raw[0] << 8 | raw[1];
	class = (u32)raw[2] << 8 | raw[3];
	ttl = ram_ttl((u32)raw[4] << 24 | (u32)raw[5] << 16 | (u32)raw[6] << 8 | raw[7]);
	length = (u32)raw[8] << 8 | raw[9];
	data = ram_forget(cfg, w->behind + RAM_RECORD_HEADER);
	if (data + length > ram_message_end(r->skb))
		return RAM_STEP_BROKEN;
	w->record_end = ram_forget(cfg, data + length);
	ttl = ram_forget64(cfg, ram_lesser(w->chain_ttl, ttl));
	w->expires = ram_forget64(cfg, ram_expiry(cfg, r->now, ttl));
	if (class != RAM_DNS_CLASS_IN)
		goto over;
	if (type == RAM_DNS_TYPE_CNAME && ours) {
		w->chain_ttl = ttl;
		ram_turn_to_name(cfg, w, RAM_PART_TARGET, data);
		return RAM_STEP_ON;
	}
	/* Only who asks for such records makes use of them. */
	if (ram_wants_hints(r->skb)) {
		if ((type == RAM_DNS_TYPE_HTTPS || type == RAM_DNS_TYPE_SVCB) && ours) {
			if (length < 3)
				return RAM_STEP_BROKEN;
			ram_turn_to_name(cfg, w, RAM_PART_SERVICE, data + 2);
			return RAM_STEP_ON;
		}
	} else if (type == RAM_DNS_TYPE_A || type == RAM_DNS_TYPE_AAAA) {
		bool ipv4 = type == RAM_DNS_TYPE_A;

		if (length != (ipv4 ? 4 : 16) || ram_take_address(r, data, ipv4, &w->key))
			return RAM_STEP_BROKEN;
		ram_met(cfg, w, ours ? 0 : RAM_OUTCOME_STRANGER);
		ram_end_record(r, w);
		return ours ? RAM_STEP_ADDRESS : RAM_STEP_ON;
	}
over:
	ram_end_record(r, w);
	return RAM_STEP_ON;
}

/* Reads the next SvcParam of an HTTPS or SVCB record (RFC 9460 2.2), or an address of a hint. */
static __always_inline u32 ram_step_params(const struct ram_reading *r, struct ram_walk *w)
{
	struct ram_config *cfg = r->cfg;
	u32 name, length;
	u8 *raw = (u8 *)r->room->words;

	if (w->part == RAM_PART_HINT) {
		u32 at = w->at;

		if (at + w->hint_size > w->hint_end) {
			if (at != w->hint_end)
				return RAM_STEP_BROKEN;
			w->part = ram_forget(cfg, RAM_PART_PARAMS);
			return RAM_STEP_ON;
		}
		w->at = ram_forget(cfg, at + w->hint_size);
		return ram_take_address(r, at, w->hint_size == 4, &w->key) ? RAM_STEP_BROKEN
									   : RAM_STEP_ADDRESS;
	}
	if (w->at == w->record_end) {
		ram_end_record(r, w);
		return RAM_STEP_ON;
	}
	if (w->at + RAM_PARAM_HEADER > w->record_end ||
	    bpf_skb_load_bytes(r->skb, w->at, raw, RAM_PARAM_HEADER))
		return RAM_STEP_BROKEN;
	name = (u32)raw[0] << 8 | raw[1];
	length = (u32)raw[2] << 8 | raw[3];
	w->at = ram_forget(cfg, w->at + RAM_PARAM_HEADER);
	if (w->at + length > w->record_end)
		return RAM_STEP_BROKEN;
	if (name == RAM_SVCB_IPV4HINT || name == RAM_SVCB_IPV6HINT) {
		w->part = ram_forget(cfg, RAM_PART_HINT);
		w->hint_size = ram_forget(cfg, name == RAM_SVCB_IPV4HINT ? 4 : 16);
		w->hint_end = ram_forget(cfg, w->at + length);
		return RAM_STEP_ON;
	}
	w->at = ram_forget(cfg, w->at + length);
	return RAM_STEP_ON;
}

/* What to do with a name that has ended. */
static __always_inline u32 ram_step_named(const struct ram_reading *r, struct ram_walk *w, u32 same)
{
	struct ram_config *cfg = r->cfg;
	u64 identity = ram_forget64(cfg, ram_sip_end(&w->sip));
	u32 behind = w->behind;

	if (w->part == RAM_PART_OWNER)
		return ram_step_record(r, w, ram_forget(cfg, same | (identity == w->current)));
	/* Known by its place, it was not read; its identity is that of the name there. */
	if (same)
		identity = w->current;
	identity = ram_forget64(cfg, identity);
	if (w->part == RAM_PART_TARGET) {
		if (behind != w->record_end)
			return RAM_STEP_BROKEN;
		w->current = identity;
		w->current_at = ram_forget(cfg, w->name_at);
		ram_end_record(r, w);
		return RAM_STEP_ON;
	}
	if (w->part == RAM_PART_SERVICE) {
		if (behind > w->record_end)
			return RAM_STEP_BROKEN;
		/* "." stands for the owner, and some servers write the owner out. */
		if (w->length && identity != w->current)
			ram_met(cfg, w, ram_alias_outcome(r->skb, identity, w->expires, r->room));
		w->part = ram_forget(cfg, RAM_PART_PARAMS);
		w->at = ram_forget(cfg, behind);
		return RAM_STEP_ON;
	}
	w->question = identity;
	w->current = identity;
	w->current_at = ram_forget(cfg, w->name_at);
	ram_turn_to_name(cfg, w, RAM_PART_OWNER, behind + 4);
	return RAM_STEP_ON;
}

/* Takes up the walk of an earlier run. Returns -1 when it is gone. */
static __always_inline int ram_resume_walk(struct __sk_buff *skb, struct ram_config *cfg, struct ram_walk *w)
{
	u32 ticket = skb->cb[RAM_CB_TICKET];
	struct ram_walk *kept;

	kept = walks.lookup(&ticket);
	if (!kept)
		return -1;
	*w = *kept;
	walks.delete(&ticket);
	asm volatile("" : : "r"(w) : "memory");
	return 0;
}

/* Leaves the walk for another run. Returns -1 when it has had as many as it may. */
static __always_inline int ram_suspend_walk(struct __sk_buff *skb, struct ram_walk *w)
{
	u32 ticket = bpf_get_prandom_u32() | 1;

	w->programs += 1;
	if (w->programs >= RAM_ANSWER_PROGRAMS || walks.update(&ticket, w))
		return -1;
	skb->cb[RAM_CB_TICKET] = ticket;
	return 0;
}

/*
 * Reads all answers, or as many as the steps of this run allow: then it returns RAM_REASON_NONE, and another
 * run is to go on.
 */
static __always_inline u32 ram_read_answers(const struct ram_reading *r)
{
	struct ram_config *cfg = r->cfg;
	struct ram_walk w = {};
	u32 step;

	if (r->skb->cb[RAM_CB_TICKET]) {
		if (ram_resume_walk(r->skb, cfg, &w))
			return RAM_REASON_DNS_TOO_MANY;
	} else {
		ram_begin_walk(r, &w);
	}
	w.key.port_list = ram_forget(cfg, 0);
	ram_forget_address(cfg, w.key.address);
	for (step = RAM_FIRST_TURN(cfg); step < RAM_ANSWER_STEPS; step++) {
		u32 open;

		ram_settle(r, &w);
		ram_clear_registers();
		if (!RAM_MAY_GO_ON())
			break;
		open = ram_forget(cfg, w.pending);
		ram_begin_name(cfg, &w);
		if (open) {
			w.pending = ram_forget(cfg, 0);
		} else {
			u32 found, same = ram_forget(cfg, 0);

			if (w.seen >= r->answers)
				goto complete;
			if (w.part >= RAM_PART_PARAMS) {
				found = ram_step_params(r, &w);
			} else {
				found = ram_step_name(r, &w, &same);
				if (found == RAM_STEP_NAMED)
					found = ram_step_named(r, &w, same);
			}
			if (found == RAM_STEP_BROKEN)
				return RAM_REASON_DNS_MALFORMED;
			if (found == RAM_STEP_ON)
				continue;
			open = r->skb->cb[RAM_CB_RULE];
			w.pending = ram_forget(cfg, r->skb->cb[RAM_CB_ALIAS]);
		}
		open = ram_open(r->learned_here, &w.key, w.expires, open, r->room);
		ram_met(cfg, &w, open ? open : RAM_OUTCOME_OPENED);
	}
	return ram_suspend_walk(r->skb, &w) ? RAM_REASON_DNS_TOO_MANY : RAM_REASON_NONE;
complete:
	if (w.outcome & RAM_OUTCOME_FAILED)
		return RAM_REASON_DNS_MAP_FULL;
	if (w.outcome & RAM_OUTCOME_STRANGER)
		return RAM_REASON_DNS_OTHER_NAME;
	if (w.outcome & RAM_OUTCOME_OPENED)
		return RAM_REASON_DNS_LEARNED;
	if (w.outcome & RAM_OUTCOME_PRIVATE)
		return RAM_REASON_DNS_PRIVATE_ADDRESS;
	if (w.current != w.question)
		w.outcome |=
			ram_alias_outcome(r->skb, w.current, ram_expiry(cfg, r->now, w.chain_ttl), r->room);
	return w.outcome & RAM_OUTCOME_ALIAS ? RAM_REASON_DNS_ALIAS : RAM_REASON_DNS_NO_ADDRESS;
}

#endif
