/* SPDX-License-Identifier: Apache-2.0 */
/* TCP connections that others opened to what is governed; only outbound ones are judged. */
#ifndef RAM_INBOUND_H
#define RAM_INBOUND_H

#include "lib/hold.h"

static __always_inline void ram_note_inbound(const struct ram_packet *p, u32 scope)
{
	void *inbound_here = inbound.lookup(&scope);
	struct ram_flow flow = {};
	u64 now = ram_now();

	if (!inbound_here)
		return;
	ram_flow_of_incoming(p, &flow);
	ram_map_update(inbound_here, &flow, &now, 0);
}

static __always_inline bool ram_is_inbound(const struct ram_packet *p, u32 scope)
{
	void *inbound_here = inbound.lookup(&scope);
	struct ram_flow flow = {};

	if (!inbound_here)
		return false;
	ram_flow_of_outgoing(p, &flow);
	return ram_map_lookup(inbound_here, &flow) != NULL;
}

static __always_inline bool ram_opens_connection(const struct ram_packet *p)
{
	return p->protocol == IPPROTO_TCP && (p->tcp_flags & (RAM_TCP_SYN | RAM_TCP_ACK)) == RAM_TCP_SYN;
}

#endif
