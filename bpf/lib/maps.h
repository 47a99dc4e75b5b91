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
#include "lib/halves.h"

BPF_ARRAY(config, struct ram_config, 1);
BPF_F_TABLE("hash", struct ram_suffix_key, struct ram_suffix, names, 1024, 0);
BPF_ARRAY(automaton, struct ram_state, 1);
BPF_ARRAY(rules, struct ram_rule, 1024);
/* The identity of a rule to its number in this policy; 0: the policy has it no more, but connections stay. */
BPF_F_TABLE("hash", u64, u32, live, 1024, BPF_F_NO_PREALLOC);
/* A port to the lists of ports that it is in, a bit for each. */
BPF_F_TABLE("hash", u32, u64, ports, 1024, 0);
BPF_F_TABLE("hash", struct ram_endpoint, u32, resolvers, 64, 0);
/* Cookies of the sockets of resolvers on this host. */
BPF_F_TABLE("hash", u64, u32, resolver_sockets, 256, 0);
/* Ids of the cgroups in which Docker daemons live themselves. */
BPF_F_TABLE("hash", u64, u32, resolver_cgroups, 64, 0);
/* Addresses (four words) of well-known resolvers that speak DNS over HTTPS. */
struct ram_address {
	u32 word[4];
};
BPF_F_TABLE("hash", struct ram_address, u32, encrypted_resolvers, 4096, 0);
BPF_F_TABLE("lpm_trie", struct ram_range_key, struct ram_range, ranges, 1024, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lpm_trie", struct ram_range_key, struct ram_range, private_ranges, 1024, BPF_F_NO_PREALLOC);
/* What user space resolved of the policy's own names; apart, so that no traffic can evict it. */
BPF_F_TABLE("hash", struct ram_opening_key, struct ram_opening, seeded, 65536, BPF_F_NO_PREALLOC);
/* Fingerprints of what resolvers on this host have just sent, to their time; see lib/witness.h. */
BPF_F_TABLE("lru_hash", u64, u64, witnessed, 4096, 0);
/* Endpoints at which user space has asked for a registry and found none, to the time until which that holds.
 */
BPF_F_TABLE("lru_hash", struct ram_endpoint, u64, asked, 16384, 0);
/* Cookies of user space's own sockets, by which it asks. */
BPF_F_TABLE("lru_hash", u64, u32, own_sockets, 1024, 0);
/* Cookies of sockets that were let through before it was known that they lead to a registry. */
BPF_F_TABLE("lru_hash", u64, u32, cut_sockets, 4096, 0);
/* Cookies of sockets to the depth of the innermost cgroup that governs them; see lib/nearest.h. */
BPF_F_TABLE("lru_hash", u64, u32, judged, 16384, 0);
/* Where refused connections are answered, and on which ports; see lib/responder.h. */
BPF_ARRAY(responder, struct ram_responder, 1);
BPF_F_TABLE("hash", u32, u32, responder_ports, 1024, 0);
/* Cookies of sockets that were led there, and the same by the client's end of the connection. */
BPF_F_TABLE("lru_hash", u64, struct ram_led, led_sockets, 4096, 0);
BPF_F_TABLE("lru_hash", struct ram_endpoint, struct ram_led, led, 4096, 0);
/* When user space was last seen alive. */
BPF_ARRAY(alive, u64, 1);
BPF_PERCPU_ARRAY(counters, u64, RAM_REASON_COUNT);
BPF_PERF_OUTPUT(events);
/*
 * What a client waits for user space to look into. It wakes user space, which the others do not, and no flood
 * of refusals takes its place.
 */
BPF_PERF_OUTPUT(questions);
/* Connect hooks have no perf events before Linux 5.15 or so: there they leave their events here. */
BPF_QUEUE(connect_events, struct ram_event, 4096);

/* The number of the scope that a program is attached to, with enum ram_place_flag. Each scope's programs are
 * loaded with a map of their own in this place. */
BPF_ARRAY(scope_self, u32, 1);

/*
 * Per scope. Declared as arrays of numbers, since what bcc wants to know of maps of maps differs from version
 * to version; the loader creates them as BPF_MAP_TYPE_ARRAY_OF_MAPS, whose elements are maps to a program.
 */
BPF_ARRAY(queries, u32, RAM_SCOPES_MAX);  /* struct ram_query_key to struct ram_query */
BPF_ARRAY(unlisted, u32, RAM_SCOPES_MAX); /* the same for names outside the policy */
BPF_ARRAY(learned, u32, RAM_SCOPES_MAX);  /* struct ram_opening_key to struct ram_opening */
BPF_ARRAY(aliases, u32, RAM_SCOPES_MAX);  /* u64 to struct ram_alias */
BPF_ARRAY(inbound, u32, RAM_SCOPES_MAX);  /* struct ram_flow to u64, the time */
BPF_ARRAY(held, u32, RAM_SCOPES_MAX);	  /* struct ram_flow to struct ram_hold */
BPF_ARRAY(released, u32, RAM_SCOPES_MAX); /* struct ram_flow to u32, written by user space alone */
#ifdef RAM_TC
BPF_ARRAY(beginnings, u32, RAM_SCOPES_MAX);  /* struct ram_flow to struct ram_beginning */
BPF_ARRAY(established, u32, RAM_SCOPES_MAX); /* struct ram_flow to struct ram_connection */
/* Of a scope, not to a map: the time until which connections whose beginning was not seen are taken for older
 * ones. */
BPF_ARRAY(earlier, u64, RAM_SCOPES_MAX);
/* Numbers of devices behind which something is governed: what comes in by one is no resolver's reply. */
BPF_F_TABLE("hash", u32, u32, governed_devices, 8192, BPF_F_NO_PREALLOC);
#endif

/*
 * Two arrays, as newer kernels want one attach type in all programs of an array. A program of its own has its
 * own stack, and a limit of its own to what the verifier walks.
 */
BPF_PROG_ARRAY(ingress_programs, RAM_INGRESS_PROGRAM_COUNT);
BPF_PROG_ARRAY(egress_programs, RAM_EGRESS_PROGRAM_COUNT);

/* What one program leaves for the next, in skb->cb. */
#define RAM_CB_MESSAGE 0 /* offset of the DNS message; of a reply also its end, in the upper half */
#define RAM_CB_TICKET 1	 /* of the walk to go on with, 0: none; and at last the reason */
#define RAM_CB_RULE 2
#define RAM_CB_IDENTITY_LOW 1 /* of a query's name */
#define RAM_CB_IDENTITY_HIGH 2
#define RAM_CB_ALIAS 3
#define RAM_CB_SCOPE 4 /* its number and the place's flags; above that, how many aliases led here */

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
	return skb->cb[RAM_CB_SCOPE] >> 16;
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

/*
 * Socket storage. Declared as a hash, since bcc's own declaration wants type information that not every
 * version of it writes; the loader creates it as BPF_MAP_TYPE_SK_STORAGE.
 */
#define RAM_SOCKET_STORAGE(type, name)                                                                       \
	struct name##_table_t {                                                                              \
		u32 key;                                                                                     \
		type leaf;                                                                                   \
		void *(*sk_storage_get)(void *, void *, int);                                                \
		int (*sk_storage_delete)(void *);                                                            \
		u32 max_entries;                                                                             \
		int flags;                                                                                   \
	};                                                                                                   \
	__attribute__((section("maps/hash"))) struct name##_table_t name = {.max_entries = 1}

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
 */
static __always_inline u64 ram_forget64(struct ram_config *cfg, u64 number)
{
	u64 forgotten = number ^ *(volatile u64 *)&cfg->zero;

	/* Kept opaque: clang would compare the two operands instead, and the bounds would be learned again.
	 */
	asm volatile("" : "+r"(forgotten));
	return forgotten;
}

static __always_inline u32 ram_forget(struct ram_config *cfg, u32 number)
{
	return ram_forget64(cfg, number);
}

static __always_inline void ram_forget_address(struct ram_config *cfg, u32 *address)
{
	address[0] = ram_forget(cfg, address[0]);
	address[1] = ram_forget(cfg, address[1]);
	address[2] = ram_forget(cfg, address[2]);
	address[3] = ram_forget(cfg, address[3]);
}

#endif
