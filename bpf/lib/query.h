/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS queries on their way out to a trusted resolver: those that may be answered with addresses are
 * remembered, so that only a reply to one of them is learned. With dns.allowed_names_only, others do not
 * leave.
 */
#ifndef RAM_QUERY_H
#define RAM_QUERY_H

#include "lib/dns.h"
#include "lib/hold.h"
#include "lib/leave.h"
#include "lib/names.h"

/* What is known of a query once it was read; what one program found is in skb->cb for the next. */
struct ram_asked {
	u64 identity; /* of the name */
	u32 message;  /* offset; 0: there is none that could be read */
	u16 id;
	u16 qtype;
	u32 rule;     /* that allows the name; 0: none */
	u32 alias;    /* that allows a name which leads to this one; 0: none */
	u32 depth;    /* of the alias */
	u32 relevant; /* it may be answered with addresses */
};

/*
 * Where the DNS message of a packet to a resolver begins; 0 when a TCP segment does not hold a length and
 * just one message (RFC 1035 4.2.2), as clients send them.
 */
static __always_inline u32 ram_find_message(struct __sk_buff *skb, const struct ram_packet *p)
{
	u8 prefix[2];

	/* With UDP_SEGMENT one buffer becomes several datagrams later, of which only the first could be read
	 * here. */
	if (p->protocol == IPPROTO_UDP)
		return skb->gso_segs > 1 ? 0 : p->payload_offset;
	if (p->end - p->payload_offset <= 2 || bpf_skb_load_bytes(skb, p->payload_offset, prefix, 2) ||
	    ((u32)prefix[0] << 8 | prefix[1]) != p->end - p->payload_offset - 2)
		return 0;
	return p->payload_offset + 2;
}

/* The rule of an allowed name that leads to this one. */
static __always_inline void ram_find_alias(u32 scope, struct ram_asked *asked)
{
	void *aliases_here = aliases.lookup(&scope);
	struct ram_alias *alias;

	if (!aliases_here)
		return;
	alias = ram_map_lookup(aliases_here, &asked->identity);
	if (!alias || alias->expires_ns < ram_now())
		return;
	asked->alias = alias->rule;
	asked->depth = alias->depth;
}

/*
 * Whether behind the question there is nothing, or one OPT record (RFC 6891 6.1.2). Anything else could be
 * data for somebody else, or a second message to a resolver that has received the first already.
 */
static __always_inline bool ram_is_bare_query(struct __sk_buff *skb, u32 behind, u32 end)
{
	u8 raw[11];

	if (behind == end)
		return true;
	return behind + sizeof(raw) <= end && !bpf_skb_load_bytes(skb, behind, raw, sizeof(raw)) &&
	       raw[0] == 0 && ((u32)raw[1] << 8 | raw[2]) == RAM_DNS_TYPE_OPT &&
	       ((u32)raw[9] << 8 | raw[10]) == end - behind - sizeof(raw);
}

/* Reads a query, up to its name's identity. `message` stays 0 when it is none, or not one question. */
static __always_inline void ram_read_query(struct __sk_buff *skb, struct ram_config *cfg,
					   const struct ram_packet *p, struct ram_asked *asked)
{
	u32 message = ram_forget(cfg, ram_find_message(skb, p));
	struct ram_question question = {};
	struct ram_dns_header header;

	if (!message || ram_dns_header(skb, message, p->end, &header) || (header.flags[0] & RAM_DNS_QR) ||
	    (header.flags[0] & RAM_DNS_OPCODE) || header.questions != 1 ||
	    ram_dns_question(skb, cfg, message + RAM_DNS_HEADER, p->end, &question))
		return;
	if ((cfg->flags & RAM_CONFIG_ALLOWED_NAMES_ONLY) && !ram_is_bare_query(skb, question.behind, p->end))
		return;
	asked->message = message;
	asked->identity = question.identity;
	asked->relevant = ram_forget(cfg, question.qclass == RAM_DNS_CLASS_IN &&
						  ram_dns_leads_to_address(question.qtype));
}

