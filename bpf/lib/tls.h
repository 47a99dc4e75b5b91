/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ClientHello of TLS 1.0 to 1.3 (RFC 8446 4.1.2, RFC 5246 7.4.1.2), as far as its server_name (RFC 6066
 * 3), and from there to its last extension: of two names some servers believe the last (mbedTLS), so each is
 * judged. It may be spread over several records (RFC 8446 5.1), but for the name itself: no client does that.
 *
 * A client that can speak TLS 1.3 may be asked to begin again (HelloRetryRequest, 4.1.4), and some servers
 * believe the name that it says then (OpenSSL, GnuTLS). So its records are read on: ChangeCipherSpec (D.4)
 * and alerts are passed over, a ClientHello is read like the first, and at anything else the reading ends.
 * Neither another message of the handshake nor application data can be followed by a ClientHello in clear
 * text; data that is sent early could.
 *
 * Read in steps: a record's header, a number of up to five bytes, or bytes to pass over. Whatever a step
 * leaves for the next is in memory, where the verifier does not follow it.
 */
#ifndef RAM_TLS_H
#define RAM_TLS_H

#include "lib/beginning.h"
#include "lib/hostname.h"

#define RAM_TLS_CHANGE_CIPHER_SPEC 20
#define RAM_TLS_ALERT 21
#define RAM_TLS_HANDSHAKE 22
#define RAM_TLS_APPLICATION_DATA 23
#define RAM_TLS_RECORD_HEADER 5
#define RAM_TLS_RECORD_MAX 16384
#define RAM_TLS_MESSAGE_HEADER 4
#define RAM_TLS_CLIENT_HELLO 1
#define RAM_TLS_SESSION_ID_MAX 32
#define RAM_TLS_RANDOM 32
#define RAM_TLS_SERVER_NAME 0
#define RAM_TLS_HOST_NAME 0
#define RAM_TLS_EARLY_DATA 42
#define RAM_TLS_SUPPORTED_VERSIONS 43
/* No server takes so long a ClientHello. By that the first bytes of a message that TLS 1.2 has encrypted are
 * told from one: but for one in twenty thousand. */
#define RAM_TLS_AGAIN_MAX 0x2ffff

/* What stands where reading is to go on. */
enum ram_hello_part {
	RAM_HELLO_NEW,	   /* nothing was read yet */
	RAM_HELLO_MESSAGE, /* its type and length */
	RAM_HELLO_VERSION,
	RAM_HELLO_SESSION,
	RAM_HELLO_CIPHERS,
	RAM_HELLO_COMPRESSION,
	RAM_HELLO_EXTENSIONS,
	RAM_HELLO_EXTENSION,
	RAM_HELLO_SERVER_NAME,
	RAM_HELLO_NAME, /* all is known but whether the name is there to its end */
	RAM_HELLO_NEXT, /* type and length of the message behind a ClientHello */
};

/* The next step passes over `skip` bytes, then reads a number of `need` bytes. */
static __always_inline u32 ram_expect(struct ram_beginning *draft, u32 part, u32 skip, u32 need)
{
	if (skip + need > draft->message_left)
		return RAM_READ_STRANGE;
	draft->message_left -= skip + need;
	draft->skip = skip;
	draft->need = need;
	draft->part = part;
	draft->gathered = 0;
	return RAM_READ_ON;
}

/* The next step passes over `skip` bytes, with which a message ends, and reads what the next one begins with.
 */
static __always_inline void ram_expect_message(struct ram_beginning *draft, u32 part, u32 skip)
{
	draft->message_left = 0;
	draft->skip = skip;
	draft->need = RAM_TLS_MESSAGE_HEADER;
	draft->part = part;
	draft->gathered = 0;
}

static __always_inline u32 ram_expect_extension(struct ram_beginning *draft, u32 skip)
{
	if (draft->message_left != skip)
		return ram_expect(draft, RAM_HELLO_EXTENSION, skip, 4);
	ram_expect_message(draft, RAM_HELLO_NEXT, skip);
	/* The name of a tunnel's target is in front of the tunnel, and that of another ClientHello in front
	 * of this one. */
	if (draft->name_at <= draft->hello)
		return RAM_READ_NO_NAME;
	return draft->may_follow ? RAM_READ_ON : RAM_READ_END;
}

/* Behind the ClientHello: another one, or what ends the reading. */
static __always_inline u32 ram_step_next(struct ram_beginning *draft, u64 number)
{
	if (number >> 24 != RAM_TLS_CLIENT_HELLO || (number & 0xffffff) > RAM_TLS_AGAIN_MAX)
		return RAM_READ_END;
	draft->again = 1;
	draft->may_follow = 0;
	draft->hello = draft->at;
	draft->message_left = number & 0xffffff;
	return ram_expect(draft, RAM_HELLO_VERSION, 0, 2);
}

/* The name was allowed: on to what is behind it. */
static __always_inline u32 ram_read_on_behind_name(struct ram_beginning *draft)
{
	return ram_expect_extension(draft, draft->name_length);
}

/* Up to where the bytes were read that say so. */
static __always_inline u32 ram_end_of_reading(const struct ram_beginning *draft)
{
	u32 name_end = draft->name_at + draft->name_length;

	return draft->at > name_end ? draft->at : name_end;
}

