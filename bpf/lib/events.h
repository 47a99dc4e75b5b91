/* SPDX-License-Identifier: Apache-2.0 */
/* Counting and telling: each reason has a counter, and what a person may want to read becomes an event. */
#ifndef RAM_EVENTS_H
#define RAM_EVENTS_H

#include "lib/maps.h"

static __always_inline void ram_count(u32 reason)
{
	u64 *counter = counters.lookup(&reason);

	/* Atomic, since a softirq may count on this CPU between a load and a store of ours. */
	if (counter)
		lock_xadd(counter, 1);
}

static __always_inline void ram_fill_event(struct __sk_buff *skb, struct ram_event *event, u32 packet_len)
{
	event->time_ns = ram_now();
	event->cgroup_id = bpf_skb_cgroup_id(skb);
	event->socket_cookie = bpf_get_socket_cookie(skb);
	event->uid = -1;
	event->packet_len = packet_len;
}

/* The size of a perf record is 16 bits wide; a DNS message over UDP stays far below this. */
static __always_inline u32 ram_clip_packet(u32 packet_len)
{
	return packet_len > 16384 ? 16384 : packet_len;
}

/* Sends an event with the first packet_len bytes of the packet behind it; 0 for none. */
static __always_inline void ram_emit_skb(struct __sk_buff *skb, struct ram_event *event, u32 packet_len)
{
	packet_len = ram_clip_packet(packet_len);
	ram_fill_event(skb, event, packet_len);
	events.perf_submit_skb(skb, packet_len, event, sizeof(*event));
}

#define RAM_BIT_OF(reason) (1ULL << (reason))

/* Whether user space is to look into a reply about an allowed name: a client waits for what is found. */
static __always_inline bool ram_is_handed_over(u32 reason)
{
	return RAM_BIT_OF(reason & 63) &
	       (RAM_BIT_OF(RAM_REASON_DNS_TRUNCATED) | RAM_BIT_OF(RAM_REASON_DNS_MALFORMED) |
		RAM_BIT_OF(RAM_REASON_DNS_TOO_MANY) | RAM_BIT_OF(RAM_REASON_DNS_MAP_FULL) |
		RAM_BIT_OF(RAM_REASON_DNS_OTHER_NAME) | RAM_BIT_OF(RAM_REASON_DNS_WRONG_INTERFACE) |
		RAM_BIT_OF(RAM_REASON_DNS_UNTRUSTED_SENDER));
}

/* The same as ram_emit_skb for what somebody waits for. It wakes user space at once. */
static __always_inline void ram_emit_question(struct __sk_buff *skb, struct ram_event *event, u32 packet_len)
{
	packet_len = ram_clip_packet(packet_len);
	ram_fill_event(skb, event, packet_len);
	questions.perf_submit_skb(skb, packet_len, event, sizeof(*event));
}

static __always_inline void ram_emit_sock_addr(struct bpf_sock_addr *ctx, struct ram_event *event)
{
	event->time_ns = ram_now();
	event->socket_cookie = bpf_get_socket_cookie(ctx);
	event->uid = bpf_get_current_uid_gid();
#ifdef RAM_HAVE_SOCK_ADDR_TASK
	event->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
#endif
#ifdef RAM_HAVE_SOCK_ADDR_CGROUP_ID
	event->cgroup_id = bpf_get_current_cgroup_id();
#endif
#ifdef RAM_HAVE_SOCK_ADDR_PERF
	events.perf_submit(ctx, event, sizeof(*event));
#else
	connect_events.push(event, BPF_EXIST); /* when full, the oldest goes */
#endif
}

#endif
