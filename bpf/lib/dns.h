/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS over UDP (RFC 1035, RFC 6891): queries are remembered on their way out, replies to them are read on
 * their way in, before the client sees them, and the addresses of allowed names are opened.
 *
 * Only a reply to an outstanding query is learned: from a trusted resolver, to the same address and port,
 * with the same transaction id and the same question. The first such reply ends the query.
 * What cannot be read to its end is counted and handed to user space.
 */
#ifndef RAM_DNS_H
#define RAM_DNS_H

#include "lib/events.h"
#include "lib/l3l4.h"
#include "lib/names.h"

#define RAM_DNS_TYPE_A 1
#define RAM_DNS_TYPE_AAAA 28
#define RAM_DNS_CLASS_IN 1
#define RAM_DNS_QR 0x80
#define RAM_DNS_OPCODE 0x78
#define RAM_DNS_TC 0x02
#define RAM_DNS_RCODE 0x0f

#define RAM_LOOPBACK_IFINDEX 1 /* in every network namespace: net/core/net_namespace.c, loopback_net_init */

struct ram_dns_header {
	u16 id;
	u16 questions;
	u16 answers;
	u8 flags[2];
};

static __always_inline int ram_dns_header(struct __sk_buff *skb, u32 offset, u32 end,
					  struct ram_dns_header *h)
{
	u8 raw[8];

	if (offset + 12 > end || bpf_skb_load_bytes(skb, offset, raw, sizeof(raw)))
		return -1;
	h->id = (u16)raw[0] << 8 | raw[1];
	h->flags[0] = raw[2];
	h->flags[1] = raw[3];
	h->questions = (u16)raw[4] << 8 | raw[5];
	h->answers = (u16)raw[6] << 8 | raw[7];
	return 0;
}

/* Reads QTYPE and QCLASS behind the question name. */
static __always_inline int ram_dns_question_tail(struct __sk_buff *skb, const struct ram_name *name, u32 end,
						 u16 *qtype, u16 *qclass)
{
	u32 offset = name->offset + name->length + 1;
	u8 raw[4];

	if (offset + sizeof(raw) > end || bpf_skb_load_bytes(skb, offset, raw, sizeof(raw)))
		return -1;
	*qtype = (u16)raw[0] << 8 | raw[1];
	*qclass = (u16)raw[2] << 8 | raw[3];
	return 0;
}

/* On egress, to a trusted resolver. Returns a reason to count, RAM_REASON_NONE when there is none. */
static __always_inline u32 ram_dns_query(struct __sk_buff *skb, struct ram_config *cfg,
					 const struct ram_packet *p)
{
	struct ram_query_key key = {};
	struct ram_query query = {};
	struct ram_dns_header header;
	struct ram_match match = {};
	struct ram_name name;
	u16 qtype, qclass;

	if (ram_dns_header(skb, p->payload_offset, p->end, &header) || (header.flags[0] & RAM_DNS_QR) ||
	    (header.flags[0] & RAM_DNS_OPCODE) || header.questions != 1 ||
	    ram_walk_name(skb, cfg, p->payload_offset + 12, p->end, &name) ||
	    ram_dns_question_tail(skb, &name, p->end, &qtype, &qclass))
		return RAM_REASON_DNS_NOT_A_QUERY;
	if (qclass != RAM_DNS_CLASS_IN || (qtype != RAM_DNS_TYPE_A && qtype != RAM_DNS_TYPE_AAAA))
		return RAM_REASON_NONE;
	if (ram_match_name(skb, cfg, &name, &match))
		return RAM_REASON_DNS_NOT_A_QUERY;

	__builtin_memcpy(key.resolver, p->destination, 16);
	__builtin_memcpy(key.local, p->source, 16);
	key.resolver_port = p->destination_port;
	key.local_port = p->source_port;
	key.id = header.id;
	__builtin_memcpy(query.hash, match.hash, sizeof(query.hash));
	query.asked_ns = bpf_ktime_get_ns();
	query.rule = match.rule;
	query.qtype = qtype;
	if (match.rule) {
		queries.update(&key, &query);
		/* Had the same id asked for an unlisted name a moment ago, its reply is no longer awaited. */
		unlisted.delete(&key);
		return RAM_REASON_NONE;
	}
	queries.delete(&key);
	unlisted.update(&key, &query);
	return RAM_REASON_NONE;
}

