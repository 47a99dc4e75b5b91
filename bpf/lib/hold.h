/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DNS over TCP. What a segment says is not believed: it passes here before TCP has looked at its sequence
 * number, so anybody could have sent it. User space asks for the name itself instead. Until it has, the
 * connection's replies are held: the segments are dropped, and TCP sends them again a little later.
 */
#ifndef RAM_HOLD_H
#define RAM_HOLD_H

#include "lib/l3l4.h"

#define RAM_ALIVE_NS                                                                                         \
	3000000000ULL /* user space that was not seen for so long is dead, and nothing waits for it */

static __always_inline void ram_flow_of_outgoing(const struct ram_packet *p, struct ram_flow *flow)
{
	__builtin_memcpy(flow->local, p->source, 16);
	__builtin_memcpy(flow->remote, p->destination, 16);
	flow->local_port = p->source_port;
	flow->remote_port = p->destination_port;
}

static __always_inline void ram_flow_of_incoming(const struct ram_packet *p, struct ram_flow *flow)
{
	__builtin_memcpy(flow->local, p->destination, 16);
	__builtin_memcpy(flow->remote, p->source, 16);
	flow->local_port = p->destination_port;
	flow->remote_port = p->source_port;
}

/* Whether queries were seen on this connection whose replies were held. */
static __always_inline bool ram_is_held(const struct ram_packet *p, u32 scope)
{
	void *held_here = held.lookup(&scope);
	struct ram_flow flow = {};

	ram_flow_of_outgoing(p, &flow);
	return held_here && ram_map_lookup(held_here, &flow);
}

/* From now on replies wait. Returns how many queries the connection has sent. */
static __always_inline u32 ram_hold_replies(const struct ram_packet *p, u32 scope)
{
	void *held_here = held.lookup(&scope);
	struct ram_flow flow = {};
	struct ram_hold hold = {};
	struct ram_hold *old;

	if (!held_here)
		return 0;
	ram_flow_of_outgoing(p, &flow);
	old = ram_map_lookup(held_here, &flow);
	if (old)
		hold.queries = old->queries;
	hold.queries += 1;
	hold.since_ns = ram_now();
	ram_map_update(held_here, &flow, &hold, 0);
	return hold.queries;
}

/* Whether an incoming segment with data has to wait. */
static __always_inline bool ram_must_wait(struct ram_config *cfg, const struct ram_packet *p, u32 scope)
{
	void *held_here = held.lookup(&scope), *released_here = released.lookup(&scope);
	struct ram_flow flow = {};
	struct ram_hold *hold;
	u32 *done, zero = 0;
	u64 *seen, now;

	if (!held_here || !released_here || cfg->mode == RAM_MODE_AUDIT)
		return false;
	ram_flow_of_incoming(p, &flow);
	hold = ram_map_lookup(held_here, &flow);
	if (!hold)
		return false;
	now = ram_now();
	seen = alive.lookup(&zero);
	if (ram_is_past(now, hold->since_ns, cfg->hold_ns) || !seen || ram_is_past(now, *seen, RAM_ALIVE_NS))
		return false;
	done = ram_map_lookup(released_here, &flow);
	return !done || (s32)(hold->queries - *done) > 0;
}

#endif
