/* SPDX-License-Identifier: Apache-2.0 */
/* The internet checksum (RFC 1071). */
#ifndef RAM_CHECKSUM_H
#define RAM_CHECKSUM_H

#include "lib/endian.h"

/* The checksum of a sum of 16-bit words, as it stands in a header (in network order, like the words). */
static __always_inline u16 ram_fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* The sum of what RFC 793 3.1 and RFC 8200 8.1 have checksummed beside the message. `size`: of addresses. */
static __always_inline u64 ram_sum_pseudo_header(const void *source, const void *destination, u32 size,
						 u8 protocol, u32 length)
{
	u64 sum = RAM_HTONL(length);

	sum += RAM_HTONL(protocol);
	sum += (u32)bpf_csum_diff(0, 0, (void *)source, size, 0);
	sum += (u32)bpf_csum_diff(0, 0, (void *)destination, size, 0);
	return sum;
}

#endif
