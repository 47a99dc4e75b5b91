/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses that a public name has no business to have: private, loopback, link-local, metadata services.
 * ram_ebpf/policy/special.py has the same list, with its sources; a test compares the two. Computed without
 * branches, since each would double what the verifier walks in every turn of the loop around it.
 */
#ifndef RAM_SPECIAL_H
#define RAM_SPECIAL_H

#include "lib/endian.h"

/*
 * Notes in the top bit whether two numbers differ: it stays set as long as each pair does. Kept opaque: clang
 * would see comparisons in this, and make branches of them.
 */
static __always_inline void ram_differs(u64 *differ, u64 a, u64 b)
{
	u64 difference = a ^ b;

	*differ &= difference | -difference;
	asm volatile("" : "+r"(*differ));
}

/* The top bit set: the IPv4 address, in host order, is in none of the networks. */
static __always_inline u64 ram_is_ordinary_ipv4(u64 address)
{
	u64 differ = -1;

	ram_differs(&differ, address >> 24, 0x00);	       /* this network, RFC 1122 3.2.1.3 */
	ram_differs(&differ, address >> 24, 0x0a);	       /* RFC 1918 */
	ram_differs(&differ, address >> 22, 0x64400000 >> 22); /* carriers, RFC 6598 */
	ram_differs(&differ, address >> 24, 0x7f);	       /* loopback, RFC 1122 3.2.1.3 */
	ram_differs(&differ, address, 0xa83f8110);	       /* Azure's metadata and DNS */
	ram_differs(&differ, address >> 16, 0xa9fe);	       /* link-local, RFC 3927; metadata services */
	ram_differs(&differ, address >> 20, 0xac1);	       /* RFC 1918 */
	ram_differs(&differ, address >> 8, 0xc00000);	       /* protocol assignments, RFC 6890 */
	ram_differs(&differ, address >> 16, 0xc0a8);	       /* RFC 1918 */
	ram_differs(&differ, address >> 29, 7);		       /* multicast and reserved, RFC 1112 */
	return differ;
}

/* Of an address in network order, IPv4 as IPv4-mapped. */
static __always_inline bool ram_is_special(const u32 *address)
{
	u64 first = RAM_NTOHL(address[0]), second = RAM_NTOHL(address[1]);
	u64 third = RAM_NTOHL(address[2]), fourth = RAM_NTOHL(address[3]);
	u64 differ = -1, embedded = -1;

	ram_differs(&differ, first >> 25, 0xfc >> 1);		       /* unique local, RFC 4193 */
	ram_differs(&differ, first >> 22, 0xfe800000 >> 22);	       /* link-local, RFC 4291 2.5.6 */
	ram_differs(&differ, first >> 22, 0xfec00000 >> 22);	       /* site-local, RFC 3879 */
	ram_differs(&differ, first >> 24, 0xff);		       /* multicast, RFC 4291 2.7 */
	ram_differs(&differ, first | second | third | fourth >> 1, 0); /* :: and ::1, RFC 4291 2.5 */
	/* IPv4-mapped, and what NAT64 leads to (RFC 6052 2.1): the address in the last word. */
	ram_differs(&embedded, first | second | (third ^ 0xffff), 0);
	ram_differs(&embedded, (first ^ 0x0064ff9b) | second | third, 0);
	differ &= embedded | ram_is_ordinary_ipv4(fourth);
	/* 6to4 (RFC 3056 2): the address behind the first two bytes. */
	embedded = -1;
	ram_differs(&embedded, first >> 16, 0x2002);
	differ &= embedded | ram_is_ordinary_ipv4((first & 0xffff) << 16 | second >> 16);
	return !(differ >> 63);
}

#endif
