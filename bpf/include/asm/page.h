/* SPDX-License-Identifier: Apache-2.0 */
/* Included by bcc helpers for tracing macros that are not used here. */