static __always_inline u32 ram_read_server_name(struct ram_beginning *draft, u64 number)
{
	u32 list = number >> 24, kind = (number >> 16) & 0xff, length = number & 0xffff;

	/* One name, which is all there may be, and nothing beside it. So far, `name_length` is the
	 * extension's. */
	if (kind != RAM_TLS_HOST_NAME || list != length + 3 || length == 0 || length > RAM_HOST_NAME_MAX ||
	    draft->name_length != length + 5 || length > draft->message_left)
		return RAM_READ_STRANGE;
	draft->name_at = draft->at;
	draft->name_length = length;
	draft->part = RAM_HELLO_NAME;
	return length > draft->record_left ? RAM_READ_STRANGE : RAM_READ_ON;
}

/* A number is complete: what it means. */
static __always_inline u32 ram_step_hello(struct ram_beginning *draft)
{
	u64 number = draft->gathered;

	draft->gathered = 0;
	switch (draft->part) {
	case RAM_HELLO_MESSAGE:
		if (number >> 24 != RAM_TLS_CLIENT_HELLO)
			return RAM_READ_STRANGE;
		draft->message_left = number & 0xffffff;
		return ram_expect(draft, RAM_HELLO_VERSION, 0, 2);
	case RAM_HELLO_VERSION:
		if (number >> 8 != 3)
			return RAM_READ_STRANGE;
		return ram_expect(draft, RAM_HELLO_SESSION, RAM_TLS_RANDOM, 1);
	case RAM_HELLO_SESSION:
		if (number > RAM_TLS_SESSION_ID_MAX)
			return RAM_READ_STRANGE;
		return ram_expect(draft, RAM_HELLO_CIPHERS, number, 2);
	case RAM_HELLO_CIPHERS:
		return ram_expect(draft, RAM_HELLO_COMPRESSION, number, 1);
	case RAM_HELLO_COMPRESSION:
		/* A ClientHello may end without extensions. */
		if (draft->message_left == number)
			return RAM_READ_NO_NAME;
		return ram_expect(draft, RAM_HELLO_EXTENSIONS, number, 2);
	case RAM_HELLO_EXTENSIONS:
		if (number != draft->message_left)
			return RAM_READ_STRANGE;
		return ram_expect_extension(draft, 0);
	case RAM_HELLO_EXTENSION:
		if (number >> 16 == RAM_TLS_SUPPORTED_VERSIONS)
			draft->may_follow = 1;
		if (number >> 16 == RAM_TLS_EARLY_DATA)
			draft->early_data = 1;
		if (number >> 16 != RAM_TLS_SERVER_NAME)
			return ram_expect_extension(draft, number & 0xffff);
		draft->name_length = number & 0xffff;
		return ram_expect(draft, RAM_HELLO_SERVER_NAME, 0, 5);
	case RAM_HELLO_NEXT:
		return ram_step_next(draft, number);
	default:
		return ram_read_server_name(draft, number);
	}
}

/* Whether a ClientHello is over and no other message has begun. */
static __always_inline bool ram_is_between_messages(const struct ram_beginning *draft)
{
	return draft->part == RAM_HELLO_NEXT && !draft->skip && draft->need == RAM_TLS_MESSAGE_HEADER;
}

static __always_inline u32 ram_step_tls_record(struct ram_beginning *draft)
{
	u64 header = ram_word_at(draft, draft->at);
	u32 length = (header >> 24) & 0xffff, kind = header >> 56;
	bool between = ram_is_between_messages(draft), passed_over;

	if (draft->held <= draft->at)
		return between ? RAM_READ_PAUSE : RAM_READ_MORE;
	if (between && kind == RAM_TLS_APPLICATION_DATA) {
		draft->at += 1; /* it was judged as well, and is not to be replaced */
		return RAM_READ_END;
	}
	passed_over = between && (kind == RAM_TLS_CHANGE_CIPHER_SPEC || kind == RAM_TLS_ALERT);
	/* What is wrong shows before all of it is there. */
	if (kind != RAM_TLS_HANDSHAKE && !passed_over)
		return RAM_READ_STRANGE;
	if (draft->at + RAM_TLS_RECORD_HEADER > draft->held)
		return RAM_READ_MORE;
	if (((header >> 48) & 0xff) != 3 || length == 0 || length > RAM_TLS_RECORD_MAX)
		return RAM_READ_STRANGE;
	draft->record_left = length;
	if (passed_over)
		draft->skip = length;
	draft->at += RAM_TLS_RECORD_HEADER;
	return RAM_READ_ON;
}

/* One step. RAM_READ_ON, or what all has come to. */
static __always_inline u32 ram_step_tls(struct ram_beginning *draft)
{
	u64 size, number;

	if (draft->part == RAM_HELLO_NAME)
		return draft->at + draft->name_length <= draft->held ? RAM_READ_NAME : RAM_READ_MORE;
	if (!draft->record_left)
		return ram_step_tls_record(draft);
	size = draft->held - draft->at;
	if (!size)
		return RAM_READ_MORE;
	if (size > draft->record_left)
		size = draft->record_left;
	if (draft->skip) {
		if (size > draft->skip)
			size = draft->skip;
		draft->skip -= size;
		draft->at += size;
		draft->record_left -= size;
		return RAM_READ_ON;
	}
	if (size > draft->need)
		size = draft->need;
	number = ram_word_at(draft, draft->at) >> ((64 - size * 8) & 63);
	draft->gathered = draft->gathered << (size * 8) | number;
	draft->need -= size;
	draft->at += size;
	draft->record_left -= size;
	return draft->need ? RAM_READ_ON : ram_step_hello(draft);
}

#endif
