/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How maps are declared to bcc, which finds a map's shape by the names of a structure's members
 * (src/cc/frontends/clang/b_frontend_action.cc), and its helpers by which of them is called.
 *
 * bcc's own macros put key and leaf first, and bcc then compiles functions that read and print these two, for
 * user space that asks it to; it would take a twentieth of its time. Here nobody asks.
 */
#ifndef RAM_DECLARE_H
#define RAM_DECLARE_H

#define RAM_DECLARE(kind, name, entries, map_flags, members)                                                 \
	struct name##_table_t {                                                                              \
		u32 max_entries;                                                                             \
		int flags;                                                                                   \
		members                                                                                      \
	};                                                                                                   \
	__attribute__((section("maps/" kind))) struct name##_table_t name = {.max_entries = (entries),       \
									     .flags = (map_flags)}

/* clang-format off: each is a list of members */
#define RAM_MAP(kind, key_type, leaf_type, name, entries, map_flags)                                         \
	RAM_DECLARE(kind, name, entries, map_flags, key_type key; leaf_type leaf;                            \
		    leaf_type * (*lookup)(key_type *); int (*update)(key_type *, leaf_type *);               \
		    int (*delete)(key_type *);)

/* Of programs, for tail calls. */
#define RAM_PROGRAM_ARRAY(name, entries)                                                                     \
	RAM_DECLARE("prog", name, entries, 0, u32 key; u32 leaf; void (*call)(void *, int);)

#define RAM_QUEUE(leaf_type, name, entries)                                                                  \
	RAM_DECLARE("queue", name, entries, 0, leaf_type leaf; int (*push)(leaf_type *, u64);)

/*
 * Socket storage. Declared as a hash, since bcc's own declaration wants type information that not every
 * version of it writes; the loader creates it as BPF_MAP_TYPE_SK_STORAGE.
 */
#define RAM_SOCKET_STORAGE(leaf_type, name)                                                                  \
	RAM_DECLARE("hash", name, 1, 0, u32 key; leaf_type leaf;                                             \
		    void *(*sk_storage_get)(void *, void *, int); int (*sk_storage_delete)(void *);)
/* clang-format on */

#define RAM_ARRAY(leaf_type, name, entries) RAM_MAP("array", u32, leaf_type, name, entries, 0)

#endif
