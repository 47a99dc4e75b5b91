/* SPDX-License-Identifier: Apache-2.0 */
/* Writing down what a trusted resolver said: addresses that an allowed name has, and names that it leads to.
 */
#ifndef RAM_LEARN_H
#define RAM_LEARN_H

#include "lib/arithmetic.h"
#include "lib/maps.h"
#include "lib/special.h"

#define RAM_SECOND 1000000000ULL

#define RAM_ROOM_WORDS 8

/*
 * What is read from a packet or handed to a map, one thing after the other. In one place, which the caller
 * has, so that turns of a loop leave it alike: see ram_settle().
 */
struct ram_room {
	union {
		u64 words[RAM_ROOM_WORDS];
		struct {
			struct ram_opening opening;
			struct ram_range_key range;
			u64 number; /* of a rule */
		};
		struct {
			struct ram_alias alias;
			u64 identity;
			u64 scope;
		};
	};
};

/* The time to live of a record in seconds. RFC 2181 8: with the top bit set, to be taken as zero. */
static __always_inline u64 ram_ttl(u32 ttl)
{
	return ttl & ((ttl >> 31) - 1);
}

/* Until when to keep what may be kept for so many seconds. */
static __always_inline u64 ram_expiry(struct ram_config *cfg, u64 now, u64 seconds)
{
	s64 at_least = -ram_lesser(-(s64)cfg->minimum_ttl, -(s64)seconds);

	return now + ram_lesser(cfg->maximum_ttl, at_least) * RAM_SECOND;
}

/* RAM_OPENING_PRIVATE when the address is private and the rule expects none such; else 0. */
static __always_inline u32 ram_opening_flags(const u32 *address, u32 rule, u32 rule_flags,
					     struct ram_range_key *range)
{
	struct ram_range *found;

	if (!ram_is_special(address) || (rule_flags & RAM_RULE_PRIVATE))
		return 0;
	if (!(rule_flags & RAM_RULE_PRIVATE_RANGES))
		return RAM_OPENING_PRIVATE;
	range->prefixlen = 32 + 128;
	range->port_be = RAM_HTONL(rule);
	range->address[0] = address[0];
	range->address[1] = address[1];
	range->address[2] = address[2];
	range->address[3] = address[3];
	found = private_ranges.lookup(range);
	return found && found->rule ? 0 : RAM_OPENING_PRIVATE;
}

/*
 * Opens an address on the ports of a rule until a time, or longer where it already is. Returns what was
 * written: bit 0, no room for it; bit 1, it opens nothing, as the address is private.
 */
#define RAM_OPEN_FAILED 1
#define RAM_OPEN_PRIVATE 2

static __always_inline u32 ram_open(void *learned_here, struct ram_opening_key *key, u64 expires, u32 number,
				    struct ram_room *room)
{
	struct ram_opening *opening = &room->opening;
	struct ram_opening *old;
	struct ram_rule *rule;

	room->number = number;
	rule = rules.lookup((u32 *)&room->number);
	if (!rule)
		return RAM_OPEN_FAILED;
	key->port_list = rule->port_list;
	opening->expires_ns = expires;
	/* Both at once, so that they leave one slot of the stack as any other step does. */
	*(volatile u64 *)&opening->rule =
		(u64)ram_opening_flags(key->address, number, rule->flags, &room->range) << 32 | number;
	old = ram_map_lookup(learned_here, key);
	if (old && !(old->flags & RAM_OPENING_PRIVATE)) {
		/* What one rule opened is not shut by another one that would not have. */
		if (opening->flags)
			return RAM_OPEN_PRIVATE;
		if (old->expires_ns >= expires)
			return 0;
	}
	if (ram_map_update(learned_here, key, opening, 0 /* BPF_ANY */))
		return RAM_OPEN_FAILED;
	return opening->flags ? RAM_OPEN_PRIVATE : 0;
}

/*
 * Remembers that an allowed name leads to another one, which may be asked for in a query of its own. What is
 * known already of the same rule is not made shorter.
 */
static __always_inline u32 ram_remember_alias(u32 scope, u64 identity, u64 expires, u32 rule, u32 depth,
					      struct ram_room *room)
{
	struct ram_alias *alias = &room->alias;
	struct ram_alias *old;
	void *aliases_here;

	room->identity = identity;
	room->scope = scope;
	aliases_here = aliases.lookup((u32 *)&room->scope);
	if (!aliases_here || depth >= RAM_ALIAS_DEPTH_MAX)
		return 0;
	old = ram_map_lookup(aliases_here, &room->identity);
	if (old && old->rule == rule && old->expires_ns >= expires)
		return 1;
	alias->expires_ns = expires;
	*(volatile u64 *)&alias->rule = (u64)(depth + 1) << 32 | rule;
	return ram_map_update(aliases_here, &room->identity, alias, 0) == 0;
}

#endif
