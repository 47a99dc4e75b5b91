/* SPDX-License-Identifier: Apache-2.0 */
/* What a program knows of where it runs. */
#ifndef RAM_SCOPE_H
#define RAM_SCOPE_H

#include "lib/maps.h"

static __always_inline struct ram_config *ram_config(void)
{
	u32 zero = 0;

	return config.lookup(&zero);
}

#define RAM_PLACE_MASK 0xffff /* without depth or mark */

/* Where this program is attached: the scope's number, enum ram_place_flag, and a cgroup's depth or a mark. */
static __always_inline u32 ram_place_of_program(void)
{
	u32 zero = 0, *place = scope_self.lookup(&zero);

	return place ? *place : RAM_SCOPES_MAX;
}

#endif
