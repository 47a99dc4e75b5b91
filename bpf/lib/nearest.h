/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Of several governed cgroups, one in the other, the innermost decides. The kernel runs the programs of a
 * socket's own cgroup first and those of its parents behind them (kernel/bpf/cgroup.c,
 * compute_effective_progs), so the first one leaves its depth under the socket's cookie, and those further
 * out find that.
 */
#ifndef RAM_NEAREST_H
#define RAM_NEAREST_H

#include "lib/maps.h"

/* Whether somebody further in decides about the socket. `place`: where this program is attached. */
static __always_inline bool ram_is_left_to_others(struct ram_config *cfg, u64 cookie, u32 place)
{
	u32 depth = place >> RAM_DEPTH_SHIFT;
	u32 *known;

	if (!(cfg->flags & RAM_CONFIG_NESTED) || !cookie)
		return false;
	known = judged.lookup(&cookie);
	if (known && *known == depth)
		return false;
	if (known && *known > depth)
		return true;
	judged.update(&cookie, &depth);
	return false;
}

#endif
