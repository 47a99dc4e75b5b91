/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bcc compiles with "-include include/linux/kconfig.h" taken from what it believes is a kernel tree
 * (BCC_KERNEL_SOURCE). This tree is that place: it gives the few kernel-only names that bcc's own headers
 * use, so that no distribution kernel headers are needed. Programs here use UAPI types alone.
 */
#ifndef RAM_LINUX_KCONFIG_H
#define RAM_LINUX_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;
typedef unsigned long size_t;
typedef unsigned long uintptr_t;
typedef _Bool bool;

#define true 1
#define false 0

#ifndef NULL
#define NULL ((void *)0)
#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#endif
