/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every map. The sizes here are those of a small policy: the loader creates each map itself and chooses
 * max_entries by the policy (ram_ebpf/dataplane/maps.py).
 */
#ifndef RAM_MAPS_H
#define RAM_MAPS_H

#include "abi.h"

BPF_ARRAY(config, struct ram_config, 1);
BPF_F_TABLE("hash", struct ram_suffix_key, struct ram_suffix, names, 1024, 0);
BPF_ARRAY(automaton, struct ram_state, 1);
BPF_ARRAY(rules, struct ram_rule, 1024);
BPF_F_TABLE("hash", struct ram_endpoint, u32, resolvers, 64, 0);
BPF_F_TABLE("lpm_trie", struct ram_range_key, struct ram_range, ranges, 1024, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lru_hash", struct ram_query_key, struct ram_query, queries, 8192, 0);
/* Queries for names outside the policy: apart, so that a flood of them evicts nothing that matters. */
BPF_F_TABLE("lru_hash", struct ram_query_key, struct ram_query, unlisted, 4096, 0);
BPF_F_TABLE("lru_hash", struct ram_endpoint, struct ram_opening, learned, 65536, 0);
/* What user space resolved itself; apart, so that no traffic can evict it. */
BPF_F_TABLE("hash", struct ram_endpoint, struct ram_opening, seeded, 65536, BPF_F_NO_PREALLOC);
BPF_F_TABLE("lru_hash", struct ram_flow, u64, inbound, 16384, 0);
BPF_PERCPU_ARRAY(counters, u64, RAM_REASON_COUNT);
BPF_PERF_OUTPUT(events);
/* Connect hooks have no perf events before Linux 5.15 or so: there they leave their events here. */
BPF_QUEUE(connect_events, struct ram_event, 4096);

/*
 * Socket storage. Declared as a hash, since bcc's own declaration wants type information that not every
 * version of it writes; the loader creates it as BPF_MAP_TYPE_SK_STORAGE.
 */
struct peers_table_t {
	u32 key;
	struct ram_peer leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 max_entries;
	int flags;
};
__attribute__((section("maps/hash"))) struct peers_table_t peers = {.max_entries = 1};

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
