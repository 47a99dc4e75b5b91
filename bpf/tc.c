// SPDX-License-Identifier: Apache-2.0
/*
 * Entry points for a network device (sched_cls): its clsact qdisc, or tcx where the kernel has that.
 *
 * Governed is what is behind the device (a container behind its veth, out of the container's reach), or this
 * host's own traffic through it. The programs are those of a cgroup; only what they know of a packet's
 * socket, where a packet begins, and how it is refused differ. User space attaches them by direction.
 */
#define RAM_TC

#include "abi.h"

#include "lib/events.h"
#include "lib/incoming.h"
#include "lib/l3l4.h"
#include "lib/maps.h"
#include "lib/naming.h"
#include "lib/outgoing.h"
#include "lib/refusal.h"

int ram_device_incoming(struct __sk_buff *skb)
{
	skb->cb[RAM_CB_SCOPE] = ram_place_of_program();
	ingress_programs.call(skb, RAM_INGRESS_PROGRAM_MAIN);
	return RAM_PASS;
}

int ram_device_outgoing(struct __sk_buff *skb)
{
	skb->cb[RAM_CB_SCOPE] = ram_place_of_program();
	egress_programs.call(skb, RAM_EGRESS_PROGRAM_MAIN);
	return RAM_DROP; /* not reached; and if it were, nothing would leave unjudged */
}
