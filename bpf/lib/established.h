/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that were allowed when they began, and stay so. In a cgroup the memory of it lies with the
 * socket. What crosses a device has its socket elsewhere, and is known by its addresses and ports.
 */
#ifndef RAM_ESTABLISHED_H
#define RAM_ESTABLISHED_H

#include "lib/hold.h"

/* Whether the connection was let through before it was known that it leads to a registry. */
static __always_inline bool ram_is_cut(struct __sk_buff *skb, struct ram_config *cfg)
{
	u64 cookie;

	if (cfg->posture == RAM_POSTURE_STRICT)
		return false;
	cookie = bpf_get_socket_cookie(skb);
	return cookie && cut_sockets.lookup(&cookie);
}

#ifdef RAM_TC
static __always_inline struct ram_connection *ram_find_connection(struct __sk_buff *skb,
								  const struct ram_packet *p, u32 scope)
{
	void *established_here = established.lookup(&scope);
	struct ram_flow flow = {};

	if (!established_here)
		return NULL;
	ram_flow_of_outgoing(p, &flow);
	flow.protocol = p->protocol;
	return ram_map_lookup(established_here, &flow);
}

static __always_inline void ram_establish(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					  const struct ram_connection *connection)
{
	void *established_here = established.lookup(&scope);
	struct ram_flow flow = {};

	if (!established_here)
		return;
	ram_flow_of_outgoing(p, &flow);
	flow.protocol = p->protocol;
	ram_map_update(established_here, &flow, connection, 0);
}
#else
static __always_inline bool ram_is_peer(const struct ram_peer *peer, const struct ram_packet *p)
{
	return peer->set && peer->port == p->destination_port && peer->local_port == p->source_port &&
	       peer->protocol == p->protocol && peer->address[0] == p->destination[0] &&
	       peer->address[1] == p->destination[1] && peer->address[2] == p->destination[2] &&
	       peer->address[3] == p->destination[3];
}

static __always_inline struct ram_connection *ram_find_connection(struct __sk_buff *skb,
								  const struct ram_packet *p, u32 scope)
{
	struct bpf_sock *sk = skb->sk;
	struct ram_peer *peer;

	if (!sk)
		return NULL;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return NULL;
	peer = peers.sk_storage_get(sk, 0, 0);
	if (!peer || !ram_is_peer(peer, p))
		return NULL;
	return &peer->connection;
}

static __always_inline void ram_establish(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					  const struct ram_connection *connection)
{
	struct bpf_sock *sk = skb->sk;
	struct ram_peer *peer;

	if (!sk)
		return;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return;
	peer = peers.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peer)
		return;
	__builtin_memcpy(peer->address, p->destination, 16);
	peer->port = p->destination_port;
	peer->local_port = p->source_port;
	peer->protocol = p->protocol;
	peer->connection = *connection;
	peer->set = 1;
}
#endif

#endif
