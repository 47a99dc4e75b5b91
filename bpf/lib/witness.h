/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies of a resolver on this host come over the loopback interface, where any process may send anything
 * from any address. So they are recognised by who sent them: a program on the resolver's own cgroup leaves a
 * fingerprint of each reply that leaves from the resolver's socket, and the client's side believes only a
 * message whose fingerprint is there. Somebody else's copy of it says nothing new.
 */
#ifndef RAM_WITNESS_H
#define RAM_WITNESS_H

#include "lib/identity.h"
#include "lib/l3l4.h"
#include "lib/loops.h"

#define RAM_FINGERPRINT_STEP 32

/* Of the bytes from `offset` to `end`. 0 when there are more of them than are looked into. */
static __always_inline u64 ram_fingerprint(struct __sk_buff *skb, struct ram_config *cfg, u32 offset, u32 end)
{
	u32 at = ram_forget(cfg, offset);
	struct ram_sip sip;
	u64 fingerprint;
	u64 i;

	ram_sip_start(&sip, cfg);
	ram_sip_word(&sip, end - offset);
	ram_sip_forget(&sip, cfg);
	RAM_TURNS(i, cfg, RAM_DATAGRAM_MAX / RAM_FINGERPRINT_STEP + 1) {
		u64 word[RAM_FINGERPRINT_STEP / 8] = {};
		u64 size = RAM_FINGERPRINT_STEP;

		if (at >= end) {
			fingerprint = ram_sip_end(&sip);
			return fingerprint ? fingerprint : 1;
		}
		if (end - at < RAM_FINGERPRINT_STEP)
			size = end - at;
		/* For 5.4: a length that is never 0, and with its bounds in this register. */
		size -= 1;
		asm volatile("%0 &= 0x1f" : "+r"(size));
		size += 1;
		if (bpf_skb_load_bytes(skb, at, word, size))
			return 0;
		ram_sip_word(&sip, word[0]);
		ram_sip_word(&sip, word[1]);
		ram_sip_word(&sip, word[2]);
		ram_sip_word(&sip, word[3]);
		ram_sip_forget(&sip, cfg);
		at = ram_forget(cfg, at + RAM_FINGERPRINT_STEP);
	}
	return 0;
}

/*
 * Whether the packet is a reply from the socket of a resolver on this host. Docker's resolver has its sockets
 * in the network namespaces of its containers, where user space does not look for them; there the socket must
 * have been made in the Docker daemon's own cgroup, and not in one below that, as its containers' may be.
 */
static __always_inline bool ram_is_from_local_resolver(struct __sk_buff *skb, struct ram_config *cfg,
						       const struct ram_packet *p)
{
	struct ram_endpoint source = {};
	u64 cookie, cgroup;
	u32 *flags;

	if (skb->ifindex != cfg->loopback_ifindex && cfg->loopback_ifindex)
		return false;
	__builtin_memcpy(source.address, p->source, 16);
	source.port = p->source_port;
	flags = resolvers.lookup(&source);
	if (!flags || !(*flags & RAM_RESOLVER_LOCAL))
		return false;
	if (*flags & RAM_RESOLVER_TRANSLATED) {
		cgroup = bpf_skb_cgroup_id(skb);
		return resolver_cgroups.lookup(&cgroup) != NULL;
	}
	cookie = bpf_get_socket_cookie(skb);
	return resolver_sockets.lookup(&cookie) != NULL;
}

/* On egress of the resolver. */
static __always_inline void ram_leave_fingerprint(struct __sk_buff *skb, struct ram_config *cfg,
						  const struct ram_packet *p)
{
	u64 fingerprint = ram_fingerprint(skb, cfg, p->payload_offset, p->end);
	u64 now = ram_now();

	if (fingerprint)
		witnessed.update(&fingerprint, &now);
}

/* On ingress of the client. Several scopes, one in the other, may look at one reply. */
static __always_inline bool ram_was_witnessed(struct __sk_buff *skb, struct ram_config *cfg,
					      const struct ram_packet *p)
{
	u64 fingerprint = ram_fingerprint(skb, cfg, p->payload_offset, p->end);
	u64 *left;

	if (!fingerprint)
		return false;
	left = witnessed.lookup(&fingerprint);
	return left && !ram_is_past(ram_now(), *left, cfg->query_lifetime_ns);
}

#endif
