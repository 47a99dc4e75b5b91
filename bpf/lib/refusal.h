/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is refused on a device is answered at once, so that nobody waits for a timeout: a TCP segment by a
 * reset (RFC 9293 3.10.7.1), a DNS query by REFUSED with an Extended DNS Error (RFC 8914), anything else by
 * ICMP, administratively prohibited (RFC 1812 5.2.7.1, RFC 4443 3.1). The packet itself is made into the
 * answer and sent back to where it came from.
 */
#ifndef RAM_REFUSAL_H
#define RAM_REFUSAL_H

#include "lib/checksum.h"
#include "lib/dns.h"
#include "lib/leave.h"
#include "lib/loops.h"
#include "lib/scope.h"

#define RAM_TTL 64
#define RAM_ICMP_UNREACHABLE 3
#define RAM_ICMP_ADMINISTRATIVELY_PROHIBITED 13
#define RAM_ICMPV6_UNREACHABLE 1
#define RAM_ICMPV6_ADMINISTRATIVELY_PROHIBITED 1
#define RAM_IP_DONT_FRAGMENT 0x40
#define RAM_DNS_RD 0x01
#define RAM_DNS_RA 0x80
#define RAM_DNS_EDE_OPTION 15
#define RAM_DNS_EDE_BLOCKED 15
#define RAM_DNS_UDP_SIZE 1232
#define RAM_CHECKSUM_STEP 32

