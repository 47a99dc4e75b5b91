/* SPDX-License-Identifier: Apache-2.0 */
/* Empty on purpose: bcc brings its own copy of the UAPI header. */
