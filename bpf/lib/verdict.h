/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision, in one place.
 *
 * ram_reason_for() says why an endpoint may or may not be reached; it knows nothing of modes or packets.
 * ram_verdict_for() turns the reason into a verdict, and is the only place where audit differs from enforce.
 */
#ifndef RAM_VERDICT_H
#define RAM_VERDICT_H

#include "lib/maps.h"

#define RAM_PORT_DNS 53
#define RAM_PORT_DNS_OVER_TLS 853

static __always_inline u32 ram_opening_state(struct ram_opening *opening, u64 now, u64 grace)
{
	if (now <= opening->expires_ns)
		return RAM_REASON_ALLOWED_LEARNED;
	if (now <= opening->expires_ns + grace)
		return RAM_REASON_ALLOWED_GRACE;
	return RAM_REASON_DENIED_EXPIRED;
}

static __always_inline u32 ram_reason_for(struct ram_config *cfg, struct ram_endpoint *remote, u32 *rule)
{
	u64 now = bpf_ktime_get_ns();
	struct ram_range_key range = {};
	struct ram_opening *opening;
	struct ram_range *found;
	u32 reason = RAM_REASON_DENIED_UNKNOWN_ADDRESS;
	u16 port = remote->port;

	if (resolvers.lookup(remote))
		return RAM_REASON_ALLOWED_RESOLVER;

	if (port != RAM_PORT_ANY) { /* an entry for RAM_PORT_ANY opens nothing */
		opening = seeded.lookup(remote);
		if (opening) {
			*rule = opening->rule;
			reason = ram_opening_state(opening, now, cfg->grace_ns);
			if (reason != RAM_REASON_DENIED_EXPIRED)
				return reason;
		}
		opening = learned.lookup(remote);
		if (opening) {
			*rule = opening->rule;
			reason = ram_opening_state(opening, now, cfg->grace_ns);
			if (reason != RAM_REASON_DENIED_EXPIRED)
				return reason;
		}
	}

	range.prefixlen = 32 + 128;
	range.port_be = RAM_HTONL((u32)port);
	range.address[0] = remote->address[0];
	range.address[1] = remote->address[1];
	range.address[2] = remote->address[2];
	range.address[3] = remote->address[3];
	found = ranges.lookup(&range);
	if (found && found->rule) {
		*rule = found->rule;
		return RAM_REASON_ALLOWED_ADDRESS;
	}

	if (reason == RAM_REASON_DENIED_EXPIRED)
		return reason;
	if (port == RAM_PORT_DNS || port == RAM_PORT_DNS_OVER_TLS)
		return RAM_REASON_DENIED_RESOLVER;
	remote->port = RAM_PORT_ANY;
	opening = seeded.lookup(remote);
	if (!opening)
		opening = learned.lookup(remote);
	remote->port = port;
	if (opening) {
		*rule = opening->rule;
		return RAM_REASON_DENIED_PORT;
	}
	return reason;
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