/* Opens one endpoint until a time, or longer where it already is. */
static __always_inline int ram_open(struct ram_endpoint *endpoint, u64 expires, u32 rule)
{
	struct ram_opening *old = learned.lookup(endpoint);
	struct ram_opening opening = {};

	if (old) {
		if (old->expires_ns < expires) {
			old->rule = rule;
			old->expires_ns = expires;
		}
		return 0;
	}
	opening.expires_ns = expires;
	opening.rule = rule;
	return learned.update(endpoint, &opening);
}

/*
 * Seconds to keep an answer. Without branches: each would double what the verifier walks in every turn of
 * the loop around it.
 */
static __always_inline u64 ram_clamp_ttl(struct ram_config *cfg, u32 ttl)
{
	s64 over, under;
	s64 seconds = ttl & ((ttl >> 31) - 1); /* RFC 2181 8: with the top bit set, to be taken as zero */

	under = seconds - (s64)cfg->minimum_ttl;
	seconds = (s64)cfg->minimum_ttl + (under & ~(under >> 63));
	over = seconds - (s64)cfg->maximum_ttl;
	return (s64)cfg->maximum_ttl + (over & (over >> 63));
}

/*
 * Walks the answer section. Each step passes one label of an owner name, or the rest of a record once its
 * name has ended, or opens one port of the address just read. Compression pointers end a name and are not
 * followed: the owner's own text is not needed, since the resolver answered the question that we matched.
 */
static __always_inline u32 ram_dns_answers(struct __sk_buff *skb, struct ram_config *cfg, u32 offset, u32 end,
					   u32 answers, u32 number)
{
	u32 seen = ram_forget(cfg, 0), addresses = ram_forget(cfg, 0), failed = ram_forget(cfg, 0);
	u32 to_open = ram_forget(cfg, 0); /* ports of this address still to open, and one for RAM_PORT_ANY */
	struct ram_rule *rule = rules.lookup(&number);
	struct ram_endpoint endpoint = {};
	u64 now = bpf_ktime_get_ns();
	u64 expires = now;
	int step;

	if (!rule)
		return RAM_REASON_DNS_MAP_FULL;
	ram_forget_address(cfg, endpoint.address);
	for (step = 0; step < RAM_ANSWER_STEPS; step++) {
		u32 type, class, ttl, length;
		u8 label, record[10];

		if (ram_forget(cfg, to_open)) {
			u64 index;
			u32 port = RAM_PORT_ANY;

			to_open = ram_forget(cfg, to_open - 1);
			if (ram_forget(cfg, to_open)) {
				index = to_open - 1;
				asm volatile("%0 &= 7" : "+r"(index));
				port = rule->port[index];
			}
			endpoint.port = ram_forget(cfg, port);
			failed = ram_forget(cfg, failed | ram_open(&endpoint, expires, number));
			continue;
		}
		if (seen >= answers)
			goto complete;
		if (offset >= end || bpf_skb_load_bytes(skb, offset, &label, 1))
			return RAM_REASON_DNS_MALFORMED;
		if (label != 0 && label < 0xc0) {
			if (label > 63)
				return RAM_REASON_DNS_MALFORMED;
			offset = ram_forget(cfg, offset + label + 1);
			continue;
		}
		offset += label ? 2 : 1;
		if (offset + sizeof(record) > end || bpf_skb_load_bytes(skb, offset, record, sizeof(record)))
			return RAM_REASON_DNS_MALFORMED;
		offset += sizeof(record);
		type = (u32)record[0] << 8 | record[1];
		class = (u32)record[2] << 8 | record[3];
		ttl = (u32)record[4] << 24 | (u32)record[5] << 16 | (u32)record[6] << 8 | record[7];
		length = (u32)record[8] << 8 | record[9];
		if (offset + length > end)
			return RAM_REASON_DNS_MALFORMED;
		if (class == RAM_DNS_CLASS_IN && (type == RAM_DNS_TYPE_A || type == RAM_DNS_TYPE_AAAA)) {
			if (type == RAM_DNS_TYPE_A) {
				if (length != 4 || bpf_skb_load_bytes(skb, offset, &endpoint.address[3], 4))
					return RAM_REASON_DNS_MALFORMED;
				ram_map_ipv4(endpoint.address, endpoint.address[3]);
			} else if (length != 16 || bpf_skb_load_bytes(skb, offset, endpoint.address, 16)) {
				return RAM_REASON_DNS_MALFORMED;
			}
			expires = now + ram_clamp_ttl(cfg, ttl) * 1000000000ULL;
			ram_forget_address(cfg, endpoint.address);
			to_open = ram_forget(cfg, rule->ports + 1);
			addresses = ram_forget(cfg, addresses + 1);
		}
		offset = ram_forget(cfg, offset + length);
		seen = ram_forget(cfg, seen + 1);
	}
	if (seen < answers || to_open)
		return RAM_REASON_DNS_TOO_MANY;
complete:
	if (failed)
		return RAM_REASON_DNS_MAP_FULL;
	return addresses ? RAM_REASON_DNS_LEARNED : RAM_REASON_DNS_NO_ADDRESS;
}

