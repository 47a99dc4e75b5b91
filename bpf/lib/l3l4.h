/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IPv4 (RFC 791), IPv6 (RFC 8200) and the ports of TCP and UDP, read with bpf_skb_load_bytes: under
 * BPF_PROG_TEST_RUN a cgroup_skb program has no data pointers, and a packet need not be linear.
 * The parser says what the bytes are; what is allowed is decided elsewhere.
 */
#ifndef RAM_L3L4_H
#define RAM_L3L4_H

#include <linux/in.h>
#include <linux/in6.h>

#include "lib/endian.h"
#include "lib/link.h"
#include "lib/maps.h"

#define RAM_IPV6_EXTENSIONS_MAX 8

#define RAM_TCP_FIN 0x01
#define RAM_TCP_SYN 0x02
#define RAM_TCP_RST 0x04
#define RAM_TCP_ACK 0x10
#define RAM_TCP_URG 0x20

enum ram_parsed {
	RAM_PARSED_PORTS,	 /* TCP or UDP, ports read */
	RAM_PARSED_OTHER,	 /* another protocol, complete */
	RAM_PARSED_ARP,		 /* RFC 826; seen on devices only */
	RAM_PARSED_FRAGMENT,	 /* a fragment other than the first: no ports */
	RAM_PARSED_SOURCE_ROUTE, /* its destination field is not where it ends */
	RAM_PARSED_MALFORMED,
};

struct ram_packet {
	u32 source[4];
	u32 destination[4];
	u32 network;   /* offset of the IP header; 0 in a cgroup's hooks, as are those below from there */
	u32 transport; /* offset of the TCP or UDP header */
	u32 payload_offset; /* of the TCP or UDP payload */
	u32 end;	    /* where the TCP segment or UDP datagram ends */
	u32 sequence;	    /* of a TCP segment */
	u16 source_port;
	u16 destination_port;
	u8 protocol;
	u8 tcp_flags;
};

static __always_inline void ram_map_ipv4(u32 *address, u32 ipv4_be)
{
	address[0] = 0;
	address[1] = 0;
	address[2] = RAM_HTONL(0xffff);
	address[3] = ipv4_be;
}

/*
 * Where a packet ends. A cgroup's hooks see packets that the kernel has cut to their length. What crosses a
 * device may have padding behind it; a length of 0 stands for more than the field can hold (RFC 2675, and
 * the kernel's segmentation offload).
 */
static __always_inline u32 ram_packet_end(struct __sk_buff *skb, u32 network, u32 header, const u8 *length)
{
#ifdef RAM_TC
	u32 said = (u32)length[0] << 8 | length[1];

	if (said && network + header + said < skb->len)
		return network + header + said;
#endif
	return skb->len;
}

/*
 * What a TCP segment acknowledges: the sequence number that its sender expects next. 0 of anything else, and
 * where it was not read that far, as behind a source route.
 */
static __always_inline u32 ram_acknowledged(struct __sk_buff *skb, const struct ram_packet *p)
{
	u8 raw[4];

	if (p->protocol != IPPROTO_TCP || !p->transport ||
	    bpf_skb_load_bytes(skb, p->transport + 8, raw, sizeof(raw)))
		return 0;
	return (u32)raw[0] << 24 | (u32)raw[1] << 16 | (u32)raw[2] << 8 | raw[3];
}

/* Reads on behind the IP header. `end`: of the packet. */
static __always_inline int ram_parse_ports(struct __sk_buff *skb, u32 end, struct ram_packet *p)
{
	u32 offset = p->transport;

	if (p->protocol == IPPROTO_TCP) {
		u8 tcp[20];

		if (bpf_skb_load_bytes(skb, offset, tcp, sizeof(tcp)))
			return RAM_PARSED_MALFORMED;
		p->source_port = (u16)tcp[0] << 8 | tcp[1];
		p->destination_port = (u16)tcp[2] << 8 | tcp[3];
		p->sequence = (u32)tcp[4] << 24 | (u32)tcp[5] << 16 | (u32)tcp[6] << 8 | tcp[7];
		p->tcp_flags = tcp[13];
		p->payload_offset = offset + (tcp[12] >> 4) * 4;
		p->end = end;
		return RAM_PARSED_PORTS;
	}
	if (p->protocol == IPPROTO_UDP) {
		u8 udp[8];
		u32 length;

		if (bpf_skb_load_bytes(skb, offset, udp, sizeof(udp)))
			return RAM_PARSED_MALFORMED;
		p->source_port = (u16)udp[0] << 8 | udp[1];
		p->destination_port = (u16)udp[2] << 8 | udp[3];
		p->payload_offset = offset + sizeof(udp);
		length = (u32)udp[4] << 8 | udp[5];
		/* With segmentation offload one buffer holds several datagrams and its length field lies. */
		p->end = offset + length;
		if (length < sizeof(udp) || p->end > skb->len)
			p->end = end;
		return RAM_PARSED_PORTS;
	}
	return RAM_PARSED_OTHER;
}

