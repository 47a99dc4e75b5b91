/* SPDX-License-Identifier: Apache-2.0 */
/* Resolvers behind NAT to ports of their own. */
#ifndef RAM_TRANSLATION_H
#define RAM_TRANSLATION_H

#include "lib/l3l4.h"
#include "lib/verdict.h"

/* Docker's resolver is asked on port 53, which NAT turns into another one before the packet comes here. */
static __always_inline bool ram_is_translated_resolver(struct __sk_buff *skb, struct ram_config *cfg,
						       const struct ram_packet *p)
{
	struct ram_endpoint untranslated = {};
	u32 *flags;

	if (cfg->loopback_ifindex && skb->ifindex != cfg->loopback_ifindex)
		return false;
	__builtin_memcpy(untranslated.address, p->destination, 16);
	untranslated.port = RAM_PORT_DNS;
	flags = resolvers.lookup(&untranslated);
	return flags && (*flags & RAM_RESOLVER_TRANSLATED);
}

/* A translated resolver answers from the port that the client knows. */
static __always_inline void ram_undo_translation(struct __sk_buff *skb, struct ram_config *cfg,
						 struct ram_packet *p)
{
	u32 port = p->destination_port;

	if (ram_is_translated_resolver(skb, cfg, p))
		port = RAM_PORT_DNS;
	p->destination_port = ram_forget(cfg, port);
}

#endif