/* Leaves what was read so far for the program that looks for the rule. */
static __always_inline void ram_pass_query(struct __sk_buff *skb, const struct ram_asked *asked)
{
	skb->cb[RAM_CB_MESSAGE] = asked->message | asked->relevant << 16;
	skb->cb[RAM_CB_IDENTITY_LOW] = asked->identity;
	skb->cb[RAM_CB_IDENTITY_HIGH] = asked->identity >> 32;
	skb->cb[RAM_CB_ALIAS] = asked->alias;
	ram_pass_depth(skb, asked->depth);
}

static __always_inline void ram_take_query(struct __sk_buff *skb, struct ram_config *cfg,
					   struct ram_asked *asked)
{
	asked->message = ram_forget(cfg, skb->cb[RAM_CB_MESSAGE] & 0xffff);
	asked->relevant = ram_forget(cfg, skb->cb[RAM_CB_MESSAGE] >> 16);
	asked->identity = (u64)skb->cb[RAM_CB_IDENTITY_HIGH] << 32 | skb->cb[RAM_CB_IDENTITY_LOW];
	asked->identity = ram_forget64(cfg, asked->identity);
	asked->alias = ram_forget(cfg, skb->cb[RAM_CB_ALIAS]);
	asked->depth = ram_forget(cfg, ram_depth_of(skb));
}

/*
 * Finds the rule of the name. A name that is denied has none, nor that of a name which leads to it; but in
 * posture registries it is by such a rule that its addresses are known.
 */
static __always_inline void ram_find_rule(struct __sk_buff *skb, struct ram_config *cfg, u32 end,
					  struct ram_asked *asked)
{
	u32 offset = asked->message + RAM_DNS_HEADER, number = 0;
	struct ram_name name = {};
	struct ram_rule *rule;
	u8 raw[2];

	if (ram_walk_name(skb, cfg, offset, end, &name) || ram_match_name(skb, cfg, &name, &number)) {
		asked->alias = 0; /* it was a name a moment ago */
		return;
	}
	rule = rules.lookup(&number);
	if (number && rule && (rule->flags & RAM_RULE_DENY)) {
		asked->alias = 0;
		if (cfg->posture == RAM_POSTURE_STRICT)
			number = 0;
	}
	asked->rule = ram_forget(cfg, number);
	asked->alias = ram_forget(cfg, asked->alias);
	if (!bpf_skb_load_bytes(skb, asked->message, raw, 2))
		asked->id = ram_forget(cfg, (u16)raw[0] << 8 | raw[1]);
	if (!bpf_skb_load_bytes(skb, offset + name.length + 1, raw, 2))
		asked->qtype = ram_forget(cfg, (u16)raw[0] << 8 | raw[1]);
}

/* Remembers a query over UDP. */
static __always_inline void ram_await_reply(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					    const struct ram_asked *asked)
{
	void *listed_here = queries.lookup(&scope), *unlisted_here = unlisted.lookup(&scope);
	struct ram_query_key key = {};
	struct ram_query query = {};

	if (!listed_here || !unlisted_here)
		return;
	__builtin_memcpy(key.resolver, p->destination, 16);
	__builtin_memcpy(key.local, p->source, 16);
	key.resolver_port = p->destination_port;
	key.local_port = p->source_port;
	key.id = asked->id;
	query.asked_ns = ram_now();
	query.identity = asked->identity;
	query.rule = asked->rule;
	query.alias = asked->alias;
	query.depth = asked->rule ? 0 : asked->depth; /* a name with a rule of its own begins anew */
	query.qtype = asked->qtype;
	/* Of a new container the reply may pass its own device as well, which is governed by then. */
	query.ifindex = ram_is_new_container(skb) ? 0 : skb->ifindex;
	if (asked->rule | asked->alias) {
		ram_map_update(listed_here, &key, &query, 0);
		/* Had the same id asked for an unlisted name a moment ago, its reply is no longer awaited. */
		ram_map_delete(unlisted_here, &key);
	} else {
		ram_map_delete(listed_here, &key);
		ram_map_update(unlisted_here, &key, &query, 0);
	}
}

#endif
