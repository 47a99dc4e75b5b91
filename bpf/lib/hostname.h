/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host names as text (RFC 1123 2.1), in a connection's beginning, and how they are matched against the rules:
 * the same way as names in DNS messages (names.h). A dot is what the start of a label is there.
 */
#ifndef RAM_HOSTNAME_H
#define RAM_HOSTNAME_H

#include "lib/beginning.h"
#include "lib/loops.h"
#include "lib/names.h"

#define RAM_HOST_NAME_MAX 253

static __always_inline u64 ram_symbol_at(struct ram_config *cfg, const struct ram_beginning *draft, u64 at)
{
	u64 byte, symbol, dot;

	asm volatile("%0 &= 0xfff" : "+r"(at));
	byte = draft->bytes[at];
	asm volatile("%0 &= 0xff" : "+r"(byte));
	symbol = cfg->class_of[byte];
	dot = ram_mask_if_equal(byte, '.');
	return symbol ^ ((symbol ^ RAM_CLASS_SEP) & dot);
}

/* How many labels the name has. */
static __always_inline u32 ram_count_labels(struct ram_config *cfg, const struct ram_beginning *draft,
					    u32 length)
{
	u32 labels = ram_forget(cfg, 1);
	u64 i;

	RAM_TURNS(i, cfg, RAM_HOST_NAME_MAX) {
		u64 at;

		/* Forgotten, as the comparison would teach the verifier another bound in each turn. */
		if (i >= ram_forget(cfg, length))
			break;
		at = draft->name_at + i;
		asm volatile("%0 &= 0xfff" : "+r"(at));
		labels = ram_forget(cfg, labels + (ram_mask_if_equal(draft->bytes[at], '.') & 1));
	}
	return labels;
}

/*
 * Finds the most specific rule that matches the draft's name; 0: none. A name that is none, with an empty
 * label or a byte that no host name has, matches none. A dot at its end does not count.
 */
static __always_inline u32 ram_match_host(struct ram_config *cfg, const struct ram_beginning *draft)
{
	struct ram_suffix_key key = {};
	u32 state_number = ram_forget(cfg, cfg->automaton_start);
	u32 length = ram_forget(cfg, draft->name_length);
	u32 invalid = ram_forget(cfg, 0), best = ram_forget(cfg, 0), last = ram_forget(cfg, RAM_CLASS_SEP);
	u32 depths = ram_forget(cfg, cfg->suffix_depths);
	u32 before; /* labels to the left of where we are */
	struct ram_state *state;
	u64 i;

	if (length > 1) {
		u64 end = draft->name_at + length - 1;

		asm volatile("%0 &= 0xfff" : "+r"(end));
		length -= ram_mask_if_equal(draft->bytes[end], '.') & 1;
	}
	length = ram_forget(cfg, length);
	before = ram_count_labels(cfg, draft, length);
	RAM_TURNS(i, cfg, RAM_HOST_NAME_MAX + 1) {
		u64 symbol, beginning;

		if (i > ram_forget(cfg, length))
			break;
		/* The first label begins as the others do, without a dot. */
		beginning = ram_mask_if_equal(i, length);
		symbol = ram_symbol_at(cfg, draft, draft->name_at + length - 1 - i);
		symbol ^= (symbol ^ RAM_CLASS_SEP) & beginning;
		invalid = ram_forget(cfg, invalid | ram_mask_if_equal(symbol, RAM_CLASS_OTHER) |
						  (ram_mask_if_equal(symbol, RAM_CLASS_SEP) &
						   ram_mask_if_equal(last, RAM_CLASS_SEP)));
		last = ram_forget(cfg, symbol);
		ram_hash_symbol(key.hash, cfg, symbol);
		if (state_number) {
			u64 class = symbol;

			state = automaton.lookup(&state_number);
			if (!state)
				return 0;
			asm volatile("%0 &= 0x3f" : "+r"(class));
			state_number = state->next[class];
		}
		state_number = ram_forget(cfg, state_number);
		if (ram_forget(cfg, symbol) == RAM_CLASS_SEP) {
			struct ram_suffix *suffix = NULL;

			before = ram_forget(cfg, before - 1);
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
	return best & ~invalid;
}

#endif
