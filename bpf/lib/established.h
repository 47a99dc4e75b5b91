/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that were allowed when they began, and stay so. In a cgroup the memory of it lies with the
 * socket. What crosses a device has its socket elsewhere, and is known by its addresses and ports.
 */
#ifndef RAM_ESTABLISHED_H
#define RAM_ESTABLISHED_H

#include "lib/hold.h"
#include "lib/verdict.h"

/* Whether what allowed a connection still does. */
enum ram_standing {
	RAM_STANDING_HOLDS,
	RAM_STANDING_REMOVED,
	RAM_STANDING_NOT_SAID, /* no rule did: it is decided like one that begins */
};

static __always_inline bool ram_rule_still_allows(const struct ram_packet *p, u32 number, u32 port)
{
	struct ram_rule *rule = rules.lookup(&number);

	if (!rule || (rule->flags & RAM_RULE_DENY))
		return false;
	if (rule->flags & RAM_RULE_ADDRESS)
		return ram_rule_of_address(p->destination, port) == number;
	return ram_has_port(rule, port);
}

/*
 * Rules have other numbers in another policy. What was allowed under an earlier one is looked at once:
 * whether its rule is still there. Of what is newer than this program, another one knows, which is about to
 * take over.
 */
static __always_inline u32 ram_standing_of(struct ram_config *cfg, const struct ram_packet *p,
					   struct ram_connection *connection)
{
	u64 identity = connection->identity;
	u32 *number;

	if ((s32)(connection->generation - cfg->generation) >= 0)
		return RAM_STANDING_HOLDS;
	if (!identity)
		return RAM_STANDING_NOT_SAID;
	number = live.lookup(&identity);
	if (number && (!*number || ram_rule_still_allows(p, *number, connection->port))) {
		connection->rule = *number;
		connection->generation = cfg->generation;
		return RAM_STANDING_HOLDS;
	}
	/* It stays, and is told of once. */
	if (cfg->mode == RAM_MODE_AUDIT)
		connection->generation = cfg->generation;
	return RAM_STANDING_REMOVED;
}

/*
 * The rule that allowed a connection, by the number that it has here: a newer program may be attached beside
 * this one already, and has written down its own. 0 where it is none of these rules.
 */
static __always_inline u32 ram_rule_of(struct ram_config *cfg, const struct ram_connection *connection)
{
	u64 identity = connection->identity;
	u32 *number;

	if (connection->generation == cfg->generation)
		return connection->rule;
	number = live.lookup(&identity);
	return number ? *number : 0;
}

/* By which rule, and what for. */
static __always_inline void ram_note_rule(struct ram_config *cfg, struct ram_connection *connection,
					  u32 number, u32 port)
{
	struct ram_rule *rule = rules.lookup(&number);

	connection->rule = number;
	connection->port = port;
	connection->generation = cfg->generation;
	connection->identity = number && rule ? rule->identity : 0;
}

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

/* Returns false where it cannot be remembered. */
static __always_inline bool ram_establish(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					  const struct ram_connection *connection)
{
	void *established_here = established.lookup(&scope);
	struct ram_flow flow = {};

	if (!established_here)
		return false;
	ram_flow_of_outgoing(p, &flow);
	flow.protocol = p->protocol;
	return !ram_map_update(established_here, &flow, connection, 0);
}
#else
/* The socket that has made the packet; NULL where it is none that can be looked at. */
static __always_inline struct bpf_sock *ram_full_socket(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	return sk ? bpf_sk_fullsock(sk) : NULL;
}

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
	struct bpf_sock *sk = ram_full_socket(skb);
	struct ram_peer *peer;

	if (!sk)
		return NULL;
	peer = peers.sk_storage_get(sk, 0, 0);
	if (!peer || !ram_is_peer(peer, p))
		return NULL;
	return &peer->connection;
}

/* Returns false where it cannot be remembered: a process can use up what its socket may have of memory. */
static __always_inline bool ram_establish(struct __sk_buff *skb, const struct ram_packet *p, u32 scope,
					  const struct ram_connection *connection)
{
	struct bpf_sock *sk = ram_full_socket(skb);
	struct ram_peer *peer;

	if (!sk)
		return false;
	peer = peers.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!peer)
		return false;
	__builtin_memcpy(peer->address, p->destination, 16);
	peer->port = p->destination_port;
	peer->local_port = p->source_port;
	peer->protocol = p->protocol;
	peer->connection = *connection;
	peer->set = 1;
	return true;
}
#endif

#endif
