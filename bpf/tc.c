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

/*
 * Holding new containers. A bridge sees everything that leaves through it for this host or further, and holds
 * to the policy what comes from a port of which user space does not know yet whose it is. Programs at the
 * ports that it knows mark what they pass, in a field that the kernel carries from the port to the bridge
 * (__sk_buff's tc_index). The mark is a random number, so that nobody behind a new port can write it.
 */
RAM_FIRST_HALF int ram_device_known(struct __sk_buff *skb)
{
	skb->tc_index = ram_place_of_program() >> RAM_MARK_SHIFT;
	return RAM_PASS;
}

RAM_FIRST_HALF int ram_device_incoming(struct __sk_buff *skb)
{
	skb->cb[RAM_CB_SCOPE] = ram_place_of_program() & RAM_PLACE_MASK;
	ingress_programs.call(skb, RAM_INGRESS_PROGRAM_MAIN);
	return RAM_PASS;
}

RAM_SECOND_HALF int ram_device_outgoing(struct __sk_buff *skb)
{
	u32 place = ram_place_of_program();
	u32 mark = place >> RAM_MARK_SHIFT;

	if (place & RAM_PLACE_HOLD) {
		if (skb->tc_index == mark)
			return RAM_PASS;
	} else if (mark) {
		skb->tc_index = mark;
	}
	skb->cb[RAM_CB_SCOPE] = place & RAM_PLACE_MASK;
	egress_programs.call(skb, RAM_EGRESS_PROGRAM_MAIN);
	return RAM_DROP; /* not reached; and if it were, nothing would leave unjudged */
}
