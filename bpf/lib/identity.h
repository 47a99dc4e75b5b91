/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SipHash-1-3 (Aumasson and Bernstein 2012; as in the kernel's lib/siphash.c) under a secret of this start,
 * for two things: to tell whether two names are the same, wherever and however they stand in a message, and
 * to recognise a datagram. Without the secret nobody can look for two names, or datagrams, that collide.
 *
 * A name is read label by label, and each label is two or eight words with its length octet in front, its
 * letters in lower case and zeros behind, so that no two names are the same words.
 */
#ifndef RAM_IDENTITY_H
#define RAM_IDENTITY_H

#include "lib/maps.h"

#define RAM_SHORT_LABEL 16 /* bytes of a label with its length octet that fit into two words */

struct ram_sip {
	u64 v0, v1, v2, v3;
};

static __always_inline void ram_sip_round(struct ram_sip *s)
{
	u64 v0 = s->v0, v1 = s->v1, v2 = s->v2, v3 = s->v3;

	v0 += v1;
	v1 = __builtin_rotateleft64(v1, 13) ^ v0;
	v0 = __builtin_rotateleft64(v0, 32);
	v2 += v3;
	v3 = __builtin_rotateleft64(v3, 16) ^ v2;
	v0 += v3;
	v3 = __builtin_rotateleft64(v3, 21) ^ v0;
	v2 += v1;
	v1 = __builtin_rotateleft64(v1, 17) ^ v2;
	v2 = __builtin_rotateleft64(v2, 32);
	s->v0 = v0;
	s->v1 = v1;
	s->v2 = v2;
	s->v3 = v3;
}

static __always_inline void ram_sip_start(struct ram_sip *s, struct ram_config *cfg)
{
	s->v0 = cfg->identity_key[0] ^ 0x736f6d6570736575ULL;
	s->v1 = cfg->identity_key[1] ^ 0x646f72616e646f6dULL;
	s->v2 = cfg->identity_key[0] ^ 0x6c7967656e657261ULL;
	s->v3 = cfg->identity_key[1] ^ 0x7465646279746573ULL;
}

static __always_inline void ram_sip_word(struct ram_sip *s, u64 word)
{
	s->v3 ^= word;
	ram_sip_round(s);
	s->v0 ^= word;
}

static __always_inline u64 ram_sip_end(struct ram_sip *s)
{
	s->v2 ^= 0xff;
	ram_sip_round(s);
	ram_sip_round(s);
	ram_sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* ASCII letters in lower case, eight at a time (RFC 4343), without a branch. */
static __always_inline u64 ram_lower(u64 word)
{
	u64 low = word & 0x7f7f7f7f7f7f7f7fULL;
	u64 from_a = low + 0x3f3f3f3f3f3f3f3fULL;   /* the top bit of each byte: not below 'A' */
	u64 beyond_z = low + 0x2525252525252525ULL; /* not below 'Z' + 1 */

	return word | ((from_a & ~beyond_z & ~word & 0x8080808080808080ULL) >> 2);
}

static __always_inline void ram_sip_forget(struct ram_sip *s, struct ram_config *cfg)
{
	s->v0 = ram_forget64(cfg, s->v0);
	s->v1 = ram_forget64(cfg, s->v1);
	s->v2 = ram_forget64(cfg, s->v2);
	s->v3 = ram_forget64(cfg, s->v3);
}

/* Adds the label of `length` (1 to 63) bytes whose length octet is at `offset`. Returns -1 when it is cut
 * off. */
static __always_inline int ram_identify_label(struct __sk_buff *skb, struct ram_config *cfg, u32 offset,
					      u32 length, u64 *word, struct ram_sip *s)
{
	u64 behind = length;

	word[0] = word[1] = word[2] = word[3] = word[4] = word[5] = word[6] = word[7] = 0;

	/* In the order that 5.4 understands: a length that is never 0, and with its bounds in this register.
	 */
	asm volatile("%0 &= 0x3f" : "+r"(behind));
	behind += 1;
	if (bpf_skb_load_bytes(skb, offset, word, behind))
		return -1;
	ram_sip_word(s, ram_lower(word[0]));
	ram_sip_word(s, ram_lower(word[1]));
	if (ram_forget(cfg, length) >= RAM_SHORT_LABEL) {
		ram_sip_word(s, ram_lower(word[2]));
		ram_sip_word(s, ram_lower(word[3]));
		ram_sip_word(s, ram_lower(word[4]));
		ram_sip_word(s, ram_lower(word[5]));
		ram_sip_word(s, ram_lower(word[6]));
		ram_sip_word(s, ram_lower(word[7]));
	}
	ram_sip_forget(s, cfg);
	return 0;
}

#endif