/* The headers that an answer begins with. Its addresses are the refused packet's, exchanged. */
struct ram_ipv4_header {
	u8 version_length;
	u8 service;
	u16 length;
	u16 id;
	u8 fragment[2];
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ram_ipv6_header {
	u8 version[4];
	u16 length;
	u8 next;
	u8 hops;
	u32 source[4];
	u32 destination[4];
};

struct ram_tcp_header {
	u16 source;
	u16 destination;
	u32 sequence;
	u32 acknowledgment;
	u8 length; /* in words, in the upper half */
	u8 flags;
	u16 window;
	u16 checksum;
	u16 urgent;
};

struct ram_udp_header {
	u16 source;
	u16 destination;
	u16 length;
	u16 checksum;
};

static __always_inline bool ram_is_ipv4(const struct ram_packet *p)
{
	return p->source[0] == 0 && p->source[1] == 0 && p->source[2] == RAM_HTONL(0xffff);
}

/* Turns the frame round: to where it came from. */
static __always_inline int ram_turn_link(struct __sk_buff *skb, const struct ram_packet *p)
{
	u8 addresses[12];

	if (!p->network)
		return 0;
	return bpf_skb_load_bytes(skb, 0, addresses, 12) ||
	       bpf_skb_store_bytes(skb, 0, &addresses[6], 6, BPF_F_RECOMPUTE_CSUM) ||
	       bpf_skb_store_bytes(skb, 6, &addresses[0], 6, BPF_F_RECOMPUTE_CSUM);
}

/* Sends the answer, and that is the end of the packet. */
static __always_inline int ram_send_back(struct __sk_buff *skb)
{
	bool own = skb->cb[RAM_CB_SCOPE] & RAM_PLACE_OWN_TRAFFIC;

	return bpf_redirect(skb->ifindex, own ? BPF_F_INGRESS : 0);
}

/* Writes the IP header of an answer with so many bytes behind it. */
static __always_inline int ram_write_ip(struct __sk_buff *skb, const struct ram_packet *p, u8 protocol,
					u32 length)
{
	if (ram_is_ipv4(p)) {
		struct ram_ipv4_header ip = {};

		ip.version_length = 0x45;
		ip.length = RAM_HTONS(sizeof(ip) + length);
		ip.fragment[0] = RAM_IP_DONT_FRAGMENT;
		ip.ttl = RAM_TTL;
		ip.protocol = protocol;
		ip.source = p->destination[3];
		ip.destination = p->source[3];
		ip.checksum = ram_fold((u32)bpf_csum_diff(0, 0, (void *)&ip, sizeof(ip), 0));
		return bpf_skb_store_bytes(skb, p->network, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
	}
	struct ram_ipv6_header ip = {};

	ip.version[0] = 0x60;
	ip.length = RAM_HTONS(length);
	ip.next = protocol;
	ip.hops = RAM_TTL;
	__builtin_memcpy(ip.source, p->destination, 16);
	__builtin_memcpy(ip.destination, p->source, 16);
	return bpf_skb_store_bytes(skb, p->network, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline u64 ram_sum_answer(const struct ram_packet *p, u8 protocol, u32 length)
{
	if (ram_is_ipv4(p))
		return ram_sum_pseudo_header(&p->destination[3], &p->source[3], 4, protocol, length);
	return ram_sum_pseudo_header(p->destination, p->source, 16, protocol, length);
}

/* A reset of the connection that a segment belongs to, or would begin. */
static __always_inline int ram_reset(struct __sk_buff *skb, const struct ram_packet *p, u32 transport)
{
	u32 header = ram_is_ipv4(p) ? sizeof(struct ram_ipv4_header) : sizeof(struct ram_ipv6_header);
	struct ram_tcp_header refused, tcp = {};
	u32 length = p->end - p->payload_offset;

	if ((p->tcp_flags & RAM_TCP_RST) || bpf_skb_load_bytes(skb, transport, &refused, sizeof(refused)))
		return RAM_DROP;
	tcp.source = refused.destination;
	tcp.destination = refused.source;
	tcp.length = sizeof(tcp) / 4 << 4;
	if (p->tcp_flags & RAM_TCP_ACK) {
		tcp.flags = RAM_TCP_RST;
		tcp.sequence = refused.acknowledgment;
	} else {
		if (p->payload_offset > p->end)
			length = 0;
		length += p->tcp_flags & RAM_TCP_SYN ? 1 : 0;
		length += p->tcp_flags & RAM_TCP_FIN ? 1 : 0;
		tcp.flags = RAM_TCP_RST | RAM_TCP_ACK;
		tcp.acknowledgment = RAM_HTONL(RAM_NTOHL(refused.sequence) + length);
	}
	tcp.checksum = ram_fold(ram_sum_answer(p, IPPROTO_TCP, sizeof(tcp)) +
				(u32)bpf_csum_diff(0, 0, (void *)&tcp, sizeof(tcp), 0));
	if (bpf_skb_change_tail(skb, p->network + header + sizeof(tcp), 0) || ram_turn_link(skb, p) ||
	    ram_write_ip(skb, p, IPPROTO_TCP, sizeof(tcp)) ||
	    bpf_skb_store_bytes(skb, p->network + header, &tcp, sizeof(tcp), BPF_F_RECOMPUTE_CSUM))
		return RAM_DROP;
	return ram_send_back(skb);
}

/* ICMP and ICMPv6: type, code, checksum, four bytes of nothing, and the refused packet's beginning. */
struct ram_icmp_error {
	u8 type;
	u8 code;
	u16 checksum;
	u32 unused;
	u8 refused[48];
};

#define RAM_ICMP_HEADER 8
#define RAM_ICMP_QUOTED 28   /* an IP header, and eight bytes */
#define RAM_ICMPV6_QUOTED 48 /* likewise */

static __always_inline int ram_prohibit_ipv4(struct __sk_buff *skb, const struct ram_packet *p)
{
	struct ram_icmp_error error = {};
	u32 length = RAM_ICMP_HEADER + RAM_ICMP_QUOTED;

	if (bpf_skb_load_bytes(skb, p->network, error.refused, RAM_ICMP_QUOTED))
		return RAM_DROP;
	error.type = RAM_ICMP_UNREACHABLE;
	error.code = RAM_ICMP_ADMINISTRATIVELY_PROHIBITED;
	error.checksum = ram_fold((u32)bpf_csum_diff(0, 0, (void *)&error, length, 0));
	if (bpf_skb_change_tail(skb, p->network + sizeof(struct ram_ipv4_header) + length, 0) ||
	    ram_turn_link(skb, p) || ram_write_ip(skb, p, IPPROTO_ICMP, length) ||
	    bpf_skb_store_bytes(skb, p->network + sizeof(struct ram_ipv4_header), &error, length,
				BPF_F_RECOMPUTE_CSUM))
		return RAM_DROP;
	return ram_send_back(skb);
}

static __always_inline int ram_prohibit_ipv6(struct __sk_buff *skb, const struct ram_packet *p)
{
	struct ram_icmp_error error = {};
	u32 length = RAM_ICMP_HEADER + RAM_ICMPV6_QUOTED;

	if (bpf_skb_load_bytes(skb, p->network, error.refused, RAM_ICMPV6_QUOTED))
		return RAM_DROP;
	error.type = RAM_ICMPV6_UNREACHABLE;
	error.code = RAM_ICMPV6_ADMINISTRATIVELY_PROHIBITED;
	error.checksum = ram_fold(ram_sum_answer(p, IPPROTO_ICMPV6, length) +
				  (u32)bpf_csum_diff(0, 0, (void *)&error, length, 0));
	if (bpf_skb_change_tail(skb, p->network + sizeof(struct ram_ipv6_header) + length, 0) ||
	    ram_turn_link(skb, p) || ram_write_ip(skb, p, IPPROTO_ICMPV6, length) ||
	    bpf_skb_store_bytes(skb, p->network + sizeof(struct ram_ipv6_header), &error, length,
				BPF_F_RECOMPUTE_CSUM))
		return RAM_DROP;
	return ram_send_back(skb);
}

/* Whether an error may be sent about what went there: not about multicast and broadcast (RFC 1122 3.2.2). */
static __always_inline bool ram_may_prohibit(const struct ram_packet *p)
{
	if (ram_is_ipv4(p))
		return (RAM_NTOHL(p->destination[3]) >> 28) < 14;
	return (RAM_NTOHL(p->destination[0]) >> 24) != 0xff;
}

RAM_SECOND_HALF int ram_refuse(struct __sk_buff *skb)
{
	u32 reason = skb->cb[RAM_CB_TICKET];
	struct ram_config *cfg = ram_config();
	struct ram_packet p = {};
	int parsed;

	if (!cfg)
		return RAM_DROP;
	parsed = ram_parse(skb, cfg, &p);
	if (parsed != RAM_PARSED_PORTS && parsed != RAM_PARSED_OTHER)
		return RAM_DROP;
	if (reason == RAM_REASON_DENIED_QUERY_NAME && p.protocol == IPPROTO_UDP)
		egress_programs.call(skb, RAM_EGRESS_PROGRAM_REFUSE_QUERY);
	if (parsed == RAM_PARSED_PORTS && p.protocol == IPPROTO_TCP)
		return ram_reset(skb, &p, ram_forget(cfg, p.transport));
	if (!ram_may_prohibit(&p))
		return RAM_DROP;
	return ram_is_ipv4(&p) ? ram_prohibit_ipv4(skb, &p) : ram_prohibit_ipv6(skb, &p);
}

/* OPT (RFC 6891 6.1.2) with one option: Extended DNS Error, Blocked, without a text. */
struct ram_opt {
	u8 name;
	u8 type[2];
	u8 size[2];
	u8 extended[4];
	u8 length[2];
	u8 option[2];
	u8 option_length[2];
	u8 info_code[2];
} __attribute__((packed));

/* The sum of what stands in the packet from `offset` to `end`, which is even. */
static __always_inline int ram_sum_bytes(struct __sk_buff *skb, struct ram_config *cfg, u32 offset, u32 end,
					 u64 *sum)
{
	u32 at = ram_forget(cfg, offset);
	u64 i;

	RAM_TURNS(i, cfg, (RAM_DNS_HEADER + RAM_NAME_MAX + 4 + 32) / RAM_CHECKSUM_STEP + 1) {
		u8 chunk[RAM_CHECKSUM_STEP] = {};
		u64 size = RAM_CHECKSUM_STEP;

		if (at >= end)
			return 0;
		if (end - at < RAM_CHECKSUM_STEP)
			size = end - at;
		/* For 5.4, as in lib/witness.h. */
		size -= 1;
		asm volatile("%0 &= 0x1f" : "+r"(size));
		size += 1;
		if (bpf_skb_load_bytes(skb, at, chunk, size))
			return -1;
		*sum = ram_forget64(cfg, *sum + (u32)bpf_csum_diff(0, 0, (void *)chunk, sizeof(chunk), 0));
		at = ram_forget(cfg, at + RAM_CHECKSUM_STEP);
	}
	return at >= end ? 0 : -1;
}

/* Makes a query into its refusal: the header, the question, and OPT if the query had that. */
RAM_FIRST_HALF int ram_refuse_query(struct __sk_buff *skb)
{
	struct ram_config *cfg = ram_config();
	struct ram_question question = {};
	struct ram_udp_header udp = {};
	struct ram_packet p = {};
	struct ram_opt opt = {};
	u32 message, end, length;
	u8 raw[10], head[3];
	u64 sum;

	if (!cfg || ram_parse(skb, cfg, &p) != RAM_PARSED_PORTS)
		return RAM_DROP;
	/* No resolver's client sends extension headers. */
	if (p.transport - p.network !=
	    (ram_is_ipv4(&p) ? sizeof(struct ram_ipv4_header) : sizeof(struct ram_ipv6_header)))
		return RAM_DROP;
	message = p.payload_offset;
	if (ram_dns_question(skb, cfg, message + RAM_DNS_HEADER, p.end, &question) ||
	    bpf_skb_load_bytes(skb, message + 2, raw, 1))
		return RAM_DROP;
	end = question.behind;
	raw[0] = RAM_DNS_QR | (raw[0] & RAM_DNS_RD);
	raw[1] = RAM_DNS_RA | RAM_DNS_REFUSED;
	raw[2] = 0;
	raw[3] = 1; /* the question */
	raw[4] = raw[5] = raw[6] = raw[7] = raw[8] = raw[9] = 0;
	if (!bpf_skb_load_bytes(skb, end, head, sizeof(head)) && end + sizeof(head) <= p.end &&
	    head[0] == 0 && head[1] == 0 && head[2] == RAM_DNS_TYPE_OPT) {
		raw[9] = 1;
		opt.type[1] = RAM_DNS_TYPE_OPT;
		opt.size[0] = RAM_DNS_UDP_SIZE >> 8;
		opt.size[1] = RAM_DNS_UDP_SIZE & 0xff;
		opt.length[1] = 6;
		opt.option[1] = RAM_DNS_EDE_OPTION;
		opt.option_length[1] = 2;
		opt.info_code[1] = RAM_DNS_EDE_BLOCKED;
	}
	end = ram_forget(cfg, end);
	length = end - p.payload_offset + (raw[9] ? sizeof(opt) : 0);
	if (bpf_skb_change_tail(skb, p.payload_offset + length, 0) || ram_turn_link(skb, &p) ||
	    bpf_skb_store_bytes(skb, message + 2, raw, sizeof(raw), BPF_F_RECOMPUTE_CSUM))
		return RAM_DROP;
	if (raw[9] && bpf_skb_store_bytes(skb, end, &opt, sizeof(opt), BPF_F_RECOMPUTE_CSUM))
		return RAM_DROP;
	length += sizeof(udp);
	udp.source = RAM_HTONS(p.destination_port);
	udp.destination = RAM_HTONS(p.source_port);
	udp.length = RAM_HTONS(length);
	sum = ram_sum_answer(&p, IPPROTO_UDP, length);
	sum += (u32)bpf_csum_diff(0, 0, (void *)&udp, sizeof(udp), 0);
	if (ram_sum_bytes(skb, cfg, p.payload_offset, p.payload_offset + length - sizeof(udp), &sum))
		return RAM_DROP;
	udp.checksum = ram_fold(sum);
	if (!udp.checksum)
		udp.checksum = 0xffff; /* RFC 768: 0 stands for none */
	if (ram_write_ip(skb, &p, IPPROTO_UDP, length) ||
	    bpf_skb_store_bytes(skb, p.payload_offset - sizeof(udp), &udp, sizeof(udp), BPF_F_RECOMPUTE_CSUM))
		return RAM_DROP;
	return ram_send_back(skb);
}

#endif
