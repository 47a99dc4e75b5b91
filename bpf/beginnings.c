// SPDX-License-Identifier: Apache-2.0
/*
 * What those of cgroup.c leave to others: programs that read what a connection begins with, for the name in
 * it.
 *
 * By themselves, as these are a fifth of all: where a start has to compile, they come a moment after it. What
 * is to be read is dropped until then, and sent again.
 */
#include "abi.h"

#include "lib/naming.h"
