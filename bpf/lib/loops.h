/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops. One that is bounded is walked by the verifier turn by turn, which is all that Linux before 6.9 can
 * do. Since then there is an instruction, may_goto (kernel/bpf/verifier.c), that ends a loop which takes too
 * long: the verifier need not see that it ends, and walks it only until a turn leaves nothing that an earlier
 * one has not left. For that a counter must not be a number that it knows, nor may anything else on the stack
 * or in a register tell one turn from another, whether it is used again or not.
 *
 * No loop here comes near to where may_goto ends it, after millions of turns or a quarter of a second.
 */
#ifndef RAM_LOOPS_H
#define RAM_LOOPS_H

#include "lib/maps.h"

#ifdef RAM_HAVE_MAY_GOTO
/* By its bytes, as assemblers before LLVM 19 do not know it. */
#define RAM_MAY_GO_ON()                                                                                      \
	({                                                                                                   \
		__label__ over, on;                                                                          \
		bool may = true;                                                                             \
		asm volatile goto("1: .byte 0xe5; .byte 0; .long ((%l[over] - 1b - 8) / 8) & 0xffff; "       \
				  ".short 0"                                                                 \
				  :                                                                          \
				  :                                                                          \
				  :                                                                          \
				  : over);                                                                   \
		goto on;                                                                                     \
	over:                                                                                                \
		may = false;                                                                                 \
	on:                                                                                                  \
		may;                                                                                         \
	})
#define RAM_FIRST_TURN(cfg) ram_forget(cfg, 0)
#else
#define RAM_MAY_GO_ON() true
#define RAM_FIRST_TURN(cfg) 0
#endif

/*
 * Opaque to clang, which would end a loop at the least of all that may end it: a verifier that sees no
 * constant there sees no end.
 */
static __always_inline u64 ram_next_turn(u64 turn)
{
	asm volatile("%0 += 1" : "+r"(turn));
	return turn;
}

/* At most `most` turns, which `turn`, a u64, counts from 0. */
#define RAM_TURNS(turn, cfg, most)                                                                           \
	for ((turn) = RAM_FIRST_TURN(cfg); (turn) < (most) && RAM_MAY_GO_ON(); (turn) = ram_next_turn(turn))

/* Leaves nothing in the registers that functions may change: by a call of one that does next to nothing. */
static __always_inline void ram_clear_registers(void)
{
#ifdef RAM_HAVE_MAY_GOTO
	u32 (*processor)(void) = (void *)8; /* bpf_get_smp_processor_id */

	processor();
#endif
}

#endif
