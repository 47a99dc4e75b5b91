/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first bytes that a connection's client sends, which say whom it is for. A resolver's answer opens an
 * address, and others may live there too: so until its name is known, what leaves by a connection is read.
 *
 * The bytes up to the name are kept, as they may come in several segments. Nothing leaves before what goes
 * before it, and what was let through is not replaced: a segment that repeats bytes must repeat them as they
 * were. At a device anybody may have made it. In a cgroup the kernel's own TCP has, from memory that a
 * process may have lent it (sendfile(2), MSG_ZEROCOPY) and can change.
 *
 * A packet is read from a copy that nobody else can reach, a draft under a random number: another packet of
 * the same connection may be on another CPU at the same time.
 */
#ifndef RAM_BEGINNING_H
#define RAM_BEGINNING_H

#include "lib/established.h"
#include "lib/inbound.h"
#include "lib/loops.h"
#include "lib/scope.h"
#include "lib/verdict.h"

#define RAM_BEGINNING_CHUNK 256		  /* bytes copied at once */
#define RAM_BEGINNING_WORDS 32		  /* bytes compared at once */
#define RAM_RETRANSMISSION_MAX 0x40000000 /* no window is greater: RFC 7323 2.3 */
#define RAM_SOCK_RAW 3			  /* enum sock_type, include/linux/net.h */

/* What reading the first bytes has come to. Of a draft that is new: RAM_READ_MORE. */
enum ram_read {
	RAM_READ_MORE,	  /* what is there is not all */
	RAM_READ_NAME,	  /* the name is known */
	RAM_READ_NO_NAME, /* a ClientHello without one */
	RAM_READ_STRANGE, /* nothing that has a name, or broken */
	RAM_READ_ON,	  /* of a step: nothing is known yet */
	RAM_READ_ANEW,	  /* of a step: the same, and what follows may be another protocol */
	RAM_READ_END,	  /* of a ClientHello: no other name is behind those that were judged */
	RAM_READ_PAUSE,	  /* the same, and if anything follows, it may be another ClientHello */
};

RAM_MAP("lru_hash", u32, struct ram_beginning, drafts, 256, 0);
RAM_ARRAY(struct ram_beginning, blank, 1); /* of which a draft is made: it does not fit on a stack */

/* What is to be done with a packet of a connection that is known. */
enum ram_passage {
	RAM_PASSAGE_FREE,
	RAM_PASSAGE_READ,   /* it holds bytes that are to be read first */
	RAM_PASSAGE_EARLY,  /* it holds bytes, and nobody has answered yet */
	RAM_PASSAGE_URGENT, /* the other end may leave out a byte that is read here */
	RAM_PASSAGE_CUT,
};

static __always_inline bool ram_is_proxy(u32 number)
{
	struct ram_rule *rule = rules.lookup(&number);

	return rule && (rule->flags & RAM_RULE_PROXY);
}

/*
 * Of connections that are not only allowed by an address, or whose peer is allowed and not themselves. UDP is
 * not read.
 */
static __always_inline bool ram_is_to_be_read(struct ram_config *cfg, const struct ram_packet *p, u32 reason,
					      u32 rule)
{
	if (!(cfg->flags & RAM_CONFIG_READ_NAMES) || p->protocol != IPPROTO_TCP)
		return false;
	if (reason == RAM_REASON_ALLOWED_ADDRESS)
		return ram_is_proxy(rule);
	return reason == RAM_REASON_ALLOWED_LEARNED || reason == RAM_REASON_ALLOWED_GRACE ||
	       reason == RAM_REASON_ALLOWED_OTHER || reason == RAM_REASON_ALLOWED_UNASKED;
}

/* Whether what has left of the connection ends with a ClientHello, or with what may go in front of one. */
static __always_inline bool ram_is_paused(const struct ram_connection *connection)
{
	return connection->stage == RAM_STAGE_NAMED || connection->stage == RAM_STAGE_TUNNELLED;
}

/* Whether nothing of what was judged can be sent again. What is kept of it is then given back. */
static __always_inline bool ram_is_acknowledged(struct __sk_buff *skb, u32 named)
{
#ifndef RAM_TC
	struct bpf_sock *sk = ram_full_socket(skb);
	struct bpf_tcp_sock *tcp;

	if (!sk)
		return false;
	tcp = bpf_tcp_sock(sk);
	if (tcp && (s32)(tcp->snd_una - named) >= 0) {
		firsts.sk_storage_delete(sk);
		return true;
	}
#endif
	return false;
}

static __always_inline u32 ram_passage(struct __sk_buff *skb, const struct ram_packet *p,
				       struct ram_connection *connection)
{
	u32 beyond = p->sequence - connection->named;

