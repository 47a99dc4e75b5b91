/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every map. The sizes here are those of a small policy: the loader creates each map itself and chooses
 * max_entries by the policy (ram_ebpf/dataplane/maps.py).
 *
 * What traffic fills is kept per scope, in maps of maps that are indexed by the scope's number: a flood in
 * one scope finds nothing of another one to evict. Their inner maps are described in dataplane/scope_maps.py.
 */
#ifndef RAM_MAPS_H
#define RAM_MAPS_H

#include "abi.h"
#include "lib/declare.h"
#include "lib/halves.h"

RAM_ARRAY(struct ram_config, config, 1);
RAM_MAP("hash", struct ram_suffix_key, struct ram_suffix, names, 1024, 0);
RAM_ARRAY(struct ram_state, automaton, 1);
RAM_ARRAY(struct ram_rule, rules, 1024);
/* The identity of a rule to its number in this policy; 0: the policy has it no more, but connections stay. */
RAM_MAP("hash", u64, u32, live, 1024, BPF_F_NO_PREALLOC);
/* A port to the lists of ports that it is in, a bit for each. */
RAM_MAP("hash", u32, u64, ports, 1024, 0);
RAM_MAP("hash", struct ram_endpoint, u32, resolvers, 64, 0);
/* Cookies of the sockets of resolvers on this host. */
RAM_MAP("hash", u64, u32, resolver_sockets, 256, 0);
/* Ids of the cgroups in which Docker daemons live themselves. */
RAM_MAP("hash", u64, u32, resolver_cgroups, 64, 0);
/* Addresses (four words) of well-known resolvers that speak DNS over HTTPS. */
struct ram_address {
	u32 word[4];
};
RAM_MAP("hash", struct ram_address, u32, encrypted_resolvers, 4096, 0);
RAM_MAP("lpm_trie", struct ram_range_key, struct ram_range, ranges, 1024, BPF_F_NO_PREALLOC);
RAM_MAP("lpm_trie", struct ram_range_key, struct ram_range, private_ranges, 1024, BPF_F_NO_PREALLOC);
/* What user space resolved of the policy's own names; apart, so that no traffic can evict it. */
RAM_MAP("hash", struct ram_opening_key, struct ram_opening, seeded, 65536, BPF_F_NO_PREALLOC);
/* Fingerprints of what resolvers on this host have just sent, to their time; see lib/witness.h. */
RAM_MAP("lru_hash", u64, u64, witnessed, 4096, 0);
/* Endpoints at which user space has asked for a registry and found none, to the time until which that holds.
 */
RAM_MAP("lru_hash", struct ram_endpoint, u64, asked, 16384, 0);
/* Cookies of user space's own sockets, by which it asks. */
RAM_MAP("lru_hash", u64, u32, own_sockets, 1024, 0);
/* Cookies of sockets that were let through before it was known that they lead to a registry. */
RAM_MAP("lru_hash", u64, u32, cut_sockets, 4096, 0);
/* Cookies of sockets to the depth of the innermost cgroup that governs them; see lib/nearest.h. */
RAM_MAP("lru_hash", u64, u32, judged, 16384, 0);
/* Where refused connections are answered, and on which ports; see lib/responder.h. */
RAM_ARRAY(struct ram_responder, responder, 1);
RAM_MAP("hash", u32, u32, responder_ports, 1024, 0);
/* Cookies of sockets that were led there, and the same by the client's end of the connection. */
RAM_MAP("lru_hash", u64, struct ram_led, led_sockets, 4096, 0);
RAM_MAP("lru_hash", struct ram_endpoint, struct ram_led, led, 4096, 0);
/* When user space was last seen alive. */
RAM_ARRAY(u64, alive, 1);
RAM_MAP("percpu_array", u32, u64, counters, RAM_REASON_COUNT, 0);
BPF_PERF_OUTPUT(events);
/*
 * What a client waits for user space to look into. It wakes user space, which the others do not, and no flood
 * of refusals takes its place.
 */
BPF_PERF_OUTPUT(questions);
/* Connect hooks have no perf events before Linux 5.15 or so: there they leave their events here. */
RAM_QUEUE(struct ram_event, connect_events, 4096);

/* The number of the scope that a program is attached to, with enum ram_place_flag. Each scope's programs are
 * loaded with a map of their own in this place. */
RAM_ARRAY(u32, scope_self, 1);

/*
 * Per scope. Declared as arrays of numbers, since what bcc wants to know of maps of maps differs from version
 * to version; the loader creates them as BPF_MAP_TYPE_ARRAY_OF_MAPS, whose elements are maps to a program.
 */
