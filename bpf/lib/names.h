/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names on the wire (RFC 1035 3.1) and how they are matched against the rules.
 *
 * A name is read twice: forwards to find where its labels start, then backwards, byte by byte, with two
 * things carried along. One is a keyed polynomial hash over character classes, so that
 * at each start of a label the hash of the literal suffix from there on is at hand and one map lookup finds
 * the rules that end in it. The other is the state of an automaton for patterns with globs inside labels.
 * Both ignore case, and both work on whole labels only.
 *
 * The hash has four lanes modulo the prime 2^31 - 1, each with a secret multiplier drawn at every start.
 * Two given names of at most 255 bytes collide in one lane with probability below 255 / (2^31 - 2), in all
 * four below 2^-91, whoever chose the names.
 */
#ifndef RAM_NAMES_H
#define RAM_NAMES_H

#include "lib/arithmetic.h"
#include "lib/dns.h"
#include "lib/loops.h"

#define RAM_HASH_PRIME 0x7fffffffULL

/* Where a name's labels are, for reading it backwards. */
struct ram_name {
	u64 starts[4]; /* bit i: a label starts at byte i */
	u32 offset;    /* of its first byte, from the IP header */
	u32 length;    /* bytes, without the root label */
	u32 labels;
};

static __always_inline u32 ram_hash_step(u64 hash, u64 multiplier, u64 symbol)
{
	hash = hash * multiplier + symbol + 1;
	hash = (hash & RAM_HASH_PRIME) + (hash >> 31);
	hash = (hash & RAM_HASH_PRIME) + (hash >> 31);
	return hash;
}

/* Finds the labels of an uncompressed name. Returns 0, or -1 when it is compressed, too long or cut off. */
static __always_inline int ram_walk_name(struct __sk_buff *skb, struct ram_config *cfg, u32 offset, u32 end,
					 struct ram_name *name)
{
	u64 s0 = ram_forget64(cfg, 0), s1 = ram_forget64(cfg, 0), s2 = ram_forget64(cfg, 0),
	    s3 = ram_forget64(cfg, 0);
	u32 labels = ram_forget(cfg, 0);
	u32 at = ram_forget(cfg, 0);
	u64 i;

	name->offset = offset;
	RAM_TURNS(i, cfg, RAM_LABELS_MAX + 1) {
		u64 bit, word;
		u8 length;

		if (at >= RAM_NAME_MAX || offset + at >= end ||
		    bpf_skb_load_bytes(skb, offset + at, &length, 1))
			return -1;
		if (length == 0) {
			name->starts[0] = s0;
			name->starts[1] = s1;
			name->starts[2] = s2;
			name->starts[3] = s3;
			name->length = ram_forget(cfg, at);
			name->labels = ram_forget(cfg, labels);
			return 0;
		}
		if (length > 63)
			return -1;
		bit = ram_forget64(cfg, 1ULL << (at & 63));
		word = ram_forget(cfg, at) >> 6;
		s0 |= bit & ram_mask_if_equal(word, 0);
		s1 |= bit & ram_mask_if_equal(word, 1);
		s2 |= bit & ram_mask_if_equal(word, 2);
		s3 |= bit & ram_mask_if_equal(word, 3);
		at = ram_forget(cfg, at + length + 1);
		labels = ram_forget(cfg, labels + 1);
	}
	return -1;
}

/*
 * Whether labels start at byte `at` (bit 63 of what is returned), at the one before it (bit 62), and so on,
 * for 64 bytes.
 */
static __always_inline u64 ram_starts_back_from(const struct ram_name *name, u64 at)
{
	u64 which = at >> 6;
	u64 m0 = ram_mask_if_equal(which, 0), m1 = ram_mask_if_equal(which, 1),
	    m2 = ram_mask_if_equal(which, 2), m3 = ram_mask_if_equal(which, 3);
	u64 word = (name->starts[0] & m0) | (name->starts[1] & m1) | (name->starts[2] & m2) |
		   (name->starts[3] & m3);
	u64 before = (name->starts[0] & m1) | (name->starts[1] & m2) | (name->starts[2] & m3);

	/* Twice, as a shift by 64 is none. */
	return word << (63 - (at & 63)) | before >> 1 >> (at & 63);
}