	if (connection->stage == RAM_STAGE_PASSES)
		return RAM_PASSAGE_FREE;
	if (connection->stage == RAM_STAGE_CUT)
		return RAM_PASSAGE_CUT;
	/* The urgent pointer (RFC 6093) is at a byte of this segment, with or without payload, or of a later
	 * one. */
	if ((p->tcp_flags & RAM_TCP_URG) && (connection->stage != RAM_STAGE_DONE || (s32)beyond < 0))
		return RAM_PASSAGE_URGENT;
	if (p->payload_offset >= p->end)
		return RAM_PASSAGE_FREE;
	if (connection->stage == RAM_STAGE_UNANSWERED)
		return RAM_PASSAGE_EARLY;
	if (connection->stage == RAM_STAGE_DONE && (s32)beyond >= 0) {
		if (ram_is_acknowledged(skb, connection->named))
			connection->stage = RAM_STAGE_PASSES;
		/* Numbers go round: what is so far behind can no longer be sent again. */
		else if (beyond > RAM_RETRANSMISSION_MAX)
			connection->named = p->sequence - RAM_RETRANSMISSION_MAX;
		return RAM_PASSAGE_FREE;
	}
	return RAM_PASSAGE_READ;
}

/* Whether a process has made the packet by itself. At a device, anybody may have. */
static __always_inline bool ram_is_raw(struct __sk_buff *skb)
{
#ifdef RAM_TC
	return false;
#else
	struct bpf_sock *sk = ram_full_socket(skb);

	return sk && sk->type == RAM_SOCK_RAW;
#endif
}

/* Whether a packet of a connection of which nothing is known belongs to one that was there before us. */
static __always_inline bool ram_is_earlier(struct __sk_buff *skb, struct ram_config *cfg, u32 scope)
{
#ifdef RAM_TC
	u64 *until = earlier.lookup(&scope);

	if (!until || ram_now() > *until)
		return false;
#else
	struct bpf_sock *sk = ram_full_socket(skb);

	if (!sk || sk->type == RAM_SOCK_RAW)
		return false;
#endif
	return !(cfg->flags & RAM_CONFIG_CUT_EARLIER);
}

/*
 * Remembers a connection whose first bytes are to be read, from its SYN on. `known`: what is remembered
 * already. Returns the reason, or another one why the packet may not leave.
 */
static __always_inline u32 ram_begin_to_read(struct __sk_buff *skb, struct ram_config *cfg,
					     const struct ram_packet *p, u32 scope, u32 reason, u32 rule,
					     const struct ram_connection *known)
{
	struct ram_connection connection = {};
	bool payload = p->payload_offset < p->end;

	ram_note_rule(cfg, &connection, rule, p->destination_port);
	if (ram_opens_connection(p)) {
		/* TCP Fast Open (RFC 7413): the SYN is sent again, without data. */
		if (payload)
			return RAM_REASON_DENIED_SEGMENT;
		/* Who makes TCP's segments by hand could have one name read here and another one there. */
		if (cfg->posture == RAM_POSTURE_STRICT && ram_is_raw(skb))
			return RAM_REASON_DENIED_NOT_NAMED;
		connection.start = p->sequence + 1;
		connection.named = connection.start;
#ifdef RAM_TC
		/* The same once more. */
		if (known && known->stage != RAM_STAGE_PASSES && known->start == connection.start)
			return reason;
		connection.stage = RAM_STAGE_UNANSWERED;
#else
		connection.stage = RAM_STAGE_UNNAMED;
#endif
	} else if (cfg->posture == RAM_POSTURE_STRICT && !ram_is_earlier(skb, cfg, scope)) {
		return payload ? RAM_REASON_DENIED_NOT_NAMED : reason;
	}
	/* What is forgotten would be taken for older than the enforcement. */
	if (!ram_establish(skb, p, scope, &connection) && ram_opens_connection(p))
		return RAM_REASON_DENIED_SEGMENT;
	return reason;
}

#ifdef RAM_TC
/*
 * The other end has received the SYN. Only then it is certain with which number it begins to read: somebody
 * could send another SYN in between.
 */
static __always_inline void ram_note_answer(struct __sk_buff *skb, const struct ram_packet *p, u32 scope)
{
	void *established_here = established.lookup(&scope);
	struct ram_connection *connection;
	struct ram_flow flow = {};

	if (!established_here)
		return;
	ram_flow_of_incoming(p, &flow);
	flow.protocol = p->protocol;
	connection = ram_map_lookup(established_here, &flow);
	if (connection && connection->stage == RAM_STAGE_UNANSWERED &&
	    connection->start == ram_acknowledged(skb, p))
		connection->stage = RAM_STAGE_UNNAMED;
}

/* What is kept of a connection; NULL when there is nothing. */
static __always_inline struct ram_beginning *ram_find_bytes(struct __sk_buff *skb, const struct ram_packet *p,
							    u32 scope)
{
	void *beginnings_here = beginnings.lookup(&scope);
	struct ram_flow flow = {};

	if (!beginnings_here)
		return NULL;
	ram_flow_of_outgoing(p, &flow);
	return ram_map_lookup(beginnings_here, &flow);
}

