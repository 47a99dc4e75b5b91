/* SPDX-License-Identifier: Apache-2.0 */
/* The oldest kernel that the programs must load on; bcc's helpers choose their spelling by it. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 4, 0)
