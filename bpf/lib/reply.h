/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which query a DNS reply over UDP answers. Only a reply to an outstanding query is learned: from a trusted
 * resolver, by the interface that the query left by, to the same address and port, with the same transaction
 * id and the same question. The first such reply ends the query.
 */
#ifndef RAM_REPLY_H
#define RAM_REPLY_H

#include "lib/dns.h"
#include "lib/witness.h"

/* What is learned from a reply's answers; valid with RAM_REASON_DNS_LEARNED, rule and alias always. */
struct ram_reply {
	u32 rule;
	u32 alias;
	u32 depth;
	u16 qtype;
};

/* Whether the reply came from where it should. */
#ifdef RAM_TC
static __always_inline u32 ram_check_sender(struct __sk_buff *skb, struct ram_config *cfg,
					    const struct ram_packet *p, u32 flags, u32 asked_by)
{
	u32 from = skb->ingress_ifindex;
	u64 cookie;

	if (!cfg->loopback_ifindex)
		return RAM_REASON_DNS_LEARNED;
	if (asked_by && skb->ifindex != asked_by)
		return RAM_REASON_DNS_WRONG_INTERFACE;
	if (flags & RAM_RESOLVER_LOCAL) {
		/* Sent by a process of this host, so its socket is still known. */
		cookie = bpf_get_socket_cookie(skb);
		return !from && resolver_sockets.lookup(&cookie) ? RAM_REASON_DNS_LEARNED
								 : RAM_REASON_DNS_UNTRUSTED_SENDER;
	}
	/* Neither this host nor somebody else who is governed speaks for a resolver elsewhere. */
	if (!from || governed_devices.lookup(&from))
		return RAM_REASON_DNS_WRONG_INTERFACE;
	return RAM_REASON_DNS_LEARNED;
}
#else
static __always_inline u32 ram_check_sender(struct __sk_buff *skb, struct ram_config *cfg,
					    const struct ram_packet *p, u32 flags, u32 asked_by)
{
	bool loopback = skb->ifindex == cfg->loopback_ifindex;

	if (flags & RAM_RESOLVER_LOCAL) {
		if (cfg->loopback_ifindex && !loopback)
			return RAM_REASON_DNS_WRONG_INTERFACE;
		return ram_was_witnessed(skb, cfg, p) ? RAM_REASON_DNS_LEARNED
						      : RAM_REASON_DNS_UNTRUSTED_SENDER;
	}
	if (loopback || skb->ifindex != asked_by)
		return RAM_REASON_DNS_WRONG_INTERFACE;
	return RAM_REASON_DNS_LEARNED;
}
#endif

/* On a device, what lib/refusal.h answers passes here on its way. Others' refusals say as little. */
static __always_inline bool ram_is_own_refusal(const struct ram_dns_header *header)
{
#ifdef RAM_TC
	return (header->flags[1] & RAM_DNS_RCODE) == RAM_DNS_REFUSED;
#else
	return false;
#endif
}

/*
 * Finds the query that a packet from a resolver answers. Returns RAM_REASON_DNS_LEARNED when its answers are
 * to be learned, and else why not.
 */
static __always_inline u32 ram_match_reply(struct __sk_buff *skb, struct ram_config *cfg,
					   const struct ram_packet *p, u32 scope, struct ram_reply *reply)
{
	void *listed_here = queries.lookup(&scope), *unlisted_here = unlisted.lookup(&scope);
	struct ram_question question = {};
	struct ram_endpoint resolver = {};
	struct ram_query_key key = {};
	struct ram_dns_header header;
	struct ram_query *query;
	u64 asked_ns, identity;
	u32 *flags, sender;
	u32 trust, asked_by;

	__builtin_memcpy(resolver.address, p->source, 16);
	resolver.port = p->source_port;
	flags = resolvers.lookup(&resolver);
	if (!flags)
		return p->source_port == 53 ? RAM_REASON_DNS_UNTRUSTED_SENDER : RAM_REASON_NONE;
	trust = *flags;
	if (!listed_here || !unlisted_here)
		return RAM_REASON_NONE;
	if (ram_dns_header(skb, p->payload_offset, p->end, &header) || !(header.flags[0] & RAM_DNS_QR) ||
	    (header.flags[0] & RAM_DNS_OPCODE))
		return RAM_REASON_DNS_MALFORMED;

	__builtin_memcpy(key.resolver, p->source, 16);
	__builtin_memcpy(key.local, p->destination, 16);
	key.resolver_port = p->source_port;
	key.local_port = p->destination_port;
	key.id = header.id;
	query = ram_map_lookup(listed_here, &key);
	if (!query) {
		if (!ram_map_lookup(unlisted_here, &key))
			return ram_is_own_refusal(&header) ? RAM_REASON_NONE : RAM_REASON_DNS_NO_QUERY;
		ram_map_delete(unlisted_here, &key);
		return RAM_REASON_DNS_NOT_LISTED;
	}
	reply->rule = query->rule;
	reply->alias = query->alias;
	reply->depth = query->depth;
	reply->qtype = query->qtype;
	asked_ns = query->asked_ns;
	identity = query->identity;
	asked_by = query->ifindex;
	/*
	 * The question first: where the sender is doubtful, user space asks again for the name that stands in
	 * the reply, so it must be the name that was asked for.
	 */
	if (header.questions != 1 ||
	    ram_dns_question(skb, cfg, p->payload_offset + RAM_DNS_HEADER, p->end, &question) ||
	    question.qclass != RAM_DNS_CLASS_IN || question.qtype != reply->qtype ||
	    question.identity != identity)
		return RAM_REASON_DNS_WRONG_QUESTION;
	sender = ram_check_sender(skb, cfg, p, trust, asked_by);
	if (sender != RAM_REASON_DNS_LEARNED)
		return sender;
	if (ram_is_past(ram_now(), asked_ns, cfg->query_lifetime_ns)) {
		ram_map_delete(listed_here, &key);
		return RAM_REASON_DNS_LATE;
	}

	ram_map_delete(listed_here, &key);
	if (header.flags[1] & RAM_DNS_RCODE)
		return RAM_REASON_DNS_NO_ADDRESS;
	return RAM_REASON_DNS_LEARNED;
}

#endif
