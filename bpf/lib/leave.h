/* SPDX-License-Identifier: Apache-2.0 */
/* How a program for packets ends, which differs between the hooks of a cgroup and those of a device. */
#ifndef RAM_LEAVE_H
#define RAM_LEAVE_H

#include "lib/maps.h"
#include "lib/verdict.h"

#ifdef RAM_TC
/* include/uapi/linux/pkt_cls.h: on to whatever else is attached here, and dropped. */
#define RAM_PASS -1
#define RAM_DROP 2

#define RAM_HOOK_INCOMING RAM_HOOK_DEVICE_INCOMING
#define RAM_HOOK_OUTGOING RAM_HOOK_DEVICE_OUTGOING

/*
 * Whether this is at a bridge, and about a container of which user space does not know yet whether it is
 * governed. Until then it is held to the policy, but nothing is said: who connects will try again, and by
 * then it is known.
 */
static __always_inline bool ram_is_new_container(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_SCOPE] & RAM_PLACE_HOLD;
}

/* Whether nothing is to be said of what is refused here. */
static __always_inline bool ram_is_silent(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_SCOPE] & (RAM_PLACE_HOLD | RAM_PLACE_LEARN);
}

/*
 * What is refused gets an answer, by a program of its own. But not here where that is still somebody else's
 * business, as what that has learned is not all known here yet.
 */
static __always_inline int ram_leave(struct __sk_buff *skb, u32 verdict, u32 reason)
{
	if (verdict != RAM_VERDICT_DENY || (skb->cb[RAM_CB_SCOPE] & RAM_PLACE_LEARN))
		return RAM_PASS;
	/* What cannot be judged where it stands is sent again. */
	if (ram_is_new_container(skb) || reason == RAM_REASON_DENIED_SEGMENT)
		return RAM_DROP;
	skb->cb[RAM_CB_TICKET] = reason;
	egress_programs.call(skb, RAM_EGRESS_PROGRAM_REFUSE);
	return RAM_DROP;
}
#else
/* What a cgroup_skb program returns (kernel/bpf/cgroup.c, __cgroup_bpf_run_filter_skb). */
#define RAM_PASS 1
#define RAM_DROP 0

#define RAM_HOOK_INCOMING RAM_HOOK_INET_INGRESS
#define RAM_HOOK_OUTGOING RAM_HOOK_INET_EGRESS

static __always_inline bool ram_is_new_container(struct __sk_buff *skb)
{
	return false;
}

static __always_inline bool ram_is_silent(struct __sk_buff *skb)
{
	return false;
}

static __always_inline int ram_leave(struct __sk_buff *skb, u32 verdict, u32 reason)
{
	return ram_return(verdict);
}
#endif

#endif
