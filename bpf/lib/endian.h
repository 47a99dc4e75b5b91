/* SPDX-License-Identifier: Apache-2.0 */
/* Byte order, without the kernel's headers. */
#ifndef RAM_ENDIAN_H
#define RAM_ENDIAN_H

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define RAM_HTONS(x) __builtin_bswap16(x)
#define RAM_HTONL(x) __builtin_bswap32(x)
#define RAM_HTONLL(x) __builtin_bswap64(x)
#else
#define RAM_HTONS(x) (x)
#define RAM_HTONL(x) (x)
#define RAM_HTONLL(x) (x)
#endif
#define RAM_NTOHS(x) RAM_HTONS(x)
#define RAM_NTOHL(x) RAM_HTONL(x)
#define RAM_NTOHLL(x) RAM_HTONLL(x)

#endif