/* Returns false where there is no room. */
static __always_inline bool ram_keep_bytes(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					   struct ram_beginning *draft)
{
	void *beginnings_here = beginnings.lookup(&scope);
	struct ram_flow flow = {};

	if (!beginnings_here)
		return false;
	ram_flow_of_outgoing(p, &flow);
	return !ram_map_update(beginnings_here, &flow, draft, 0);
}

static __always_inline void ram_give_bytes_back(struct __sk_buff *skb, const struct ram_packet *p, u32 scope)
{
	void *beginnings_here = beginnings.lookup(&scope);
	struct ram_flow flow = {};

	if (!beginnings_here)
		return;
	ram_flow_of_outgoing(p, &flow);
	ram_map_delete(beginnings_here, &flow);
}
#else
/* The same with the socket, so that nobody else's connections take the room. */
static __always_inline struct ram_beginning *ram_find_bytes(struct __sk_buff *skb, const struct ram_packet *p,
							    u32 scope)
{
	struct bpf_sock *sk = ram_full_socket(skb);

	return sk ? firsts.sk_storage_get(sk, 0, 0) : NULL;
}

static __always_inline bool ram_keep_bytes(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					   struct ram_beginning *draft)
{
	struct bpf_sock *sk = ram_full_socket(skb);

	if (!sk)
		return false;
	firsts.sk_storage_delete(sk); /* or it would stay as it was */
	return firsts.sk_storage_get(sk, draft, BPF_SK_STORAGE_GET_F_CREATE) != NULL;
}

static __always_inline void ram_give_bytes_back(struct __sk_buff *skb, const struct ram_packet *p, u32 scope)
{
	struct bpf_sock *sk = ram_full_socket(skb);

	if (sk)
		firsts.sk_storage_delete(sk);
}
#endif

/* Whether `count` bytes of the packet are those of the draft from `from` on. */
static __always_inline bool ram_repeats(struct __sk_buff *skb, struct ram_config *cfg,
					const struct ram_beginning *draft, u32 offset, u32 from, u32 count)
{
	u32 done = ram_forget(cfg, 0);
	u64 differ = ram_forget64(cfg, 0);
	u64 i;

	RAM_TURNS(i, cfg, RAM_BEGINNING_MAX / RAM_BEGINNING_WORDS) {
		u64 sent[4] = {}, size, at, mask;
		const u64 *kept;
		int word;

		if (done >= count)
			break;
		size = count - done;
		if (size > RAM_BEGINNING_WORDS)
			size = RAM_BEGINNING_WORDS;
		size -= 1;
		asm volatile("%0 &= 0x1f" : "+r"(size));
		size += 1;
		if (bpf_skb_load_bytes(skb, offset + done, sent, size))
			return false;
		at = from + done;
		asm volatile("%0 &= 0xfff" : "+r"(at));
		kept = (const u64 *)(draft->bytes + at);
#pragma unroll
		for (word = 0; word < 4; word++) {
			/* Of the last word only those that were sent. */
			s64 missing = (word + 1) * 8 - (s64)size;

			missing = ram_lesser(-ram_lesser(-missing, 0), 8);
			asm volatile("%0 &= 0xf" : "+r"(missing));
			mask = missing == 8 ? 0 : ~0ULL << (missing * 8) >> (missing * 8);
			differ |= (sent[word] ^ kept[word]) & mask;
		}
		differ = ram_forget64(cfg, differ);
		done = ram_forget(cfg, done + RAM_BEGINNING_WORDS);
	}
	return !differ && done >= count;
}

/* Adds bytes of the packet to the draft, which holds `held` of them. */
static __always_inline int ram_hold(struct __sk_buff *skb, struct ram_config *cfg,
				    struct ram_beginning *draft, u32 offset, u32 count)
{
	u32 held = draft->held, done = ram_forget(cfg, 0);
	u64 i;

	if (count > RAM_BEGINNING_MAX - held)
		count = RAM_BEGINNING_MAX - held;
	count = ram_forget(cfg, count);
	RAM_TURNS(i, cfg, RAM_BEGINNING_MAX / RAM_BEGINNING_CHUNK) {
		u64 size, at;

		if (done >= count)
			break;
		size = count - done;
		if (size > RAM_BEGINNING_CHUNK)
			size = RAM_BEGINNING_CHUNK;
		size -= 1;
		asm volatile("%0 &= 0xff" : "+r"(size));
		size += 1;
		at = held + done;
		asm volatile("%0 &= 0xfff" : "+r"(at));
		if (bpf_skb_load_bytes(skb, offset + done, draft->bytes + at, size))
			return -1;
		done = ram_forget(cfg, done + RAM_BEGINNING_CHUNK);
	}
	draft->held = held + count;
	return 0;
}

/* The bytes at a place of the draft, the first one as the highest. */
static __always_inline u64 ram_word_at(const struct ram_beginning *draft, u64 at)
{
	asm volatile("%0 &= 0xfff" : "+r"(at));
	return RAM_NTOHLL(*(const u64 *)(draft->bytes + at));
}

#endif
