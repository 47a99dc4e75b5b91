/* SPDX-License-Identifier: Apache-2.0 */
/* DNS messages (RFC 1035 4.1): the header and the question, which queries and replies have in common. */
#ifndef RAM_DNS_H
#define RAM_DNS_H

#include "lib/identity.h"
#include "lib/l3l4.h"
#include "lib/loops.h"

#define RAM_DNS_TYPE_A 1
#define RAM_DNS_TYPE_CNAME 5
#define RAM_DNS_TYPE_AAAA 28
#define RAM_DNS_TYPE_OPT 41  /* RFC 6891 */
#define RAM_DNS_TYPE_SVCB 64 /* RFC 9460 */
#define RAM_DNS_TYPE_HTTPS 65
#define RAM_DNS_CLASS_IN 1
#define RAM_DNS_QR 0x80
#define RAM_DNS_OPCODE 0x78
#define RAM_DNS_TC 0x02
#define RAM_DNS_RCODE 0x0f
#define RAM_DNS_REFUSED 5
#define RAM_DNS_HEADER 12
#define RAM_DNS_POINTER 0xc0

struct ram_dns_header {
	u16 id;
	u16 questions;
	u16 answers;
	u8 flags[2];
};

static __always_inline int ram_dns_header(struct __sk_buff *skb, u32 offset, u32 end,
					  struct ram_dns_header *h)
{
	u8 raw[8];

	if (offset + RAM_DNS_HEADER > end || bpf_skb_load_bytes(skb, offset, raw, sizeof(raw)))
		return -1;
	h->id = (u16)raw[0] << 8 | raw[1];
	h->flags[0] = raw[2];
	h->flags[1] = raw[3];
	h->questions = (u16)raw[4] << 8 | raw[5];
	h->answers = (u16)raw[6] << 8 | raw[7];
	return 0;
}

/* Whether a type asked for may be answered with addresses. */
static __always_inline bool ram_dns_leads_to_address(u16 qtype)
{
	return qtype == RAM_DNS_TYPE_A || qtype == RAM_DNS_TYPE_AAAA || qtype == RAM_DNS_TYPE_HTTPS ||
	       qtype == RAM_DNS_TYPE_SVCB;
}

struct ram_question {
	u64 identity; /* of the name */
	u32 behind;   /* offset of what follows it in the message */
	u16 qtype;
	u16 qclass;
};

/*
 * Reads the question at `offset`. Returns -1 when its name is compressed (a question comes first, so there is
 * nothing that it could point to), longer than a name may be, or cut off.
 */
static __always_inline int ram_dns_question(struct __sk_buff *skb, struct ram_config *cfg, u32 offset,
					    u32 end, struct ram_question *question)
{
	u32 at = ram_forget(cfg, 0);
	struct ram_sip sip;
	u64 word[8];
	u8 raw[4];
	u64 i;

	ram_sip_start(&sip, cfg);
	ram_sip_forget(&sip, cfg);
	RAM_TURNS(i, cfg, RAM_LABELS_MAX + 1) {
		u8 length;

		if (at >= RAM_NAME_MAX || offset + at >= end ||
		    bpf_skb_load_bytes(skb, offset + at, &length, 1))
			return -1;
		if (length == 0) {
			u32 behind = offset + at + 1;

			if (behind + sizeof(raw) > end || bpf_skb_load_bytes(skb, behind, raw, sizeof(raw)))
				return -1;
			question->identity = ram_forget64(cfg, ram_sip_end(&sip));
			question->behind = ram_forget(cfg, behind + sizeof(raw));
			question->qtype = ram_forget(cfg, (u16)raw[0] << 8 | raw[1]);
			question->qclass = ram_forget(cfg, (u16)raw[2] << 8 | raw[3]);
			return 0;
		}
		if (length > 63 || ram_identify_label(skb, cfg, offset + at, length, word, &sip))
			return -1;
		at = ram_forget(cfg, at + length + 1);
	}
	return -1;
}

#endif
