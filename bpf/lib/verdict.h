/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision, in one place.
 *
 * ram_reason_for() says why an endpoint may or may not be reached; it knows nothing of modes or packets.
 * ram_verdict_for() turns the reason into a verdict, and is the only place where audit differs from enforce.
 */
#ifndef RAM_VERDICT_H
#define RAM_VERDICT_H

#include <linux/in.h>

#include "lib/arithmetic.h"
#include "lib/endian.h"
#include "lib/maps.h"

#define RAM_PORT_DNS 53
#define RAM_PORT_DNS_ENCRYPTED 853 /* over TLS, RFC 7858, and over QUIC, RFC 9250 */
#define RAM_PORT_HTTPS 443

/* What is asked about: an endpoint, by a scope. */
struct ram_request {
	struct ram_endpoint remote;
	u32 scope;
	u32 protocol;
};

/* What all openings of an address say together. */
struct ram_findings {
	u64 until;   /* the latest time until which the port is open; 0: it never was */
	u32 rule;    /* that opened it */
	u32 private; /* the most specific rule that would have, were the address not private */
	u32 other;   /* the most specific rule that opened other ports */
};

/*
 * Adds one opening. `with_port`: all ones when its list of ports has the port, else 0. Without branches: each
 * would double what the verifier walks in every turn of the loop around it.
 */
static __always_inline void ram_add_opening(struct ram_config *cfg, struct ram_findings *found,
					    const struct ram_opening *opening, u64 with_port)
{
	u64 shut = -(u64)(opening->flags & RAM_OPENING_PRIVATE);
	u64 until = opening->expires_ns & with_port & ~shut;
	u64 rule = opening->rule;
	u64 latest = ram_greater(until, found->until);
	u64 same = ram_mask_if_equal(latest, found->until); /* of equally long ones the first stays */

	found->until = ram_forget64(cfg, latest);
	found->rule = ram_forget(cfg, (found->rule & same) | (rule & ~same));
	found->private = ram_forget(cfg, ram_greater(found->private, rule & with_port & shut));
	found->other = ram_forget(cfg, ram_greater(found->other, rule & ~with_port));
}

/* Looks at the openings of an address, by list of ports; those whose bit is set in `lists` have the port. */
static __always_inline void ram_find_openings(struct ram_config *cfg, const struct ram_request *request,
					      u64 lists, struct ram_findings *found)
{
	void *learned_here = learned.lookup((u32 *)&request->scope);
	struct ram_opening_key key = {};
	u32 list;

	if (!learned_here)
		return;
	__builtin_memcpy(key.address, request->remote.address, 16);
	for (list = 0; list < RAM_PORT_LISTS_MAX; list++) {
		u64 with_port = -(lists & 1);
		struct ram_opening *opening;

		if (list >= cfg->port_lists)
			break;
		key.port_list = list;
		opening = seeded.lookup(&key);
		if (opening)
			ram_add_opening(cfg, found, opening, with_port);
		opening = ram_map_lookup(learned_here, &key);
		if (opening)
			ram_add_opening(cfg, found, opening, with_port);
		lists = ram_forget64(cfg, lists >> 1);
	}
}

static __always_inline u32 ram_reason_of_openings(struct ram_config *cfg, const struct ram_request *request,
						  u64 lists, u32 *rule)
{
	struct ram_findings found = {};
	u64 now = ram_now();

	found.until = ram_forget64(cfg, 0);
	found.rule = ram_forget(cfg, 0);
	found.private = ram_forget(cfg, 0);
	found.other = ram_forget(cfg, 0);
	ram_find_openings(cfg, request, lists, &found);
	*rule = found.rule;
	if (found.until) {
		if (now <= found.until)
			return RAM_REASON_ALLOWED_LEARNED;
		return now <= found.until + cfg->grace_ns ? RAM_REASON_ALLOWED_GRACE
							  : RAM_REASON_DENIED_EXPIRED;
	}
	if (found.private) {
		*rule = found.private;
		return RAM_REASON_DENIED_PRIVATE_ADDRESS;
	}
	*rule = found.other;
	return found.other ? RAM_REASON_DENIED_PORT : RAM_REASON_DENIED_UNKNOWN_ADDRESS;
}

/* Why not, of an endpoint that nothing is known of, or whose address is open on other ports. */
static __always_inline u32 ram_reason_of_refusal(const struct ram_request *request, u32 reason)
{
	u16 port = request->remote.port;
	struct ram_address address = {};

	if (port == RAM_PORT_DNS)
		return RAM_REASON_DENIED_RESOLVER;
	if (port == RAM_PORT_DNS_ENCRYPTED)
		return request->protocol == IPPROTO_UDP ? RAM_REASON_DENIED_DNS_OVER_QUIC
							: RAM_REASON_DENIED_DNS_OVER_TLS;
	if (port != RAM_PORT_HTTPS || reason != RAM_REASON_DENIED_UNKNOWN_ADDRESS)
		return reason;
	__builtin_memcpy(address.word, request->remote.address, 16);
	return encrypted_resolvers.lookup(&address) ? RAM_REASON_DENIED_DNS_OVER_HTTPS : reason;
}

static __always_inline u32 ram_reason_for(struct ram_config *cfg, const struct ram_request *request,
					  u32 *rule)
{
	struct ram_range_key range = {};
	struct ram_range *found;
	u32 port = request->remote.port;
	u64 *lists_of_port, lists = 0;
	u32 reason;

	if (resolvers.lookup((struct ram_endpoint *)&request->remote))
		return RAM_REASON_ALLOWED_RESOLVER;

	lists_of_port = ports.lookup(&port);
	if (lists_of_port)
		lists = *lists_of_port;
	reason = ram_reason_of_openings(cfg, request, ram_forget64(cfg, lists), rule);
	if (reason < RAM_REASON_DENIED_UNKNOWN_ADDRESS)
		return reason;

	range.prefixlen = 32 + 128;
	range.port_be = RAM_HTONL(port);
	range.address[0] = request->remote.address[0];
	range.address[1] = request->remote.address[1];
	range.address[2] = request->remote.address[2];
	range.address[3] = request->remote.address[3];
	found = ranges.lookup(&range);
	if (found && found->rule) {
		*rule = found->rule;
		return RAM_REASON_ALLOWED_ADDRESS;
	}
	if (reason != RAM_REASON_DENIED_UNKNOWN_ADDRESS && reason != RAM_REASON_DENIED_PORT)
		return reason;
	return ram_reason_of_refusal(request, reason);
}

static __always_inline u32 ram_verdict_for(struct ram_config *cfg, u32 reason)
{
	if (reason < RAM_REASON_DENIED_UNKNOWN_ADDRESS)
		return RAM_VERDICT_ALLOW;
	return cfg->mode == RAM_MODE_AUDIT ? RAM_VERDICT_WOULD_DENY : RAM_VERDICT_DENY;
}

/* The return value of a cgroup program: 1 lets pass, 0 refuses (EPERM at connect() and sendmsg()). */
static __always_inline int ram_return(u32 verdict)
{
	u64 pass = verdict != RAM_VERDICT_DENY;

	/* Kept opaque: folded into arithmetic on the verdict it is no longer seen to be 0 or 1 by newer
	 * verifiers. */
	asm volatile("" : "+r"(pass));
	return pass ? 1 : 0;
}

#endif
