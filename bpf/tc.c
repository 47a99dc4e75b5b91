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
#include "lib/outgoing.h"
#include "lib/refusal.h"

/*
 * On the device of a container of which user space does not know yet whether it is governed. Its packets are
 * dropped without an answer: those that connect will try again, and by then it is known.
 */
int ram_device_hold(struct __sk_buff *skb)
{
	if ((u16)skb->protocol == RAM_HTONS(RAM_ETH_P_ARP))
		return RAM_PASS;
	ram_count(RAM_REASON_DENIED_NEW_CONTAINER);
	return RAM_DROP;
}

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
