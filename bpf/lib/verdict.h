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
#include "lib/loops.h"
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
	u64 list;

	if (!learned_here)
		return;
	__builtin_memcpy(key.address, request->remote.address, 16);
	RAM_TURNS(list, cfg, RAM_PORT_LISTS_MAX) {
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

/* Whether a rule of names allows a port. */
static __always_inline bool ram_has_port(const struct ram_rule *rule, u32 port)
{
	u64 *lists = ports.lookup(&port);

	return lists && (*lists >> (rule->port_list & 63) & 1);
}

/* The rule of addresses that allows an endpoint; 0: there is none. */
static __always_inline u32 ram_rule_of_address(const u32 *address, u32 port)
{
	struct ram_range_key range = {};
	struct ram_range *found;

	range.prefixlen = 32 + 128;
	range.port_be = RAM_HTONL(port);
	range.address[0] = address[0];
	range.address[1] = address[1];
	range.address[2] = address[2];
	range.address[3] = address[3];
	found = ranges.lookup(&range);
	return found ? found->rule : 0;
}

/* In a scope that may reach only what is allowed. */
static __always_inline u32 ram_strict_reason(struct ram_config *cfg, const struct ram_request *request,
					     u32 *rule)
{
	u32 port = request->remote.port;
	u64 *lists_of_port, lists = 0;
	u32 reason, by_address;

	if (resolvers.lookup((struct ram_endpoint *)&request->remote))
		return RAM_REASON_ALLOWED_RESOLVER;

	lists_of_port = ports.lookup(&port);
	if (lists_of_port)
		lists = *lists_of_port;
	reason = ram_reason_of_openings(cfg, request, ram_forget64(cfg, lists), rule);
	/* What is allowed by its address needs no name, whoever else has it. */
	if (reason < RAM_REASON_DENIED_UNKNOWN_ADDRESS && !(cfg->flags & RAM_CONFIG_READ_NAMES))
		return reason;

	by_address = ram_rule_of_address(request->remote.address, port);
	if (by_address) {
		*rule = by_address;
		return RAM_REASON_ALLOWED_ADDRESS;
	}
	if (reason != RAM_REASON_DENIED_UNKNOWN_ADDRESS && reason != RAM_REASON_DENIED_PORT)
		return reason;
	return ram_reason_of_refusal(request, reason);
}

static __always_inline bool ram_is_among(const u16 *ports, u32 port)
{
	u64 found = 0;
	int i;

#pragma unroll
	for (i = 0; i < RAM_SOME_PORTS_MAX; i++)
		found |= ram_mask_if_equal(ports[i], port);
	return port && found;
}

/* The rule by which the address is refused on a list of ports (enum ram_refused_list); 0: none. */
static __always_inline u32 ram_rule_of_refused(struct ram_config *cfg, const struct ram_request *request,
					       u32 list)
{
	void *learned_here = learned.lookup((u32 *)&request->scope);
	struct ram_opening_key key = {};
	struct ram_opening *opening;
	u64 now = ram_now();

	__builtin_memcpy(key.address, request->remote.address, 16);
	key.port_list = list;
	opening = seeded.lookup(&key);
	if (opening && now <= opening->expires_ns + cfg->grace_ns)
		return opening->rule;
	if (!learned_here)
		return 0;
	opening = ram_map_lookup(learned_here, &key);
	if (opening && now <= opening->expires_ns + cfg->grace_ns)
		return opening->rule;
	return 0;
}

/* In posture registries, of what is not allowed: whether it is recognised as a registry's. */
static __always_inline u32 ram_reason_of_recognition(struct ram_config *cfg,
						     const struct ram_request *request, u32 reason, u32 *rule)
{
	u32 port = request->remote.port, refused;
	u64 *until;

	refused = ram_rule_of_refused(cfg, request, RAM_REFUSED_LIST_ALL);
	if (!refused)
		refused = ram_rule_of_refused(cfg, request, RAM_REFUSED_LIST_ON + port);
	if (refused) {
		*rule = refused;
		return RAM_REASON_DENIED_REGISTRY;
	}
	if (reason == RAM_REASON_DENIED_PRIVATE_ADDRESS)
		return reason;
	*rule = 0;
	if (request->protocol == IPPROTO_UDP)
		return RAM_REASON_ALLOWED_OTHER;
	if (ram_is_among(cfg->registry_ports, port))
		return RAM_REASON_DENIED_REGISTRY_PORT;
	if (cfg->unknown == RAM_UNKNOWN_ALLOW || !ram_is_among(cfg->asked_ports, port))
		return RAM_REASON_ALLOWED_OTHER;
	until = asked.lookup((struct ram_endpoint *)&request->remote);
	if (until && ram_now() <= *until)
		return RAM_REASON_ALLOWED_OTHER;
	return cfg->unknown == RAM_UNKNOWN_DENY ? RAM_REASON_DENIED_UNASKED : RAM_REASON_ALLOWED_UNASKED;
}

static __always_inline bool ram_is_denied(u32 reason)
{
	return (reason >= RAM_REASON_DENIED_UNKNOWN_ADDRESS && reason <= RAM_REASON_DENIED_REGISTRY) ||
	       reason == RAM_REASON_DENIED_REGISTRY_PORT || reason == RAM_REASON_DENIED_UNASKED ||
	       (reason >= RAM_REASON_NAME_MISMATCH && reason <= RAM_REASON_DENIED_REMOVED);
}

static __always_inline u32 ram_reason_for(struct ram_config *cfg, const struct ram_request *request,
					  u32 *rule)
{
	/* Forgotten, as what follows would be walked once for each reason that there may be. */
	u32 reason = ram_forget(cfg, ram_strict_reason(cfg, request, rule));

	*rule = ram_forget(cfg, *rule);
	if (cfg->posture == RAM_POSTURE_STRICT) {
		/*
		 * In QUIC a connection says its name under keys of its own (RFC 9001 5.2), and no client of a
		 * registry speaks that. DNS is another thing, where the policy allows a host that port.
		 */
		if ((cfg->flags & RAM_CONFIG_READ_NAMES) && request->protocol == IPPROTO_UDP &&
		    request->remote.port != RAM_PORT_DNS &&
		    (reason == RAM_REASON_ALLOWED_LEARNED || reason == RAM_REASON_ALLOWED_GRACE))
			return RAM_REASON_DENIED_NOT_NAMED;
		return reason;
	}
	if (!ram_is_denied(reason))
		return reason;
	return ram_reason_of_recognition(cfg, request, reason, rule);
}

/* Whether it makes a difference that something comes from user space itself, which asks what is there. */
static __always_inline bool ram_may_be_own(struct ram_config *cfg, u32 reason)
{
	return cfg->posture != RAM_POSTURE_STRICT &&
	       (ram_is_denied(reason) || reason == RAM_REASON_ALLOWED_UNASKED);
}

/* Whether nobody wants to read of each connection that passes for this reason. */
static __always_inline bool ram_is_unremarkable(u32 reason)
{
	return reason == RAM_REASON_ALLOWED_RESOLVER || reason == RAM_REASON_ALLOWED_OTHER ||
	       reason == RAM_REASON_ALLOWED_OWN;
}

/* Whether user space is gone for so long that, as the policy says, nothing is to be refused any more. */
static __always_inline bool ram_is_lease_expired(struct ram_config *cfg)
{
	u32 zero = 0;
	u64 *seen;

	if (!cfg->lease_ns)
		return false;
	seen = alive.lookup(&zero);
	return seen && ram_is_past(ram_now(), *seen, cfg->lease_ns);
}

static __always_inline u32 ram_verdict_for(struct ram_config *cfg, u32 reason)
{
	if (!ram_is_denied(reason))
		return RAM_VERDICT_ALLOW;
	if (cfg->mode == RAM_MODE_AUDIT || ram_is_lease_expired(cfg))
		return RAM_VERDICT_WOULD_DENY;
	return RAM_VERDICT_DENY;
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
