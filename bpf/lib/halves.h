/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two compilers may share the work, each with RAM_HALF defined as one half of the programs (compiler.py).
 * What the other one makes is then a function that nobody calls. Which program is in which half matters to
 * nobody else: both should take as long.
 */
#ifndef RAM_HALVES_H
#define RAM_HALVES_H

#define RAM_NOT_HERE static __attribute__((unused))

#if defined(RAM_HALF) && RAM_HALF == 2
#define RAM_FIRST_HALF RAM_NOT_HERE
#else
#define RAM_FIRST_HALF
#endif

#if defined(RAM_HALF) && RAM_HALF == 1
#define RAM_SECOND_HALF RAM_NOT_HERE
#else
#define RAM_SECOND_HALF
#endif

#endif