static __always_inline void ram_hash_symbol(u32 *hash, struct ram_config *cfg, u64 symbol)
{
	hash[0] = ram_hash_step(hash[0], cfg->multiplier[0], symbol);
	hash[1] = ram_hash_step(hash[1], cfg->multiplier[1], symbol);
	hash[2] = ram_hash_step(hash[2], cfg->multiplier[2], symbol);
	hash[3] = ram_hash_step(hash[3], cfg->multiplier[3], symbol);
}

/*
 * Finds the most specific rule that matches the name; 0: none. A name with a byte that no host name has (a
 * dot or NUL inside a label, a space) matches none. Returns -1 when the packet ends early.
 */
static __always_inline int ram_match_name(struct __sk_buff *skb, struct ram_config *cfg,
					  const struct ram_name *name, u32 *rule)
{
	struct ram_suffix_key key = {};
	u32 state_number = ram_forget(cfg, cfg->automaton_start);
	u32 before = ram_forget(cfg, name->labels); /* labels to the left of where we are */
	u32 invalid = ram_forget(cfg, 0), best = ram_forget(cfg, 0);
	u32 depths = ram_forget(cfg, cfg->suffix_depths);
	u64 word = 0, starts = 0;
	struct ram_state *state;
	u64 i;

	RAM_TURNS(i, cfg, RAM_NAME_MAX) {
		u64 symbol, byte, at;

		/* Forgotten, as the comparison would teach the verifier another bound in each turn. */
		if (i >= ram_forget(cfg, name->length))
			break;
		at = ram_forget(cfg, name->length - 1 - i);
		if (!(i & 7)) {
			/* Eight bytes at once: in front of a name there are always more than seven. */
			if (bpf_skb_load_bytes(skb, name->offset + at - 7, &word, 8))
				return -1;
			word = RAM_NTOHLL(word);
			starts = ram_starts_back_from(name, at);
		}
		byte = word;
		asm volatile("%0 &= 0xff" : "+r"(byte));
		word = ram_forget64(cfg, word >> 8);
		symbol = cfg->class_of[byte];
		symbol ^= (symbol ^ RAM_CLASS_SEP) & -(starts >> 63);
		starts = ram_forget64(cfg, starts << 1);
		invalid = ram_forget(cfg, invalid | ram_mask_if_equal(symbol, RAM_CLASS_OTHER));
		ram_hash_symbol(key.hash, cfg, symbol);
		if (state_number) {
			u64 class = symbol;

			state = automaton.lookup(&state_number);
			if (!state)
				return -1;
			asm volatile("%0 &= 0x3f" : "+r"(class));
			state_number = state->next[class];
		}
		state_number = ram_forget(cfg, state_number);
		if (ram_forget(cfg, symbol) == RAM_CLASS_SEP) {
			struct ram_suffix *suffix = NULL;

			before = ram_forget(cfg, before - 1);
			/* The lookup waits for memory when there are many rules; bit 31 stands for what is
			 * deeper. */
			depths = ram_forget(cfg, (s32)depths >> 1);
			if (depths & 1)
				suffix = names.lookup(&key);
			if (suffix) {
				u64 whole = ram_mask_if_equal(before, 0);
				u64 one = ram_mask_if_equal(before, 1);
				u64 candidate = (suffix->exact & whole) | (suffix->deep & ~whole);

				candidate = ram_greater(candidate, suffix->one & one);
				best = ram_forget(cfg, ram_greater(best, candidate));
			}
		}
	}
	state = automaton.lookup(&state_number); /* state 0 accepts nothing */
	if (state)
		best = ram_greater(best, state->accept);
	*rule = best & ~invalid;
	return 0;
}

#endif