RAM_ARRAY(u32, queries, RAM_SCOPES_MAX);  /* struct ram_query_key to struct ram_query */
RAM_ARRAY(u32, unlisted, RAM_SCOPES_MAX); /* the same for names outside the policy */
RAM_ARRAY(u32, learned, RAM_SCOPES_MAX);  /* struct ram_opening_key to struct ram_opening */
RAM_ARRAY(u32, aliases, RAM_SCOPES_MAX);  /* u64 to struct ram_alias */
RAM_ARRAY(u32, inbound, RAM_SCOPES_MAX);  /* struct ram_flow to u64, the time */
RAM_ARRAY(u32, held, RAM_SCOPES_MAX);	  /* struct ram_flow to struct ram_hold */
RAM_ARRAY(u32, released, RAM_SCOPES_MAX); /* struct ram_flow to u32, written by user space alone */
#ifdef RAM_TC
RAM_ARRAY(u32, beginnings, RAM_SCOPES_MAX);  /* struct ram_flow to struct ram_beginning */
RAM_ARRAY(u32, established, RAM_SCOPES_MAX); /* struct ram_flow to struct ram_connection */
/* Of a scope, not to a map: the time until which connections whose beginning was not seen are taken for older
 * ones. */
RAM_ARRAY(u64, earlier, RAM_SCOPES_MAX);
/* Numbers of devices behind which something is governed: what comes in by one is no resolver's reply. */
RAM_MAP("hash", u32, u32, governed_devices, 8192, BPF_F_NO_PREALLOC);
#endif

/*
 * Two arrays, as newer kernels want one attach type in all programs of an array. A program of its own has its
 * own stack, and a limit of its own to what the verifier walks.
 */
RAM_PROGRAM_ARRAY(ingress_programs, RAM_INGRESS_PROGRAM_COUNT);
RAM_PROGRAM_ARRAY(egress_programs, RAM_EGRESS_PROGRAM_COUNT);

/* What one program leaves for the next, in skb->cb. */
#define RAM_CB_MESSAGE 0 /* offset of the DNS message; of a reply also its end, in the upper half */
#define RAM_CB_TICKET 1	 /* of the walk to go on with, 0: none; and at last the reason */
#define RAM_CB_RULE 2
#define RAM_CB_IDENTITY_LOW 1 /* of a query's name */
#define RAM_CB_IDENTITY_HIGH 2
#define RAM_CB_ALIAS 3
/* Its number and the place's flags; above that, how many aliases led here, and in the top bit whether a reply
 * is to a query for HTTPS or SVCB records. */
#define RAM_CB_SCOPE 4

static __always_inline u32 ram_scope_of(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_SCOPE] & RAM_SCOPE_MASK;
}

static __always_inline void ram_pass_depth(struct __sk_buff *skb, u32 depth)
{
	skb->cb[RAM_CB_SCOPE] = (skb->cb[RAM_CB_SCOPE] & 0xffff) | depth << 16;
}

static __always_inline u32 ram_depth_of(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_SCOPE] >> 16 & 0x7fff;
}

static __always_inline void ram_want_hints(struct __sk_buff *skb)
{
	skb->cb[RAM_CB_SCOPE] |= 1U << 31;
}

static __always_inline u32 ram_wants_hints(struct __sk_buff *skb)
{
	return skb->cb[RAM_CB_SCOPE] >> 31;
}

/* Helpers on maps that are not known by name (include/uapi/linux/bpf.h). */
static void *(*ram_map_lookup)(void *map, const void *key) = (void *)1;
static long (*ram_map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*ram_map_delete)(void *map, const void *key) = (void *)3;

#ifdef RAM_HAVE_KTIME_BOOT
static u64 (*ram_now)(void) = (void *)125; /* bpf_ktime_get_boot_ns */
#else
static u64 (*ram_now)(void) = (void *)5; /* bpf_ktime_get_ns */
#endif

/* Whether more has passed since a time than it may. Signed: another CPU's clock may be a little ahead of
 * ours. */
static __always_inline bool ram_is_past(u64 now, u64 since, u64 most)
{
	return (s64)(now - since) > (s64)most;
}

/* By socket. */
RAM_SOCKET_STORAGE(struct ram_peer, peers);
#ifndef RAM_TC
RAM_SOCKET_STORAGE(struct ram_beginning, firsts);
#endif

/*
 * The same number, of which the verifier knows nothing any more.
 *
 * The verifier keeps apart states in which a number that decides a branch has other known bounds. A counter
 * has other bounds in each turn of a loop, so whatever follows the loop would be verified once a turn, and
 * loops behind loops grow past the limit of a million instructions. Where a number leaves a loop or decides
 * a branch in one, its bounds are therefore forgotten. (Linux 5.15 also keeps apart what it spills with
 * bounds and without: a number must be forgotten in the same width everywhere.) cfg->zero is always 0, which
 * only user space knows.
 *
 * It is kept opaque: clang would compare the two operands instead, and the bounds would be learned again. A
 * macro, since a function that is inlined in a thousand places takes the compiler a twentieth of its time.
 */
#define ram_forget64(cfg, number)                                                                            \
	({                                                                                                   \
		u64 forgotten_ = (u64)(number) ^ *(volatile u64 *)&(cfg)->zero;                              \
		asm volatile("" : "+r"(forgotten_));                                                         \
		forgotten_;                                                                                  \
	})
#define ram_forget(cfg, number) ((u32)ram_forget64(cfg, (u32)(number)))

static __always_inline void ram_forget_address(struct ram_config *cfg, u32 *address)
{
	address[0] = ram_forget(cfg, address[0]);
	address[1] = ram_forget(cfg, address[1]);
	address[2] = ram_forget(cfg, address[2]);
	address[3] = ram_forget(cfg, address[3]);
}

#endif