/* Returns RAM_PARSED_PORTS when what is behind the header may have some. */
static __always_inline int ram_parse_ipv4(struct __sk_buff *skb, struct ram_packet *p, u32 *end)
{
	u32 network = p->network;
	u8 ip[20];
	u32 header;

	if (bpf_skb_load_bytes(skb, network, ip, sizeof(ip)))
		return RAM_PARSED_MALFORMED;
	header = (ip[0] & 0x0f) * 4;
	if ((ip[0] >> 4) != 4 || header < sizeof(ip))
		return RAM_PARSED_MALFORMED;
	p->protocol = ip[9];
	if (bpf_skb_load_bytes(skb, network + 12, &p->source[3], 4) ||
	    bpf_skb_load_bytes(skb, network + 16, &p->destination[3], 4))
		return RAM_PARSED_MALFORMED;
	ram_map_ipv4(p->source, p->source[3]);
	ram_map_ipv4(p->destination, p->destination[3]);
	if ((((u32)ip[6] << 8 | ip[7]) & 0x1fff) != 0)
		return RAM_PARSED_FRAGMENT;
	/*
	 * Loose and strict source routes (RFC 791 3.1) put the first hop where the destination stands. No
	 * registry client sends options at all, so none is looked into; IGMP does (router alert).
	 */
	if (header > sizeof(ip) && (p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_UDP))
		return RAM_PARSED_SOURCE_ROUTE;
	p->transport = network + header;
	*end = ram_packet_end(skb, network, 0, &ip[2]);
	return RAM_PARSED_PORTS;
}

/* The same, behind all headers. */
static __always_inline int ram_parse_ipv6(struct __sk_buff *skb, struct ram_packet *p, u32 *end)
{
	u32 network = p->network, offset = network + 40;
	u8 start[8], next;
	int i;

	if (bpf_skb_load_bytes(skb, network, start, sizeof(start)) ||
	    bpf_skb_load_bytes(skb, network + 8, p->source, 16) ||
	    bpf_skb_load_bytes(skb, network + 24, p->destination, 16))
		return RAM_PARSED_MALFORMED;
	*end = ram_packet_end(skb, network, 40, &start[4]);
	next = start[6];
	for (i = 0; i < RAM_IPV6_EXTENSIONS_MAX; i++) {
		u8 extension[8];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_DSTOPTS && next != IPPROTO_FRAGMENT &&
		    next != IPPROTO_ROUTING && next != IPPROTO_AH) {
			p->protocol = next;
			p->transport = offset;
			return RAM_PARSED_PORTS;
		}
		if (bpf_skb_load_bytes(skb, offset, extension, sizeof(extension)))
			return RAM_PARSED_MALFORMED;
		p->protocol = next;
		if (next == IPPROTO_ROUTING)
			return RAM_PARSED_SOURCE_ROUTE;
		if (next == IPPROTO_FRAGMENT) {
			if ((((u32)extension[2] << 8 | extension[3]) & 0xfff8) != 0)
				return RAM_PARSED_FRAGMENT;
			offset += 8;
		} else if (next == IPPROTO_AH) {
			offset += ((u32)extension[1] + 2) * 4;
		} else {
			offset += ((u32)extension[1] + 1) * 8;
		}
		next = extension[0];
	}
	return RAM_PARSED_MALFORMED;
}

/* Reads the headers of a packet. */
static __always_inline int ram_parse(struct __sk_buff *skb, struct ram_config *cfg, struct ram_packet *p)
{
	int parsed = RAM_PARSED_MALFORMED;
	struct ram_link link;
	u32 end = 0;

	ram_read_link(skb, cfg, &link);
	p->network = link.length;
	if (link.ethertype == RAM_ETH_P_IP)
		parsed = ram_parse_ipv4(skb, p, &end);
	else if (link.ethertype == RAM_ETH_P_IPV6)
		parsed = ram_parse_ipv6(skb, p, &end);
#ifdef RAM_TC
	else if (link.ethertype == RAM_ETH_P_ARP)
		parsed = RAM_PARSED_ARP;
#endif
	if (parsed == RAM_PARSED_PORTS)
		parsed = ram_parse_ports(skb, end, p);
	if (parsed == RAM_PARSED_PORTS) {
		/* From here on it no longer matters by which of many ways the packet was read: see
		 * ram_forget(). */
		ram_forget_address(cfg, p->source);
		ram_forget_address(cfg, p->destination);
#ifdef RAM_TC
		p->network = ram_forget(cfg, p->network);
#endif
		p->transport = ram_forget(cfg, p->transport);
		p->payload_offset = ram_forget(cfg, p->payload_offset);
		p->end = ram_forget(cfg, p->end);
		p->sequence = ram_forget(cfg, p->sequence);
		p->source_port = ram_forget(cfg, p->source_port);
		p->destination_port = ram_forget(cfg, p->destination_port);
		p->protocol = ram_forget(cfg, p->protocol);
		p->tcp_flags = ram_forget(cfg, p->tcp_flags);
	}
	return parsed;
}

#endif
