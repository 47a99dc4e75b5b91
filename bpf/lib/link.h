/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stands in front of the IP header. A cgroup's hooks see nothing of it. On a device with Ethernet frames
 * it is their header (IEEE 802.3), and VLAN tags (IEEE 802.1Q) that the kernel has not taken out.
 */
#ifndef RAM_LINK_H
#define RAM_LINK_H

#include "lib/endian.h"
#include "lib/maps.h"

#define RAM_ETH_P_IP 0x0800
#define RAM_ETH_P_ARP 0x0806
#define RAM_ETH_P_8021Q 0x8100
#define RAM_ETH_P_IPV6 0x86dd
#define RAM_ETH_P_8021AD 0x88a8
#define RAM_ETH_HEADER 14
#define RAM_VLAN_TAG 4
#define RAM_VLAN_TAGS_MAX 2

struct ram_link {
	u32 length; /* of what is in front */
	u16 ethertype;
};

#ifdef RAM_TC
static __always_inline void ram_read_link(struct __sk_buff *skb, struct ram_config *cfg,
					  struct ram_link *link)
{
	/* The slot of the stack is nobody else's: where it is not written, a verifier before 6.10 tells one
	 * way to read a packet from another for as long as anything in it is used. */
	u8 raw[8] __attribute__((aligned(8)));
	int i;

	link->ethertype = RAM_NTOHS((u16)skb->protocol);
	link->length = 0;
	if (skb->cb[RAM_CB_SCOPE] & RAM_PLACE_NO_LINK_HEADER)
		return;
	link->length = RAM_ETH_HEADER;
	/* The header itself: what is said beside the packet may be the outer tag's or the inner one's. */
	if (bpf_skb_load_bytes(skb, RAM_ETH_HEADER - 2, raw, 2))
		return;
	link->ethertype = (u16)raw[0] << 8 | raw[1];
	for (i = 0; i < RAM_VLAN_TAGS_MAX; i++) {
		if (link->ethertype != RAM_ETH_P_8021Q && link->ethertype != RAM_ETH_P_8021AD)
			break;
		if (bpf_skb_load_bytes(skb, link->length + 2, raw, 2))
			break;
		link->ethertype = (u16)raw[0] << 8 | raw[1];
		link->length += RAM_VLAN_TAG;
	}
	link->ethertype = ram_forget(cfg, link->ethertype);
	link->length = ram_forget(cfg, link->length);
}
#else
static __always_inline void ram_read_link(struct __sk_buff *skb, struct ram_config *cfg,
					  struct ram_link *link)
{
	link->ethertype = RAM_NTOHS((u16)skb->protocol);
	link->length = 0;
}
#endif

#endif
