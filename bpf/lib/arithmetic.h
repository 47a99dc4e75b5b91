/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comparisons without branches, for loops: each branch would double what the verifier walks in every turn.
 * Kept opaque where clang would see a comparison in them, and make a branch of it.
 */
#ifndef RAM_ARITHMETIC_H
#define RAM_ARITHMETIC_H

/* All ones when the two are equal, else 0. */
static __always_inline u64 ram_mask_if_equal(u64 a, u64 b)
{
	u64 difference = a ^ b;

	difference |= -difference;
	asm volatile("" : "+r"(difference));
	return (difference >> 63) - 1;
}

/* The first number where the mask is all ones, the second one where it is 0. */
static __always_inline u64 ram_either(u64 mask, u64 one, u64 other)
{
	return other ^ ((other ^ one) & mask);
}

/* Of two numbers below 2^63. */
static __always_inline u64 ram_greater(u64 a, u64 b)
{
	s64 under = a - b;

	asm volatile("" : "+r"(under));
	return b + (under & ~(under >> 63));
}

/* Of two numbers between -2^62 and 2^62. */
static __always_inline s64 ram_lesser(s64 a, s64 b)
{
	s64 over = b - a;

	asm volatile("" : "+r"(over));
	return a + (over & (over >> 63));
}

#endif