/* Where in a matched reply the answers are, and by which rule to learn them. */
struct ram_reply {
	u32 offset;
	u32 answers;
	u32 rule;
};

/*
 * Finds the query that a packet from a resolver answers. Returns RAM_REASON_DNS_LEARNED when its answers are
 * to be learned, and else why not.
 */
static __always_inline u32 ram_dns_match_reply(struct __sk_buff *skb, struct ram_config *cfg,
					       const struct ram_packet *p, struct ram_reply *reply)
{
	struct ram_endpoint resolver = {};
	struct ram_query_key key = {};
	struct ram_dns_header header;
	u32 asked[RAM_HASH_LANES] = {};
	struct ram_query *query;
	struct ram_name name;
	u16 qtype, qclass;
	u32 hash[RAM_HASH_LANES];
	u32 asked_type;
	u32 *flags;

	__builtin_memcpy(resolver.address, p->source, 16);
	resolver.port = p->source_port;
	flags = resolvers.lookup(&resolver);
	if (!flags)
		return p->source_port == 53 ? RAM_REASON_DNS_UNTRUSTED_SENDER : RAM_REASON_NONE;
	if (skb->ifindex == RAM_LOOPBACK_IFINDEX && !(*flags & RAM_RESOLVER_LOCAL))
		return RAM_REASON_DNS_WRONG_INTERFACE;
	if (ram_dns_header(skb, p->payload_offset, p->end, &header) || !(header.flags[0] & RAM_DNS_QR) ||
	    (header.flags[0] & RAM_DNS_OPCODE))
		return RAM_REASON_DNS_MALFORMED;

	__builtin_memcpy(key.resolver, p->source, 16);
	__builtin_memcpy(key.local, p->destination, 16);
	key.resolver_port = p->source_port;
	key.local_port = p->destination_port;
	key.id = header.id;
	query = queries.lookup(&key);
	if (!query) {
		if (!unlisted.lookup(&key))
			return RAM_REASON_DNS_NO_QUERY;
		unlisted.delete(&key);
		return RAM_REASON_DNS_NOT_LISTED;
	}
	reply->rule = query->rule;
	asked_type = query->qtype;
	__builtin_memcpy(hash, query->hash, sizeof(hash));
	if (bpf_ktime_get_ns() - query->asked_ns > cfg->query_lifetime_ns) {
		queries.delete(&key);
		return RAM_REASON_DNS_LATE;
	}
	if (header.questions != 1 || ram_walk_name(skb, cfg, p->payload_offset + 12, p->end, &name) ||
	    ram_dns_question_tail(skb, &name, p->end, &qtype, &qclass) ||
	    ram_hash_name(skb, cfg, &name, asked))
		return RAM_REASON_DNS_WRONG_QUESTION;
	if (qclass != RAM_DNS_CLASS_IN || qtype != asked_type || asked[0] != hash[0] || asked[1] != hash[1] ||
	    asked[2] != hash[2] || asked[3] != hash[3])
		return RAM_REASON_DNS_WRONG_QUESTION;

	queries.delete(&key);
	if (header.flags[0] & RAM_DNS_TC)
		return RAM_REASON_DNS_TRUNCATED;
	if (header.flags[1] & RAM_DNS_RCODE)
		return RAM_REASON_DNS_NO_ADDRESS;
	reply->offset = name.offset + name.length + 5;
	reply->answers = header.answers;
	return RAM_REASON_DNS_LEARNED;
}

/*
 * On ingress, from source port 53 or a trusted resolver's port. Returns the reason to count and to tell. In
 * two functions, so that what the first needs of the stack is free for the second.
 */
static __always_inline u32 ram_dns_reply(struct __sk_buff *skb, struct ram_config *cfg,
					 const struct ram_packet *p, u32 *rule)
{
	struct ram_reply reply = {};
	u32 reason = ram_dns_match_reply(skb, cfg, p, &reply);

	*rule = reply.rule;
	if (reason != RAM_REASON_DNS_LEARNED)
		return reason;
	return ram_dns_answers(skb, cfg, reply.offset, p->end, reply.answers, reply.rule);
}

#endif
